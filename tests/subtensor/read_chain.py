"""What the SDK 9.0.0 of the original reads from a chain: python read_chain.py ws://HOST:PORT NETUID

One JSON object on standard output: block, and per neuron what a metagraph has. Nothing is judged here.
"""

import json
import sys

import bittensor


def served(info):
    """An axon's or a prometheus's address, or None where nothing is served."""
    if info is None or info.port == 0:
        return None
    kind = {"ip": info.ip, "port": info.port, "ip_type": info.ip_type, "version": info.version}
    if hasattr(info, "protocol"):
        kind["protocol"] = info.protocol
    return kind


def read(url, netuid):
    subtensor = bittensor.subtensor(network=url)
    try:
        weights = dict(subtensor.weights(netuid))
        neurons = [
            {
                "uid": neuron.uid,
                "hotkey": neuron.hotkey,
                "coldkey": neuron.coldkey,
                "active": bool(neuron.active),
                "permit": bool(neuron.validator_permit),
                "last_update": neuron.last_update,
                "axon": served(neuron.axon_info),
                "prometheus": served(neuron.prometheus_info),
                "weights": [list(pair) for pair in weights.get(neuron.uid, [])],
            }
            for neuron in subtensor.neurons_lite(netuid)
        ]
        return {"block": subtensor.get_current_block(), "neurons": neurons}
    finally:
        subtensor.close()


if __name__ == "__main__":
    json.dump(read(sys.argv[1], int(sys.argv[2])), sys.stdout)
