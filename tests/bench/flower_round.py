"""Seconds a training round of ours takes beside one of stock Flower's deployment engine, in one run.

Both sides: a SuperLink with TLS and SuperNode authentication, three SuperNodes, 8,193 parameters, torch
loaded in every ClientApp. Stock Flower starts a process per message; ours go to the long-lived runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import statistics
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from flwr.cli.build import build_fab_from_files

from coordinator.flower.bundle import Bundle
from coordinator.flower.control_api import public_key_pem
from coordinator.flower.superlink import SuperLink, free_port
from node.flower.child_process import Child, ChildProcess, command, environment
from protocols.clock import SystemClock
from protocols.study import Study
from tests.bench.figure import Figure
from tests.network.flower_sites import flower_network, supernode_key
from tests.protocols.study_forms import study_form

SITES = 3
HIDDEN = 1024  # with the six columns of the form: 8,193 parameters
GOAL = 0.1  # of stock Flower's seconds
TIMEOUT_S = 600.0

PYPROJECT = """
[project]
name = "stock"
version = "1.0.0"
description = "d"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"

[tool.flwr.app.config]
out = ""
rounds = 1
"""

CLIENT = """
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    state = message.content["arrays"].to_torch_state_dict()
    state = {name: value + 0.1 for name, value in state.items()}
    content = {"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)
"""

SERVER = """
import json, pathlib, time
import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

class Timed(FedAvg):
    ended = []
    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        self.ended.append(time.monotonic())
        return found

@app.main()
def main(grid, context):
    strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    arrays = ArrayRecord({"w": torch.zeros(8193)})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=context.run_config["rounds"])
    pathlib.Path(context.run_config["out"]).write_text(json.dumps(strategy.ended))
"""


def figures(*, quick: bool) -> Iterable[Figure]:
    """Return seconds a round of both, medians after the first round, and the ratio."""
    rounds = 4 if quick else 8
    assert torch.__version__  # loaded here, where our ClientApps run
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as folder:
        ours = asyncio.run(_ours(Path(folder) / "ours", rounds=rounds))
        stock = asyncio.run(_stock(Path(folder) / "stock", rounds=rounds))
    return [
        Figure("flower_round.stock", round(stock, 3), "s/round"),
        Figure("flower_round.ours", round(ours, 3), "s/round", round(stock, 3), "stock Flower, same run"),
        Figure("flower_round.ratio", round(ours / stock, 4), "", GOAL, "goal"),
    ]


async def _ours(folder: Path, *, rounds: int) -> float:
    form = study_form(
        study__model="mlp", study__hidden=[HIDDEN], training__rounds=rounds, privacy__epsilon=8.0
    )
    async with flower_network(folder, sites=SITES, study=Study.from_json(form)) as network:
        started = await network.run(within_s=TIMEOUT_S)
        status = started.folder.status()
        assert status is not None
        assert status.state == "finished", status
        return statistics.median(status.seconds_per_round[1:])


async def _stock(folder: Path, *, rounds: int) -> float:
    folder.mkdir()
    superlink = SuperLink(folder / "flower", home=folder, log=folder / "superlink.log", clock=SystemClock())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(superlink.stop)
        await superlink.start()
        for site in range(SITES):
            place = folder / f"site-{site}"
            place.mkdir()
            public = supernode_key(place / "flower.key")
            await superlink.control.register(public_key_pem(public), name=f"site-{site}")
            supernode = ChildProcess(lambda place=place: _stock_supernode(superlink, place))  # type: ignore[misc]
            stack.push_async_callback(supernode.stop)
            await supernode.start()
        out = folder / "ended.json"
        config: dict[str, str | int] = {"out": str(out), "rounds": rounds}
        await superlink.control.start_run(_stock_bundle(), config=config)
        async with asyncio.timeout(TIMEOUT_S):
            while not (out.exists() and out.read_text()):
                await asyncio.sleep(0.2)
    ended = json.loads(out.read_text())
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(ended))


def _stock_supernode(superlink: SuperLink, place: Path) -> Child:
    key = str(place / "flower.key")
    argv = (
        command("flower-supernode"),
        *("--superlink", superlink.address),
        *("--root-certificates", str(superlink.ca)),
        *("--auth-supernode-private-key", key),
        *("--host", "127.0.0.1", "--port", str(free_port())),
    )
    variables = environment(place / "home", also={})
    return Child(argv, variables, place / "supernode.log", place / "supernode.pid", marker=key)


def _stock_bundle() -> Bundle:
    files = {
        "pyproject.toml": PYPROJECT.encode(),
        "stock/__init__.py": b"",
        "stock/client.py": CLIENT.encode(),
        "stock/server.py": SERVER.encode(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 uses pathspec's old pattern name
        content, _ = build_fab_from_files(files)
    return Bundle(content, hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    for found in figures(quick=False):
        print(found.to_json())
