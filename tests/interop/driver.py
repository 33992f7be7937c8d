"""What the drivers share: one JSON job a line on stdin, one JSON answer a line on stdout, until stdin ends."""

import json
import os
import sys

# Libraries print to stdout as they like; the answers have a descriptor of their own.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def serve(answer):
    """Answers each job with `answer(job)`; what that raises becomes `{"raised": ...}`."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # whatever it is, the test shall see it
            reply = {"raised": f"{type(error).__name__}: {error}"}
        _answers.write(json.dumps(reply) + "\n")
        _answers.flush()


def without_network():
    """Gives the SDK a documentation address where it would ask the internet for its own."""
    from bittensor.utils import networking

    networking.get_external_ip = lambda: "203.0.113.5"
