"""A training run in Flower's simulation engine: the same rounds, the same app, hospitals that do not exist.

For trying a plan on many invented hospitals on one machine. What differs from a deployment: the masks (one
machine sees all sites anyway; every site still adds its noise share), the hospital's ledger and approval, and
the wire. The sites of a step wait for each other, so a process per site would hold a hundred copies of torch;
here a few Ray actors, one per core, each train their share of the sites in turn, and answer for each of them.
Memory then hardly grows with the sites (`python -m tests.bench hundred_sites`). Needs the `sim` extra.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
from privacy import study_noise, validation, walks
from privacy.descent import digest
from privacy.rng import SecureBits
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study

STEP_TIMEOUT_S = 120.0  # the slowest actor's gradients, on a busy machine, with torch still to be imported
PARTITION = "partition-id"  # Flower's name for a site's number

Words = NDArray[np.uint64]
Vector = NDArray[np.float64]


def run_simulated(
    study: Study, tables: Sequence[FeatureTable], *, home: Path, run: str, processes: int | None = None
) -> Checkpoint:
    """Return the model of a whole run over `tables`, one per site; what it keeps lies under `home`.

    A table's patients are all trained on, or, where the plan looks at its model, split as at a node. A site's
    own part of the model is kept at the site: `home`/own_parts/<number>.

    Args: processes: how many train sites (default: one per core).
    Raises: Refused for fewer sites than the study needs; RuntimeError if the engine fails.
    """
    sites = len(tables)
    if sites < study.sites.minimum:
        raise Refused(RefusalCode.TOO_FEW_SITES)
    nodes = tuple(sorted(NodeId.new() for _ in tables))
    folder = RunFolder(home, run)
    folder.create(study)
    count = min(sites, processes or os.cpu_count() or 1)
    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote: Any = ray.remote  # its stubs know only plain actors
        sums = remote(num_cpus=0, max_concurrency=2 * count + 4)(_Sums).remote(count)
        group = remote(num_cpus=0, max_concurrency=sites + 8)(_SiteGroup)
        groups = [
            group.remote(
                study, {n: tables[n] for n in range(number, sites, count)}, sums, number, sites, home
            )
            for number in range(count)
        ]
        server_app, client_app = _server_app(study, folder, nodes, sums), _client_app(study, groups)
        resources: dict[str, dict[str, Any]] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
        run_simulation(server_app, client_app, num_supernodes=sites, backend_config=resources)
    finally:
        ray.shutdown()
    found, status = folder.checkpoint(study), folder.status()
    if found is None or status is None or status.state != "finished":
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


def _client_app(study: Study, groups: Sequence[Any]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train_site(message: Message, context: Context) -> Message:
        site = int(str(context.node_config[PARTITION]))
        return answer(message, _Messenger(study.plan_hash(), groups, site))

    return app


class _Messenger:
    """Passes a site's request to whoever trains it."""

    def __init__(self, plan_hash: bytes, groups: Sequence[Any], site: int) -> None:
        self._plan_hash, self._groups, self._site = plan_hash, groups, site

    def train(self, request: RoundRequest) -> RoundReply:
        """Run the round at this site. Raises: Refused."""
        if request.plan_hash != self._plan_hash:
            raise Refused(RefusalCode.NOT_APPROVED)
        begun = [group.begin.remote(request) for group in self._groups]  # the sites of a step need each other
        found = ray.get(self._groups[self._site % len(self._groups)].reply.remote(request, self._site))
        ray.get(begun)
        if found is None:
            raise Refused(RefusalCode.TOO_MANY_DROPOUTS)
        reply: RoundReply = found
        return reply


@dataclass(slots=True)
class _Site:
    """What a site keeps to itself."""

    split: Any  # node.training.validation.Split: imported with torch, in the actor
    own: Any  # node.training.own_part.OwnPart


class _SiteGroup:
    """Trains some of the sites, one after another in each step, by the code of a real node."""

    def __init__(
        self, study: Study, tables: Mapping[int, FeatureTable], sums: Any, number: int, sites: int, home: Path
    ) -> None:
        from node.training.local_sgd import Site as DrawingSite
        from node.training.own_part import OwnPart, OwnParts
        from node.training.validation import Split

        self._study, self._sums, self._number, self._bits = study, sums, number, SecureBits()
        tolerance = study.sites.tolerance
        self._plan = study_noise.private_plan(study, participants=sites, tolerance=tolerance)
        self._look = None
        if study.validation is not None:
            self._look = validation.noise_plan(study, participants=sites, tolerance=tolerance)
        self._kept = {site: OwnParts(home / "own_parts" / str(site)) for site in tables}
        self._sites = {
            site: _Site(
                Split.of(study, table, key=self._bits.bytes(16)) if self._look else Split(table, table, 0),
                OwnPart(study, bits=self._bits, values=self._kept[site].load(study)),
            )
            for site, table in tables.items()
        }
        self._drawing = {
            site: DrawingSite(self._bits, control=self._kept[site].control(study)) for site in tables
        }
        self._lock = threading.Lock()
        self._rounds: dict[SessionId, Future[RoundReply | None]] = {}

    def begin(self, request: RoundRequest) -> None:
        """Begin the round unless it has begun."""
        with self._lock:
            if request.session_id in self._rounds:
                return
            future: Future[RoundReply | None] = Future()
            self._rounds = {request.session_id: future}
        threading.Thread(target=self._run, args=(request, future), daemon=True).start()

    def reply(self, request: RoundRequest, site: int) -> RoundReply | None:
        """Return what a site says after the round; None if the round broke."""
        self.begin(request)
        return self._rounds[request.session_id].result() if site in self._sites else None

    def _run(self, request: RoundRequest, future: Future[RoundReply | None]) -> None:
        try:
            future.set_result(self._round(request))
        except BaseException as error:
            future.set_exception(error)

    def _round(self, request: RoundRequest) -> RoundReply | None:
        from node.training.contributions import contribution

        study = self._study
        walk = walks.begin(study, request.parameters)
        while not walk.finished:
            subtotal = np.zeros(0, dtype=np.uint64)
            for number, site in self._sites.items():
                found = contribution(
                    study, walk, site.split.training, site=self._drawing[number], own=site.own.values
                )
                vector = self._plan.contribution(found.shared, bits=self._bits)
                subtotal = vector if not subtotal.size else subtotal + vector
                site.own.follow(found)
            total = self._total(request, walk.steps_done, subtotal)
            if total is None:
                return None
            walk.apply(self._plan.decode(total))
            for number, drawing in self._drawing.items():
                if (control := drawing.settle()) is not None:
                    self._kept[number].keep_control(study, control)
        if self._look is not None and validation.due(study, round=request.round):
            self._total(request, walk.steps_done, self._looked(walk.params))
        for number, site in self._sites.items():
            if study.local_parameters:
                self._kept[number].keep(study, site.own.values)
        return RoundReply(digest(walk.carried), walk.steps_done)

    def _looked(self, params: Vector) -> Words:
        from node.training.validation import looked

        assert self._look is not None
        found = [
            self._look.contribution_of_rows(
                looked(self._study, params, site.split, own=site.own.values).added, bits=self._bits
            )
            for site in self._sites.values()
        ]
        total: Words = np.sum(found, axis=0, dtype=np.uint64)
        return total

    def _total(self, request: RoundRequest, step: int, subtotal: Words) -> Words | None:
        total: Words | None = ray.get(
            self._sums.add.remote(request.session_id.raw, step, self._number, subtotal)
        )
        return total


class _Sums:
    """Adds what the groups of sites have for a step and gives the total to all of them, and to the server."""

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._inputs: dict[tuple[bytes, int], dict[int, Words]] = {}
        self._changed = asyncio.Condition()

    async def add(self, session: bytes, step: int, group: int, vector: Words) -> Words | None:
        async with self._changed:
            for old in [key for key in self._inputs if key[0] != session or key[1] < step - 1]:
                del self._inputs[old]  # everybody has had its total
            self._inputs.setdefault((session, step), {})[group] = vector
            self._changed.notify_all()
        return await self.total(session, step)

    async def total(self, session: bytes, step: int) -> Words | None:
        found = self._inputs.setdefault((session, step), {})
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: len(found) == self._groups)
        except TimeoutError:
            return None
        total: Words = np.sum(list(found.values()), axis=0, dtype=np.uint64)
        return total


class _Rounds:
    """Opens rounds among all sites."""

    def __init__(self, nodes: tuple[NodeId, ...], sums: Any) -> None:
        self._nodes, self._sums = nodes, sums

    def open(
        self, *, plan_hash: bytes, round: int, steps: int, without: Collection[NodeId] = ()
    ) -> _OpenedRound:
        if set(without) & set(self._nodes):
            raise Refused(RefusalCode.TOO_FEW_SITES)  # simulated sites do as they are told
        return _OpenedRound(self._nodes, self._sums, steps=steps)


class _OpenedRound:
    """A round in progress; see coordinator.flower.round_source.OpenedRound."""

    def __init__(self, nodes: tuple[NodeId, ...], sums: Any, *, steps: int) -> None:
        self.session_id, self.participants = SessionId.new(), nodes
        self.left: Mapping[NodeId, RefusalCode] = {}
        self._sums, self._steps, self._step = sums, steps, 0
        self._next: Any = None
        self._ends = False

    def end(self) -> None:
        """Take one more sum, and no further one."""
        self._steps, self._ends = min(self._steps, self._step + 1), True

    def poll(self) -> RoundSum | None:
        if self._step == self._steps:
            if self._ends:
                raise Refused(RefusalCode.NOT_READY)
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
