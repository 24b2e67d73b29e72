"""A node at work: the stream, the sums and the questions put together from parts that are already open.

Guarantee: only frames of the coordinator whose certificate the consortium's CA signed get this far, and none
of them is believed: rosters and studies are verified by their signatures, sessions by `SumSessions`,
questions by `Answering`. No frame ends the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from node import boundary
from node.admission import Admission
from node.answering import Answering
from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.data_epoch import data_epoch
from node.deid_standing import DeidStanding
from node.key_holder import encrypted
from node.omop.store import OmopStore
from node.policy import Policy, Standing
from node.queries.cohort import tables as cohort_tables
from node.queries.engine import Warehouse
from node.session import NodeStream, Tls
from node.sums import QUESTIONS, TRAINING, Encrypted, SumSessions
from node.training.approvals import Approvals
from privacy import layered_sum
from privacy.layered_sum import Layers
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from privacy.secure_sum import SessionParameters
from protocols import proposal
from protocols.clock import Clock
from protocols.ids import NodeId, SessionId
from protocols.peer import Role
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster, fingerprint
from protocols.study import Study
from protocols.wire import fedtwin_pb2 as pb

log = logging.getLogger(__name__)

SQL_THREADS = 4  # counts at one time; DuckDB uses the cores within each
AUDIT_DELAY_S = 0.05  # a count is over by then: its disk writes do not compete with it for the cores
FIRST_LOOK_S = 5.0  # at the data before connecting; what takes longer is told when it is known
EPOCH_EVERY_S = 5.0  # how long a change of the data may go unnoticed by the coordinator's store of answers
SOFTWARE_VERSION = "0.1.0"


@dataclass(frozen=True)
class Parts:
    """What a node works with. Whoever opened the parts closes them.

    Args:
        roster: the newest verified roster. accept_roster: verifies another one, pins what is new, keeps it;
            raises Refused or ValueError and changes nothing if it does not hold.
        peers: hospitals of the roster whose keys are the pinned ones, this node included.
        policy: the policy as it stands; raises Refused(NO_POLICY).
        warehouse: the CDM that questions read; store: this node's own, for training. Both raise
            Refused(NO_DATA).
        dataset: the name under which these data are charged.
        epoch_key: with which this node names the state of its data (node.data_epoch).
    """

    me: NodeId
    identity_key: Ed25519PrivateKey
    broker_address: str
    tls: Callable[[], Tls]
    roster: Callable[[], Roster]
    accept_roster: Callable[[bytes], object]
    peers: Callable[[], Mapping[NodeId, Ed25519PublicKey]]
    policy: Callable[[], Policy]
    ledger: Ledger
    audit: AuditLog
    warehouse: Callable[[], Warehouse]
    epoch_key: bytes
    dataset: str
    store: Callable[[], OmopStore]
    approvals: Approvals
    clock: Clock
    bits: SecureBits
    trusted_key_holder: Callable[[], str] = lambda: ""
    quality: Callable[[], Standing | None] = lambda: None  # of the last report on the data
    deid: Callable[[], DeidStanding] = DeidStanding  # of the last evaluation and canary


class RunningNode:
    """One node in one event loop. `run` serves until cancelled; `close` ends what is left."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lines: SimpleQueue[tuple[AuditEvent, dict[str, Any]] | None] = SimpleQueue()
        self._auditing = Thread(target=self._write_lines, name="audit", daemon=True)
        self._auditing.start()
        self._sql = ThreadPoolExecutor(SQL_THREADS, thread_name_prefix="count")
        self.revoked = False
        self._audit_broken = False
        self._epoch = self._said = b""
        self._looked = asyncio.Event()
        self.stream = NodeStream(
            address=parts.broker_address,
            tls=parts.tls,
            hello=self._hello,
            welcome=self._welcome,
            handle=self._handle,
            lost=self._lost,
            clock=parts.clock,
            bits=parts.bits,
        )
        self.sums = SumSessions(
            me=parts.me,
            signing_key=parts.identity_key,
            peers=parts.peers,
            admit=self._admit,
            send=self.send,
            left=self._left,
            bits=parts.bits,
            encrypted=lambda: encrypted(parts.roster(), trusted=parts.trusted_key_holder()),
            room=self.stream.room,
            layers=self._layers,
        )
        self._rosters = asyncio.Lock()  # held while a roster is verified and written
        admission = Admission(
            roster=parts.roster,
            policy=self._policy,
            ledger=parts.ledger,
            record=self.record,
            clock=parts.clock,
            dataset=parts.dataset,
        )
        self.answering = Answering(
            admission=admission,
            ledger=parts.ledger,
            warehouse=parts.warehouse,
            sums=self.sums,
            send=self.send,
            record=self.record,
            to_code=boundary.to_code,
            threads=self._sql,
            clock=parts.clock,
            bits=parts.bits,
        )

    def send(self, frame: pb.NodeFrame) -> None:
        """Queue a frame for the coordinator."""
        self.stream.send(frame)

    def record(self, event: AuditEvent, **fields: Any) -> None:
        """Write a line into the audit trail, in order, without waiting for the disk.

        A crash may lose the last moment of the trail; what was charged stands in the ledger, which is waited
        for.
        """
        self._lines.put((event, fields))

    async def run(self) -> None:
        """Serve until cancelled."""
        watching = asyncio.create_task(self._watch_epoch())
        try:
            with contextlib.suppress(TimeoutError):  # a database that is away keeps no node from connecting
                await asyncio.wait_for(self._looked.wait(), FIRST_LOOK_S)
            await self.stream.run()
        finally:
            watching.cancel()

    async def close(self) -> None:
        """Release what is reserved, end the threads, and finish the audit trail."""
        await self.answering.stop()
        self.sums.disconnected()
        await asyncio.to_thread(self._sql.shutdown, cancel_futures=True)
        self._lines.put(None)
        await asyncio.to_thread(self._auditing.join)

    # ---- the stream ----

    def _hello(self) -> pb.Hello:
        return pb.Hello(
            software_version=SOFTWARE_VERSION,
            roster_version=self._parts.roster().version,
            unanswered=[question.raw for question in self.answering.unanswered()],
            data_epoch=self._said_epoch(),
        )

    def _said_epoch(self) -> bytes:
        """Return the epoch as it was last seen, and remember that it was said."""
        self._said = self._epoch
        return self._epoch

    async def _look_at_epoch(self) -> None:
        """See whether the data have changed. What cannot be told is said to be unknown."""
        parts = self._parts
        try:
            self._epoch = await asyncio.to_thread(
                data_epoch, parts.epoch_key, warehouse=parts.warehouse, policy=parts.policy
            )
        except Exception as error:
            if self._epoch:
                log.warning("the state of the data cannot be read: %s", error)
            self._epoch = b""

    async def _watch_epoch(self) -> None:
        """Tell the coordinator of a change soon after it, until cancelled."""
        while True:
            await self._look_at_epoch()
            self._looked.set()
            if self._epoch != self._said and self.stream.connection.connected_since:
                self.send(pb.NodeFrame(data_epoch=pb.DataEpoch(epoch=self._said_epoch())))
            await asyncio.sleep(EPOCH_EVERY_S)

    async def _welcome(self, welcome: pb.Welcome) -> None:
        await self._roster(welcome.roster_envelope)
        self.record(AuditEvent.CONNECTED, roster_version=self._parts.roster().version)

    def _lost(self) -> None:
        self.sums.disconnected()
        self.record(AuditEvent.DISCONNECTED)

    async def _handle(self, frame: pb.CoordinatorFrame) -> None:
        name = frame.WhichOneof("body") or ""
        async with self._rosters:  # what comes behind a roster is judged by it, and stays in its order
            if name == "roster":
                await self._roster(frame.roster.roster_envelope)
                return
        if name.startswith("sum_"):
            await self.sums.handle(frame)
            return
        match name:
            case "offer":
                await self.answering.offer(frame.offer)
            case "run":
                await self.answering.run(frame.run)
            case "cancel":
                await self.answering.cancel(frame.cancel)
            case "study":
                await self._study(frame.study)
            case "revoked":
                self.revoked = True
                log.warning("the coordinator says that this node is revoked")

    # ---- what is believed only after it was verified ----

    async def _roster(self, envelope: bytes) -> None:
        """Take a roster if it verifies. One that does not is refused, and the one in force stays."""
        try:
            await asyncio.to_thread(self._parts.accept_roster, envelope)
        except Exception as error:
            code = boundary.to_code(error)
            log.warning("a roster is refused: %s", code)
            self.record(AuditEvent.ROSTER_REFUSED, code=code)
        else:
            self.record(AuditEvent.ROSTER_ACCEPTED, roster_version=self._parts.roster().version)

    def _admit(self, session: SessionParameters, tolerance: int) -> int:
        """Judge a session, and record what was decided. Returns the fewest survivors. Raises: Refused."""
        try:
            fewest = self._fewest_survivors(session, tolerance)
        except Exception as error:
            self.record(
                AuditEvent.SESSION_REFUSED, session_id=session.session_id, code=boundary.to_code(error)
            )
            raise
        self.record(
            AuditEvent.SESSION_JOINED,
            session_id=session.session_id,
            purpose=session.purpose.partition(":")[0],
            participants=len(session.participants),
            threshold=session.threshold,
            tolerance=tolerance,
            steps=session.steps,
        )
        return fewest

    def _layers(self, purpose: str) -> tuple[Layers, Encrypted] | None:
        """Return what of a training session's vectors is encrypted, by the plan that was approved here.

        Raises: Refused(KEY_HOLDER_AWAY | NOT_ALLOWED) if the hospital trusts nobody with the keys.
        """
        if not purpose.startswith(TRAINING):
            return None
        try:
            study, _ = self._parts.approvals.find(bytes.fromhex(purpose.removeprefix(TRAINING)))
        except Refused:
            return None  # a plan that nobody proposed here: nothing will be trained
        layers = layered_sum.of(study)
        if layers is None:
            return None
        trusted = self._parts.trusted_key_holder()
        chosen = encrypted(self._parts.roster(), trusted=trusted, scheme=layers.scheme)
        return None if chosen is None else (layers, chosen)

    def _fewest_survivors(self, session: SessionParameters, tolerance: int) -> int:
        """Judge a session by the hospital's policy. Raises: Refused."""
        policy = self._parts.policy()
        peers = self._parts.peers()
        keys = [fingerprint(peers[node].public_bytes_raw()) for node in session.participants]
        policy.check_participants(keys, tolerance=tolerance)
        fewest = policy.fewest_survivors(participants=len(keys), tolerance=tolerance)
        if session.purpose.startswith(TRAINING):
            study = self._allowed_plan(session.purpose)
            if len(keys) < study.sites.minimum or tolerance < study.sites.tolerance:
                raise Refused(RefusalCode.TOO_FEW_SITES)
            if study.exact is not None:
                fewest = len(keys)  # without noise, two sums that differ by a hospital would tell its own
        elif session.purpose != QUESTIONS:
            raise Refused(RefusalCode.NOT_ALLOWED)
        return fewest

    def _allowed_plan(self, purpose: str) -> Study:
        """Return the plan that a session's purpose names, if this hospital trains it. Raises: Refused."""
        try:
            plan_hash = bytes.fromhex(purpose.removeprefix(TRAINING))
        except ValueError:
            raise Refused(RefusalCode.MALFORMED) from None
        study, approved = self._parts.approvals.find(plan_hash)
        self._check_plan(study, approved=approved)
        return study

    def _check_plan(self, study: Study, *, approved: bool) -> None:
        """Judge a plan by the policy, and by what it asks of this hospital's data. Raises: Refused."""
        policy = self._parts.policy()
        policy.check_quality(self._parts.quality, now=self._parts.clock.now())
        policy.check_deid(self._parts.deid, now=self._parts.clock.now())
        if study.exact is not None:
            policy.check_exact(
                study.plan_hash(),
                project=study.project,
                tables=study.tables | cohort_tables(study.cohort),
                minimum_sites=study.sites.minimum,
                tolerance=study.sites.tolerance,
                approved=approved,
            )
            return
        policy.check_study(
            project=study.project,
            tables=study.tables | cohort_tables(study.cohort),
            epsilon=study.privacy.epsilon,
            delta=study.privacy.delta,
            max_sites_per_patient=study.privacy.max_sites_per_patient,
            minimum_sites=study.sites.minimum,
            tolerance=study.sites.tolerance,
            approved=approved,
        )

    async def _study(self, proposed: pb.StudyProposal) -> None:
        """Keep a signed study for the hospital's decision, and say whether it is approved."""
        plan_hash, refusal = b"", ""
        try:
            study, signer = proposal.opened(
                proposed.study_envelope, key_of=self._parts.roster().signer_keys(Role.LEAD)
            )
            plan_hash = study.plan_hash()
            self.record(AuditEvent.STUDY_PROPOSED, plan_hash=plan_hash, signer=signer)
            approved = await asyncio.to_thread(self._parts.approvals.propose, study, proposed_by=signer)
            self._check_plan(study, approved=approved)
        except Exception as error:
            refusal = boundary.to_code(error).value
        reply = pb.StudyReply(plan_hash=plan_hash, refusal=refusal)
        self.send(pb.NodeFrame(study_reply=reply))

    def _policy(self) -> Policy:
        """Return the policy for a new question. Raises: Refused, also while the trail cannot be written."""
        if self._audit_broken:
            raise Refused(RefusalCode.INTERNAL)
        return self._parts.policy()

    def _left(self, session: SessionId, frame: str, code: RefusalCode) -> None:
        """Record a session left over a frame; one refused at its opening stands there already."""
        if frame in ("sum_survivors", "sum_inputs"):
            self.record(AuditEvent.REVEAL_REFUSED, session_id=session, code=code)
        elif frame != "sum_open":
            self.record(AuditEvent.SESSION_REFUSED, session_id=session, code=code)

    def _write_lines(self) -> None:
        """Write audit lines, in a thread of their own, until told to stop."""
        ended = False
        while not ended and (line := self._lines.get()) is not None:
            time.sleep(AUDIT_DELAY_S)
            waiting = [line]
            with contextlib.suppress(Empty):
                while (line := self._lines.get_nowait()) is not None:
                    waiting.append(line)
                ended = True
            self._written(waiting)

    def _written(self, waiting: list[tuple[AuditEvent, dict[str, Any]]]) -> None:
        """Write these with one wait for the disk; if that fails, each that can be."""
        try:
            self._parts.audit.record_all(waiting)
            self._audit_broken = False
        except Exception:
            if len(waiting) > 1:
                for line in waiting:
                    self._written([line])
                return
            self._audit_broken = True
            log.exception("an audit line could not be written: questions are refused until one can")
