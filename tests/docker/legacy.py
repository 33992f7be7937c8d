"""What programs of the original do with a miner beside calling it: keys, envelopes, SSH with paramiko.

Jobs:
  {"pair": true}                        a fresh RSA pair; answers with its number and its public key
  {"open": {"pair": 0, "info": ".."}}   the credentials in an allocation's `info`
  {"key": "ed25519"}                    a key pair to log in with (or "rsa"); answers with its number and its public line
  {"login": {"port": 1, "password": ".."}}   logs in as a validator does; or {"key": 0} as a renter does, "patience" in
                                        seconds. Answers with the session's number, or with what went wrong
  {"run": {"session": 0, "command": ".."}}   what it prints, and its exit status
  {"test": 0}                           a validator's test in this session: upload, hash, four steps, download
"""

import base64
import hashlib
import io
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))

import driver
import paramiko
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

INTERPRETER = "/opt/conda/bin/python"
SCRIPT = "/tmp/miner_script.py"
# Does in each step what the validators' own script does, but for the GPU.
WORK = b"""
import hashlib, os, pickle, sys
mode = sys.argv[1]
if mode == "gpu_info":
    print('{"num_gpus": 0, "gpu_names": []}')
elif mode == "benchmark":
    print("0 0.00 0 0.000000 0 0.000000")
elif mode == "compute":
    lines = open("/tmp/seeds.txt").read().split("\\n")
    side = int(lines[0])
    with open("/dev/shm/C_gpu_0.npy", "wb") as file:
        for row in range(side):
            file.write(hashlib.sha256(b"%d %s" % (row, lines[1].encode())).digest() * 128)
    digest = hashlib.sha256(open("/dev/shm/C_gpu_0.npy", "rb").read()).hexdigest()
    print('Root hashes: [[0, "%s"]]' % digest)
    print('Timings: [[0, {"n": %d}]]' % side)
elif mode == "proof":
    indices = open("/tmp/challenge_indices.txt").read().split()
    with open("/dev/shm/responses_gpu_0.npy", "wb") as file:
        pickle.dump({"indices": indices, "interpreter": sys.executable}, file)
"""
SIDE = 512

pairs, keys, sessions = [], [], []


def pair():
    pairs.append(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    public = pairs[-1].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"pair": len(pairs) - 1, "public": public.decode()}


def opened(job):
    hidden = base64.b64decode(job["info"], validate=True)
    oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    return {"bytes": len(hidden), "credentials": json.loads(pairs[job["pair"]].decrypt(hidden, oaep).decode())}


def key(kind):
    made = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 3072)
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    line = made.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    kinds = {"ed25519": paramiko.Ed25519Key, "rsa": paramiko.RSAKey}
    keys.append(kinds[kind].from_private_key(io.StringIO(private.decode())))
    return {"key": len(keys) - 1, "public": line.decode()}


def login(job):
    ssh = paramiko.SSHClient()
    ssh.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    patience = job.get("patience", 10)
    how = {"pkey": keys[job["key"]]} if "key" in job else {"password": job["password"]}
    try:
        ssh.connect(
            "127.0.0.1", job["port"], "root", timeout=patience, banner_timeout=patience, auth_timeout=patience, **how
        )
    except (OSError, paramiko.SSHException) as error:
        ssh.close()
        return {"failed": type(error).__name__}
    sessions.append(ssh)
    host_key = ssh.get_transport().get_remote_server_key()
    fingerprint = base64.b64encode(hashlib.sha256(host_key.asbytes()).digest()).decode().rstrip("=")
    return {"session": len(sessions) - 1, "host_key": "SHA256:" + fingerprint}


def run(session, command, timeout=30):
    _, out, err = sessions[session].exec_command(command, timeout=timeout)
    printed, complained = out.read(), err.read()
    return {"out": printed.decode(), "err": complained.decode(), "status": out.channel.recv_exit_status()}


def test(session):
    """A validator's test: a byte on standard error in any step is its end."""
    steps = {}
    sftp = sessions[session].open_sftp()
    with sftp.open(SCRIPT, "wb") as file:
        file.write(WORK)
    steps["hash"] = run(
        session,
        INTERPRETER + ' -c "import hashlib; print(hashlib.sha256(open(\'' + SCRIPT + "', 'rb').read()).hexdigest())\"",
    )
    hashed = steps["hash"]["out"].strip() == hashlib.sha256(WORK).hexdigest()
    steps["gpu_info"] = run(session, INTERPRETER + " " + SCRIPT + " gpu_info")
    steps["benchmark"] = run(session, INTERPRETER + " " + SCRIPT + " benchmark")
    with sftp.open("/tmp/seeds.txt", "w") as file:
        file.write("%d\n0 1 2" % SIDE)
    steps["compute"] = run(session, INTERPRETER + " " + SCRIPT + " compute")
    with sftp.open("/tmp/challenge_indices.txt", "w") as file:
        file.write("0 3,4")
    steps["proof"] = run(session, INTERPRETER + " " + SCRIPT + " proof")
    local = os.path.join(os.environ["HOME"], "fetched")
    sftp.get("/dev/shm/C_gpu_0.npy", local)
    fetched = hashlib.sha256(open(local, "rb").read()).hexdigest()
    sftp.get("/dev/shm/responses_gpu_0.npy", local)
    answer = open(local, "rb").read()
    sftp.close()
    return {
        "steps": steps,
        "hashed": hashed,
        "rooted": '[[0, "%s"]]' % fetched in steps["compute"]["out"],
        "answered": b"indices" in answer and INTERPRETER.encode() in answer,
    }


def answer(job):
    if "pair" in job:
        return pair()
    if "open" in job:
        return opened(job["open"])
    if "key" in job:
        return key(job["key"])
    if "login" in job:
        return login(job["login"])
    if "run" in job:
        return run(job["run"]["session"], job["run"]["command"])
    return test(job["test"])


driver.serve(answer)
