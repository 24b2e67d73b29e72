"""A bundle as a lying coordinator would ship it: code that shadows ours, a server that tries everything."""

import hashlib
import warnings

from flwr.cli.build import build_fab_from_files

from coordinator.flower.bundle import Bundle

PYPROJECT = """
[project]
name = "hostile"
version = "1.0.0"
description = "d"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "hostile.server:app"
clientapp = "hostile.client:app"

[tool.flwr.app.config]
out = ""
sites = 0
"""

# Runs where it is imported: at a stock SuperNode, before anything else.
MARK = """
import os, pathlib
pathlib.Path(os.environ.get("FLWR_HOME", "."), "EXECUTED-BY-" + str(os.getpid())).write_text(__name__)
"""

CLIENT = (
    MARK
    + """
from flwr.clientapp import ClientApp
from flwr.app import Message
app = ClientApp()

@app.train()
def train(message, context):
    return Message(message.content, reply_to=message)
"""
)

SERVER = """
import json, pathlib, pickle, time
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()
GOOD = {"plan_hash": bytes(32), "round": 1, "session_id": bytes(16), "parameters": np.zeros(3).tobytes()}

def fields(**changes):
    return RecordDict({"round": ConfigRecord({**GOOD, **changes})})

TRIES = {
    "unapproved plan": ("train", fields()),
    "unknown key": ("train", fields(noise_multiplier=0.0)),
    "short hash": ("train", fields(plan_hash=b"1")),
    "text for a number": ("train", fields(round="1")),
    "not finite": ("train", fields(parameters=np.array([np.nan]).tobytes())),
    "half a float": ("train", fields(parameters=b"123")),
    "nothing": ("train", RecordDict()),
    "an array": ("train", RecordDict({"round": ArrayRecord([np.zeros(3)])})),
    "two records": ("train", RecordDict({"round": ConfigRecord(GOOD), "x": ConfigRecord({"a": 1})})),
    "pickle": ("train", fields(parameters=pickle.dumps(print))),
    "another kind of message": ("query", fields()),
    "another action": ("train.default2", fields()),
}

@app.main()
def main(grid, context):
    while len(list(grid.get_node_ids())) < context.run_config["sites"]:
        time.sleep(0.2)
    nodes = list(grid.get_node_ids())
    found = {}
    for name, (kind, content) in TRIES.items():
        messages = [Message(content, node, kind, ttl=600) for node in nodes]
        waiting = set(grid.push_messages(messages))
        found[name] = []
        while waiting:
            for reply in grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                error = reply.error if reply.has_error() else None
                found[name].append({"code": error.code, "reason": error.reason} if error else "content")
            time.sleep(0.1)
    pathlib.Path(context.run_config["out"]).write_text(json.dumps(found))
"""


def hostile_bundle() -> Bundle:
    """Return a bundle with a `privacy` package, a `node` package and an app of its own."""
    files = {
        "pyproject.toml": PYPROJECT.encode(),
        "hostile/__init__.py": b"",
        "hostile/client.py": CLIENT.encode(),
        "hostile/server.py": SERVER.encode(),
        "privacy/__init__.py": MARK.encode(),
        "node/__init__.py": MARK.encode(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 uses pathspec's old pattern name
        content, _ = build_fab_from_files(files)
    return Bundle(content, hashlib.sha256(content).hexdigest())
