#!/usr/bin/env python3
"""Writes where the fuzzers begin, one file an input: `seeds.py DIR` makes DIR/TARGET/*.

They come from what real SDKs and wallets wrote (tests/vectors) and from the frames' description; a vector that is not
there is left out.
"""

import base64
import json
import struct
import sys
from pathlib import Path

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"
# The first byte of a body's seed.
CLASSES = {"Allocate": 0, "Challenge": 1, "Specs": 2}
out = Path(sys.argv[1])
made = {}
known = set()


def seed(target, content):
    if isinstance(content, str):
        content = content.encode()
    if (target, content) in known:
        return
    known.add((target, content))
    made[target] = made.get(target, 0) + 1
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{made[target]:03}").write_bytes(content)


def vectors(pattern):
    for path in sorted(VECTORS.rglob(pattern)):
        yield json.loads(path.read_text())


def request(method, target, headers, body):
    lines = [f"{method} {target}"] + [f"{name}: {value}" for name, value in headers]
    return ("\n".join(lines) + "\n\n").encode() + body


# `btauth/1`: what the SDK signed, and every way in which its verifier was asked.
for file in vectors("*btauth1*.json"):
    for case in file["signed"] + file["verify_cases"]:
        body = (case.get("body_utf8") or "").encode()
        headers = [(k, v) for k, v in case["headers"].items() if isinstance(v, str)]
        seed("headers", request(case["method"], case["path"], headers, body))

# The classic scheme: every request that was captured, and every value whose Python text was.
for file in vectors("axon/*.json"):
    for case in file.get("vectors", []):
        if "raw_b64" not in case.get("request", {}):
            continue
        raw = base64.b64decode(case["request"]["raw_b64"])
        head, _, body = raw.partition(b"\r\n\r\n")
        method, target = head.split(b"\r\n")[0].split(b" ")[:2]
        lines = head.split(b"\r\n")[1:]
        seed("headers", b"\n".join([method + b" " + target] + lines) + b"\n\n" + body)
        name = target.strip(b"/").split(b"?")[0].decode("latin-1")
        seed("body", bytes([CLASSES.get(name, 3)]) + body)
        try:
            fields = json.loads(body)
        except ValueError:
            continue
        for value in fields.values() if isinstance(fields, dict) else []:
            seed("body_hash", json.dumps(value))
for file in vectors("python_str_body_hash.json"):
    for case in file["values"]:
        seed("body_hash", case["json_as_sent"])

# Frames between a node and its prover: a byte that chooses the reader's bound, then `length u32 LE, kind u8, body`.
def frame(kind, body):
    return b"\x01" + struct.pack("<IB", len(body), kind) + body


commit = bytes(32) + struct.pack("<Q", 7) + bytes(32) + bytes(16) + struct.pack("<IIII", 128, 64, 1, 2)
fill = bytes(32) + struct.pack("<Q", 7) + bytes(32) + bytes(16) + struct.pack("<QIII", 16, 8, 2, 2)
for kind, body in [
    (1, commit),
    (12, fill),
    (13, bytes(32)),
    (14, struct.pack("<II", 1, 15) * 3),
    (28, b""),
    (29, bytes(64)),
    (30, bytes(112)),
    (2, struct.pack("<III", 0, 1, 2) * 3),
    (3, b""),
    (17, bytes(64)),
    (18, bytes(100)),
    (19, b"\x00out of range"),
    (19, b"\x02\xff\xfe"),
]:
    seed("frames", frame(kind, body))
    seed("frames", b"\x00" + frame(kind, body)[1:])

# Key files in every form that wallets write.
for path in sorted((VECTORS / "wallets").rglob("*")):
    if path.is_file() and path.name != "MANIFEST.json":
        seed("keyfile", path.read_bytes())
seed(
    "keyfile",
    json.dumps(
        {
            "accountId": "0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            "publicKey": "0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            "secretPhrase": None,
            "secretSeed": "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a",
            "ss58Address": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
            "cryptoType": 1,
        }
    ),
)

# Timelocked commits of weights, and what they hold.
for file in vectors("chain/timelock_tle.json"):
    for case in file["cases"]:
        seed("commit", bytes.fromhex(case["tle_ciphertext_hex"]))
        seed("commit", bytes.fromhex(case["payload_scale_hex"]))

print("seeds:", ", ".join(f"{count} for {target}" for target, count in sorted(made.items())))
