"""The SDK's dendrite, to call a node of ours.

Jobs:
  {"keys": N}      makes N RSA key pairs; answers with their public keys
  {"call": {"as": "//Bob", "synapse": "Allocate", "fields": {..}, "axon": {"ip", "port", "hotkey"}, "timeout": 12,
            "after_signing": {"nonce": 1}, "again": false}}
      one call. `after_signing` changes what the headers say of the caller once they are signed; `again` sends what the
      last call sent. Answers with what the dendrite made of the reply.
  {"decrypt": {"key": 0, "info": "base64"}}   what the pair's private key reads in an allocation's `info`
"""

import asyncio
import base64

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

    after_signing = {}
    again = False
    sent = None

    def preprocess_synapse_for_request(self, *args, **kwargs):
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


def call(job):
    who = job["as"]
    if who not in dendrites:
        dendrites[who] = Dendrite(wallet=Keypair.create_from_uri(who))
    dendrite = dendrites[who]
    dendrite.after_signing = job.get("after_signing", {})
    dendrite.again = job.get("again", False)
    axon = job["axon"]
    target = bittensor.AxonInfo(
        version=183, ip=axon["ip"], port=axon["port"], ip_type=4, hotkey=axon["hotkey"], coldkey=axon["hotkey"]
    )
    synapse = synapses.ALL[job["synapse"]](**job.get("fields", {}))
    asked = dendrite.forward(target, synapse, timeout=job.get("timeout", 12), deserialize=False)
    reply = loop.run_until_complete(asked)
    own = {name: getattr(reply, name) for name in type(reply).model_fields if name not in BASE}
    return {
        "is_success": reply.is_success,
        "status": reply.dendrite.status_code,
        "message": reply.dendrite.status_message,
        "axon_status": reply.axon.status_code,
        "fields": own,
        "class": type(reply).__name__,
    }


BASE = set(bittensor.Synapse.model_fields)


def answer(job):
    if "keys" in job:
        pairs.extend(RSA.generate(2048) for _ in range(job["keys"]))
        return {"public": [pair.public_key().export_key("PEM").decode() for pair in pairs]}
    if "decrypt" in job:
        cipher = PKCS1_OAEP.new(pairs[job["decrypt"]["key"]], hashAlgo=SHA256)
        raw = base64.b64decode(job["decrypt"]["info"], validate=True)
        return {"text": cipher.decrypt(raw).decode(), "bytes": len(raw)}
    return call(job["call"])


driver.serve(answer)
