"""`btauth/1` of SDK 11: signs, verifies, and serves HTTP that it verifies.

Jobs:
  {"sign": {"as": "//Bob", "method", "path", "body", "receiver", "nonce", "crypto": 1}}   the headers; crypto 0 is ed25519
  {"verify": {"headers", "method", "path", "body", "receiver"}}                       the caller, or the error's class
  {"listen": {"as": "//Alice"}}                                                       starts a server; its port
  {"heard": true}                                                                     what its verifier said of each request
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import driver
from bittensor import http_auth
from bittensor.sp_core import Keypair

heard = []
# One memory of nonces for the jobs, one for the server.
told, served = http_auth.InMemoryNonceStore(), http_auth.InMemoryNonceStore()


def verify(headers, body, method, path, receiver, store):
    try:
        caller = http_auth.verify(
            headers, body, method=method, path=path, self_hotkey_ss58=receiver, nonce_store=store
        )
        return {"caller": caller.hotkey_ss58}
    except http_auth.AuthError as error:
        return {"error": type(error).__name__}


def listen(receiver):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(verify(dict(self.headers.items()), body, "POST", self.path, receiver, served))
            reply = b'{"version":"11"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def answer(job):
    if "sign" in job:
        ask = job["sign"]
        return http_auth.sign(
            Keypair.create_from_uri(ask["as"], ask.get("crypto", 1)),
            method=ask["method"],
            path=ask["path"],
            body=ask["body"].encode(),
            receiver_ss58=ask.get("receiver"),
            nonce_ns=ask.get("nonce"),
        )
    if "verify" in job:
        ask = job["verify"]
        return verify(ask["headers"], ask["body"].encode(), ask["method"], ask["path"], ask["receiver"], told)
    if "listen" in job:
        key = Keypair.create_from_uri(job["listen"]["as"])
        return {"port": listen(key.ss58_address), "hotkey": key.ss58_address}
    return {"heard": heard}


driver.serve(answer)
