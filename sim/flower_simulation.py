"""A training run in Flower's simulation engine: the same rounds and the same app, sites as Ray actors.

For trying a plan on many invented hospitals on one machine. What differs from a deployment: the masks (one
machine sees all sites anyway; every site still adds its noise share), the hospital's ledger and approval, and
the wire. Needs the `sim` extra.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

# Both read these when they are imported; this must stand above the imports of flwr and ray.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from numpy.typing import NDArray

from coordinator.flower.round_source import RoundSum
from coordinator.flower.run_folder import Checkpoint, RunFolder
from coordinator.flower.training_rounds import train
from node.features.table import FeatureTable
from node.flower.client_app import answer
from node.training.gradient import sum_of_clipped_grads
from privacy import study_noise
from privacy.descent import Descent, digest
from privacy.rng import SecureBits
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study

STEP_TIMEOUT_S = 120.0  # the slowest site's gradient, on a busy machine, with torch still to be imported
PARTITION = "partition-id"  # Flower's name for a site's number

Words = NDArray[np.uint64]


def run_simulated(study: Study, tables: Sequence[FeatureTable], *, home: Path, run: str) -> Checkpoint:
    """Return the model of a whole run over `tables`, one per site; what it keeps lies under `home`.

    Raises: Refused for fewer sites than the study needs; RuntimeError if the engine fails.
    """
    sites = len(tables)
    if sites < study.sites.minimum:
        raise Refused(RefusalCode.TOO_FEW_SITES)
    nodes = tuple(sorted(NodeId.new() for _ in tables))
    folder = RunFolder(home, run)
    folder.create(study)
    # One actor per site: the sites of a step wait for each other, so all of them must run at once.
    ray.init(num_cpus=sites, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote: Any = ray.remote  # its stubs know only plain actors
        sums = remote(num_cpus=0, max_concurrency=4 * sites + 4)(_Sums).remote(sites)
        server_app, client_app = _server_app(study, folder, nodes, sums), _client_app(study, tables, sums)
        resources: dict[str, dict[str, Any]] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
        run_simulation(server_app, client_app, num_supernodes=sites, backend_config=resources)
    finally:
        ray.shutdown()
    found = folder.checkpoint(study)
    if found is None or found.round != study.training.rounds:
        status = folder.status()
        raise Refused((status and status.refusal) or RefusalCode.INTERNAL)
    return found


def _server_app(study: Study, folder: RunFolder, nodes: tuple[NodeId, ...], sums: Any) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        def directory(asked: Grid) -> Mapping[NodeId, int]:
            return dict(zip(nodes, sorted(asked.get_node_ids()), strict=False))

        train(study, folder=folder, grid=grid, source=_Rounds(nodes, sums), directory=directory)

    return app


def _client_app(study: Study, tables: Sequence[FeatureTable], sums: Any) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train_site(message: Message, context: Context) -> Message:
        site = int(str(context.node_config[PARTITION]))
        return answer(message, _SiteTrainer(study, tables[site], sums, site, len(tables)))

    return app


class _SiteTrainer:
    """Trains one site's rows: the gradients, the noise share and the descent of a real node."""

    def __init__(self, study: Study, table: FeatureTable, sums: Any, site: int, sites: int) -> None:
        self._study, self._table, self._sums, self._site, self._sites = study, table, sums, site, sites

    def train(self, request: RoundRequest) -> RoundReply:
        """Run the steps of the round. Raises: Refused."""
        if request.plan_hash != self._study.plan_hash():
            raise Refused(RefusalCode.NOT_APPROVED)
        plan = study_noise.noise_plan(
            self._study, participants=self._sites, tolerance=self._study.sites.tolerance
        )
        walk, session = Descent(self._study, request.parameters), request.session_id.raw
        for step in range(self._study.training.steps_per_round):
            gradient = sum_of_clipped_grads(self._study, walk.params, self._table)
            vector = plan.contribution(gradient, bits=SecureBits())
            total = ray.get(self._sums.add.remote(session, step, self._site, vector))
            if total is None:
                raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
            walk.apply(plan.decode(total))
        return RoundReply(digest(walk.params), walk.steps_done)


class _Sums:
    """Adds the sites' vectors of a step and gives the total to all of them, and to the server."""

    def __init__(self, sites: int) -> None:
        self._sites = sites
        self._inputs: dict[tuple[bytes, int], dict[int, Words]] = {}
        self._changed = asyncio.Condition()

    async def add(self, session: bytes, step: int, site: int, vector: Words) -> Words | None:
        async with self._changed:
            self._inputs.setdefault((session, step), {})[site] = vector
            self._changed.notify_all()
        return await self.total(session, step)

    async def total(self, session: bytes, step: int) -> Words | None:
        found = self._inputs.setdefault((session, step), {})
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: len(found) == self._sites)
        except TimeoutError:
            return None
        total: Words = np.sum(list(found.values()), axis=0, dtype=np.uint64)
        return total


class _Rounds:
    """Opens rounds among all sites."""

    def __init__(self, nodes: tuple[NodeId, ...], sums: Any) -> None:
        self._nodes, self._sums = nodes, sums

    def open(self, *, plan_hash: bytes, round: int, steps: int) -> _OpenedRound:
        return _OpenedRound(self._nodes, self._sums, steps=steps)


class _OpenedRound:
    """A round in progress; see coordinator.flower.round_source.OpenedRound."""

    def __init__(self, nodes: tuple[NodeId, ...], sums: Any, *, steps: int) -> None:
        self.session_id, self.participants = SessionId.new(), nodes
        self._sums, self._steps, self._step = sums, steps, 0
        self._next: Any = None

    def poll(self) -> RoundSum | None:
        if self._step == self._steps:
            return None
        if self._next is None:
            self._next = self._sums.total.remote(self.session_id.raw, self._step)
        ready, _ = ray.wait([self._next], timeout=0)
        if not ready:
            return None
        total, self._next = ray.get(self._next), None
        if total is None:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
        self._step += 1
        return RoundSum(self._step - 1, total, len(self.participants))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: the sums end with the engine."""
