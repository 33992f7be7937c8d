"""The compute subnet's synapses as its miners and validators of version 1.8.3 have them, and some for tests alone."""

from typing import ClassVar

import bittensor
import pydantic


class Specs(bittensor.Synapse):
    specs_input: str = ""
    specs_output: str = ""

    def deserialize(self):
        return self.specs_output


class Allocate(bittensor.Synapse):
    timeline: int = 0
    device_requirement: dict = {}
    checking: bool = True
    output: dict = {}
    public_key: str = ""
    docker_requirement: dict = {
        "base_image": "ubuntu",
        "ssh_key": "",
        "ssh_port": 4444,
        "volume_path": "/tmp",
        "dockerfile": "",
    }
    docker_change: bool = False
    docker_action: dict = {"action": "", "ssh_key": "", "key_type": ""}

    def deserialize(self):
        return self.output


class Challenge(bittensor.Synapse):
    challenge_hash: str = ""
    challenge_salt: str = ""
    challenge_mode: str = ""
    challenge_chars: str = ""
    challenge_mask: str = ""
    challenge_difficulty: int = 7
    output: dict = {}

    def deserialize(self):
        return self.output


class Hashed(bittensor.Synapse):
    """Has fields that are signed, of each kind whose text differs between languages."""

    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    items: list = []
    mapping: dict = {}
    output: dict = {}
    required_hash_fields: ClassVar[tuple] = ("text", "number", "ratio", "flag", "items", "mapping")


class Needed(bittensor.Synapse):
    """Has fields without a default, which classic callers announce in headers of their own."""

    word: str = pydantic.Field(...)
    count: int = pydantic.Field(...)
    output: dict = {}


class Slow(bittensor.Synapse):
    output: dict = {}


class Crash(bittensor.Synapse):
    output: dict = {}


class Forbidden(bittensor.Synapse):
    output: dict = {}


class Busy(bittensor.Synapse):
    output: dict = {}


ALL = {c.__name__: c for c in (Specs, Allocate, Challenge, Hashed, Needed, Slow, Crash, Forbidden, Busy)}
ALL["Synapse"] = bittensor.Synapse
