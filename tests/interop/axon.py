"""The SDK's axon, to be called by our dendrite. It is bound to 127.0.0.1 and otherwise as it comes.

Jobs:
  {"serve": {"as": "//Alice", "port": N}}   starts it; answers {"hotkey": "5..."}
  {"seen": true}                            what the handlers were called with, in order
"""

import asyncio
import os
import time
import typing
from types import SimpleNamespace

import driver

driver.without_network()

import bittensor
from bittensor_wallet import Keypair

import synapses
from synapses import Allocate, Busy, Challenge, Crash, Forbidden, Hashed, Needed, Slow

seen = []


def note(synapse, **more):
    seen.append({"class": type(synapse).__name__, "body_says": synapse.dendrite.hotkey, **more})


def allocate(synapse: Allocate) -> Allocate:
    note(synapse, timeline=synapse.timeline, checking=synapse.checking, requirement=synapse.device_requirement)
    if synapse.checking:
        synapse.output = {"status": synapse.timeline > 0, "port": 4444}
    elif synapse.timeline > 0:
        synapse.output = {"status": True, "info": "aW5mbw==", "port": 4444}
    else:
        synapse.output = {"status": synapse.public_key == "the key", "port": 4444}
    return synapse


def challenge(synapse: Challenge) -> Challenge:
    note(synapse, difficulty=synapse.challenge_difficulty, mask=synapse.challenge_mask)
    synapse.output = {"password": "found", "local_execution_time": 1.5}
    return synapse


def hashed(synapse: Hashed) -> Hashed:
    note(synapse)
    synapse.output = {"body_hash": synapse.body_hash, "text": synapse.text, "ratio": synapse.ratio}
    return synapse


def needed(synapse: Needed) -> Needed:
    note(synapse)
    synapse.output = {"word": synapse.word, "count": synapse.count}
    return synapse


async def slow(synapse: Slow) -> Slow:
    await asyncio.sleep(30)
    return synapse


def crash(synapse: Crash) -> Crash:
    raise RuntimeError("a secret of the handler")


def forbidden(synapse: Forbidden) -> Forbidden:
    note(synapse)
    return synapse


def refuse(synapse: Forbidden) -> typing.Tuple[bool, str]:
    return True, "Unrecognized hotkey"


def busy(synapse: Busy) -> Busy:
    synapse.axon.status_code = 429
    synapse.axon.status_message = "Busy"
    return synapse


def start(job):
    key = Keypair.create_from_uri(job["as"])
    wallet = SimpleNamespace(hotkey=key, coldkeypub=key)
    axon = bittensor.Axon(wallet=wallet, port=job["port"], external_ip="127.0.0.1")
    for handler in (allocate, challenge, hashed, needed, slow, crash, busy):
        axon.attach(forward_fn=handler)
    axon.attach(forward_fn=forbidden, blacklist_fn=refuse)
    # The SDK binds to every address.
    axon.fast_config.host = "127.0.0.1"
    axon.start()
    # It listens some time after that.
    limit = time.monotonic() + 30
    while not axon.fast_server.started:
        if time.monotonic() > limit:
            raise TimeoutError("the SDK's server does not start")
        time.sleep(0.01)
    return {"hotkey": key.ss58_address}


def answer(job):
    return start(job["serve"]) if "serve" in job else {"seen": seen}


driver.serve(answer)
# The server's threads need not end by themselves.
os._exit(0)
