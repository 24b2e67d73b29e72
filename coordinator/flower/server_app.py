"""The ServerApp: what Flower starts for a training run, from the installed wheel.

It gets two words from the run's configuration, the run's name and the plan's hash, and one path from its
environment, the coordinator's home. Everything else stands in the run's folder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.superlink.grid import http_grid

from coordinator.flower.round_source import BrokerRounds, RoundSource, open_lead_channel
from coordinator.flower.run_folder import RunFolder
from coordinator.flower.superlink import HOME_VARIABLE
from coordinator.flower.training_rounds import Directory, train
from protocols.ids import MalformedId, NodeId
from protocols.refusal import RefusalCode, Refused

PART_BACKOFF_S = 0.05

# A reply is listed before all of its parts have arrived; Flower then waits 1 s before it looks again.
http_grid.pull_objects = functools.partial(  # type: ignore[attr-defined]  # private; flwr is pinned
    pull_objects, initial_backoff=PART_BACKOFF_S
)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan of the run's folder through the broker. Raises: Refused."""
    home = Path(os.environ[HOME_VARIABLE])
    with open_lead_channel(home) as channel:
        run_named(grid, context, home=home, source=BrokerRounds(channel), directory=by_name)


def run_named(grid: Grid, context: Context, *, home: Path, source: RoundSource, directory: Directory) -> None:
    """Run the plan that the run's configuration names. Raises: Refused if the folder holds another."""
    folder = RunFolder(home, str(context.run_config["run"]))
    study = folder.study()
    if study.plan_hash().hex() != context.run_config["plan_hash"]:
        raise Refused(RefusalCode.NOT_APPROVED)
    train(study, folder=folder, grid=grid, source=source, directory=directory)


def by_name(grid: Grid) -> Mapping[NodeId, int]:
    """Return the online SuperNodes by hospital: the coordinator registers each under its node id."""
    found = {}
    for node in grid.get_nodes():
        try:
            found[NodeId.parse(node.name)] = node.node_id
        except MalformedId:
            continue  # not one of the roster's
    return found
