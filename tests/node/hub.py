"""Hospitals that train in one process: real stores, ledgers, policies, masks; a hub for the wire."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.audit import AuditLog
from node.omop.store import OmopStore
from node.policy import Policy, starter
from node.sums import OpenSession
from node.training.approvals import Approvals
from node.training.held_models import HeldModels
from node.training.own_part import OwnParts
from node.training.rounds import Trainer
from node.training.validation import LocalFigures
from privacy import study_noise
from privacy.lanes import laid, words_for
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from privacy.secure_sum import SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from privacy.sum_party import SumParty
from protocols.clock import FixedClock
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from tests.privacy.sum_network import agreed

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
POLICY = starter("demo").replace(b"max_sites_per_patient = 2", b"max_sites_per_patient = 1")


class Hub:
    """The coordinator's part: one collector per session; `gone` nodes never send another input."""

    def __init__(self, nodes: list[NodeId]) -> None:
        self.keys = {node: Ed25519PrivateKey.generate() for node in sorted(nodes)}
        self.gone: set[NodeId] = set()
        self.vectors: list[tuple[NodeId, np.ndarray]] = []  # what each site added, before its mask
        self._sessions: dict[SessionId, _Session] = {}

    def open(self, study: Study, *, round: int, steps: int | None = None, tolerance: int = 1) -> SessionId:
        """Set up a session among all nodes that are not gone."""
        nodes = tuple(node for node in self.keys if node not in self.gone)
        parameters = SessionParameters(
            session_id=SessionId.new(),
            participants=nodes,
            threshold=threshold_for(len(nodes), colluders=tolerance),
            steps=steps or study_noise.session_sums(study, round=round),
            purpose=study_noise.session_purpose(study.plan_hash()),
            round=round,
        )
        # as node.running asks of a session: in a sum without noise nobody may be missing
        fewest = len(nodes) - (tolerance if study.exact is None else 0)
        self._sessions[parameters.session_id] = _Session(parameters, self.keys, tolerance, fewest)
        return parameters.session_id

    def session(self, session: SessionId) -> "_Session":
        """Return an open session. Raises: Refused."""
        if session not in self._sessions:
            raise Refused(RefusalCode.NOT_READY)
        return self._sessions[session]


class _Session:
    def __init__(
        self,
        parameters: SessionParameters,
        keys: dict[NodeId, Ed25519PrivateKey],
        tolerance: int,
        fewest: int,
    ) -> None:
        self.opened = OpenSession(parameters, tolerance)
        self.collector = SumCollector(parameters)
        public = {node: keys[node].public_key() for node in parameters.participants}
        self.parties = {
            node: SumParty(
                parameters,
                me=node,
                signing_key=keys[node],
                peer_keys=public,
                bits=SecureBits(),
                minimum_survivors=fewest,
            )
            for node in parameters.participants
        }
        for node, party in self.parties.items():
            self.collector.advert(node, party.advert())
        adverts = self.collector.adverts()
        for node, party in self.parties.items():
            self.collector.shares(node, party.shares(adverts))
        for node, party in self.parties.items():
            party.deliver(self.collector.outgoing(node))
        self.inputs: dict[int, dict[NodeId, Callable[[], None]]] = {}
        self.totals: dict[int, asyncio.Future[np.ndarray]] = {}
        self.left: set[NodeId] = set()


class HubSums:
    """One hospital's view of the hub: what node.sums.SumSessions is on the wire."""

    def __init__(self, hub: Hub, me: NodeId) -> None:
        self._hub, self._me = hub, me

    async def opened(self, session: SessionId) -> OpenSession:
        return self._hub.session(session).opened

    def is_open(self, session: SessionId) -> bool:
        return session in self._hub._sessions and self._me not in self._hub.session(session).left

    async def contribute(self, session, step, context, vector, *, lanes=1, before_reveal=None) -> None:
        if self._me in self._hub.gone:
            raise Refused(RefusalCode.NOT_READY)
        state = self._hub.session(session)
        self._hub.vectors.append((self._me, vector))
        masked = state.parties[self._me].masked(laid(vector, lanes=lanes), step=step, context=context)
        terms = {"lanes": lanes, "length": len(vector)}
        state.collector.input(self._me, masked, step=step, context=context, **terms)
        state.inputs.setdefault(step, {})[self._me] = before_reveal
        state.totals.setdefault(step, asyncio.get_running_loop().create_future())
        self.settle(session, step)

    def settle(self, session: SessionId, step: int) -> None:
        """Open the total once everybody who is not gone has sent."""
        state = self._hub.session(session)
        waiting = state.inputs.get(step, {})
        if not set(waiting) | self._hub.gone | state.left >= set(state.parties) or state.totals[step].done():
            return
        survivors = state.collector.close(step)
        agreements = agreed({node: state.parties[node] for node in survivors}, step=step)
        for node in survivors:
            waiting[node]()
            shares = state.parties[node].reveal(step=step, survivors=survivors, agreements=agreements)
            state.collector.reveal(node, shares, step=step)
        state.totals[step].set_result(state.collector.total(step))

    async def prepare(
        self, session: SessionId, step: int, context: bytes, length: int, *, lanes: int
    ) -> None:
        party = self._hub.session(session).parties[self._me]
        party.prepare(step=step, context=context, length=words_for(length, lanes=lanes))

    async def withdraw(self, session: SessionId, code: RefusalCode) -> None:
        state = self._hub._sessions.get(session)
        if state is None or self._me not in state.parties:
            return
        state.left.add(self._me)
        for step, total in state.totals.items():
            if not total.done() and state.inputs.get(step):
                self.settle(session, step)

    async def result(self, session: SessionId, step: int, *, deadline_s: float) -> np.ndarray:
        async with asyncio.timeout(deadline_s):
            return await asyncio.shield(self._hub.session(session).totals[step])


@dataclass
class Hospital:
    """One hospital's parts, as `fedtwin node serve` would put them together."""

    node: NodeId
    home: Path
    store: OmopStore
    ledger: Ledger
    approvals: Approvals
    trainer: Trainer


class Hospitals:
    """Several hospitals and their hub; leave the block to close everything."""

    def __init__(self, folder: Path, count: int, *, policy: bytes = POLICY, deadline_s: float = 20.0) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        nodes = [NodeId.new() for _ in range(count)]
        self.hub = Hub(nodes)
        self.all = [self.start(node, folder / str(node), policy, deadline_s) for node in sorted(nodes)]

    def start(self, node: NodeId, home: Path, policy: bytes = POLICY, deadline_s: float = 20.0) -> Hospital:
        """Open one hospital's files, as after a start or a restart."""
        home.mkdir(exist_ok=True)
        store = OmopStore.open(home / "omop.duckdb", threads=1)
        ledger = Ledger(home / "ledger.sqlite", clock=CLOCK)
        approvals = Approvals(home)
        trainer = Trainer(
            approvals=approvals,
            policy=lambda: Policy.parse(policy),
            ledger=ledger,
            audit=AuditLog(home / "audit.jsonl", clock=CLOCK),
            store=store,
            sums=HubSums(self.hub, node),
            loop=self.loop,
            split_key=node.raw,
            bits=SecureBits(),
            clock=CLOCK,
            step_deadline_s=deadline_s,
            own_parts=OwnParts(home / "own_parts"),
            held=HeldModels(home / "held_models"),
            figures=LocalFigures(home / "looks"),
        )
        return Hospital(node, home, store, ledger, approvals, trainer)

    def approve(self, study: Study) -> None:
        """Let every hospital approve the plan."""
        for hospital in self.all:
            hospital.approvals.approve(study, clock=CLOCK)

    def round(
        self, study: Study, params: np.ndarray, *, round: int, session: SessionId | None = None
    ) -> list[RoundReply | BaseException]:
        """Run one round at every hospital at once; return each one's reply or error."""
        session = session or self.hub.open(study, round=round)
        request = RoundRequest(study.plan_hash(), round, session, params)

        def one(hospital: Hospital) -> RoundReply | BaseException:
            try:
                return hospital.trainer.train(request)
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(self.all)) as pool:
            return list(pool.map(one, self.all))

    def __enter__(self) -> "Hospitals":
        return self

    def __exit__(self, *_: object) -> None:
        for hospital in self.all:
            hospital.store.close()
            hospital.ledger.close()
            hospital.trainer._audit.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
