"""The SDK's dendrite, to call a node of ours.

Jobs:
  {"keys": N}      makes N RSA key pairs; answers with their public keys
  {"call": {"as": "//Bob", "synapse": "Allocate", "fields": {..}, "axon": {"ip", "port", "hotkey"}, "timeout": 12,
            "clock_s": 0, "after_signing": {"nonce": 1}, "again": false}}
      one call. `clock_s` is how far the caller's clock is ahead; `after_signing` changes what the headers say of the
      caller once they are signed; `again` sends the headers of its last call. Answers with what the dendrite made of the
      reply.
  {"calls": [..]}  several calls at the same time, each of a dendrite of its own
  {"hash": [json, ..]}   of each JSON text: Python's text of the value, and the SDK's body hash over it
  {"decrypt": {"key": 0, "info": "base64"}}   what the pair's private key reads in an allocation's `info`
"""

import asyncio
import base64
import json
import time
import typing
from unittest import mock

import driver

driver.without_network()

import bittensor
from bittensor_wallet import Keypair
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA

import synapses


class Dendrite(bittensor.Dendrite):
    """The SDK's own, with a hook between signing and sending."""

    clock_s = 0
    after_signing = {}
    again = False
    sent = None

    def preprocess_synapse_for_request(self, *args, **kwargs):
        now = time.time_ns() + int(self.clock_s * 1e9)
        with mock.patch("time.time_ns", lambda: now):
            synapse = super().preprocess_synapse_for_request(*args, **kwargs)
        for field, value in self.after_signing.items():
            setattr(synapse.dendrite, field, value)
        if self.again:
            synapse.dendrite = self.sent
        self.sent = synapse.dendrite
        return synapse


dendrites = {}
pairs = []
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)


def known(who):
    if who not in dendrites:
        dendrites[who] = Dendrite(wallet=Keypair.create_from_uri(who))
    return dendrites[who]


BASE = set(bittensor.Synapse.model_fields)


async def call(dendrite, job):
    dendrite.clock_s = job.get("clock_s", 0)
    dendrite.after_signing = job.get("after_signing", {})
    dendrite.again = job.get("again", False)
    axon = job["axon"]
    target = bittensor.AxonInfo(
        version=183, ip=axon["ip"], port=axon["port"], ip_type=4, hotkey=axon["hotkey"], coldkey=axon["hotkey"]
    )
    synapse = synapses.ALL[job["synapse"]](**job.get("fields", {}))
    reply = await dendrite.forward(target, synapse, timeout=job.get("timeout", 12), deserialize=False)
    own = {name: getattr(reply, name) for name in type(reply).model_fields if name not in BASE}
    return {
        "is_success": reply.is_success,
        "status": reply.dendrite.status_code,
        "message": reply.dendrite.status_message,
        "axon_status": reply.axon.status_code,
        "fields": own,
        "class": type(reply).__name__,
    }


class Anything(bittensor.Synapse):
    value: typing.Any = None
    required_hash_fields: typing.ClassVar[tuple] = ("value",)


def hashed(text):
    value = json.loads(text)
    return {"str": str(value), "body_hash": Anything(value=value).body_hash}


def answer(job):
    if "hash" in job:
        return [hashed(text) for text in job["hash"]]
    if "keys" in job:
        pairs.extend(RSA.generate(2048) for _ in range(job["keys"]))
        return {"public": [pair.public_key().export_key("PEM").decode() for pair in pairs]}
    if "decrypt" in job:
        cipher = PKCS1_OAEP.new(pairs[job["decrypt"]["key"]], hashAlgo=SHA256)
        raw = base64.b64decode(job["decrypt"]["info"], validate=True)
        return {"text": cipher.decrypt(raw).decode(), "bytes": len(raw)}
    if "calls" in job:
        fresh = [call(Dendrite(wallet=Keypair.create_from_uri(one["as"])), one) for one in job["calls"]]
        return loop.run_until_complete(asyncio.gather(*fresh))
    return loop.run_until_complete(call(known(job["call"]["as"]), job["call"]))


driver.serve(answer)
