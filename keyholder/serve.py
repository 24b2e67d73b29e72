"""The key-holder as one process: connects out to the coordinator, makes keys and opens sums until SIGTERM.

It never listens. It may be killed at any moment: keys stand in memory only, so that what was under way cannot
be opened by anybody, and hospitals are asked anew. One line of JSON on stdout says that it is at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography import x509

from keyholder.home import KeyHolderHome
from keyholder.memory import StepMemory
from keyholder.rosters import Rosters
from node.enrolment import check_certificate
from node.session import NodeStream, Tls
from privacy import private_files
from privacy.encryption import SCHEMES
from privacy.errors import SecureSumError
from privacy.secure_sum import SessionParameters
from privacy.sum_key_holder import SumKeyHolder
from protocols import envelope
from protocols.clock import Clock
from protocols.envelope import Purpose
from protocols.ids import NodeId, SessionId
from protocols.key_forms import certificate_request, tls_key
from protocols.peer import Peer, Role, due_for_renewal
from protocols.refusal import RefusalCode, Refused
from protocols.roster import MASKED
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

SOFTWARE_VERSION = "0.1.0"
MAX_SESSIONS = 256  # whose terms are remembered; the oldest goes first
STATUS_EVERY_S = 2.0
FIRST_RENEWAL_S = 30.0
RENEWAL_EVERY_S = 3600.0  # a certificate lives for months
RENEWAL_TIMEOUT_S = 20.0


class RunningKeyHolder:
    """One key-holder in one event loop. `run` serves until cancelled."""

    def __init__(self, home: KeyHolderHome, *, memory: StepMemory, clock: Clock) -> None:
        config = home.config()
        self._home = home
        self._config = config
        self._identity = home.identity()
        self.rosters = Rosters(home.roster, consortium=config.consortium, roster_key=config.roster_key)
        self.memory = memory
        self.revoked = False
        self._clock = clock
        self._sums: dict[str, SumKeyHolder] = {}
        self._terms: dict[bytes, SessionParameters] = {}  # by session id, oldest first
        self._held: dict[bytes, set[int]] = {}
        self._schemes: dict[bytes, str] = {}  # that sessions are added up with
        self._lock = threading.Lock()  # of these three
        self.stream = NodeStream(
            address=config.broker_address,
            tls=lambda: Tls(
                home.authority.read_bytes(),
                private_files.read_secret(home.keys / "tls.key"),
                home.certificate.read_bytes(),
            ),
            hello=self._hello,
            welcome=lambda welcome: self._roster(welcome.roster_envelope),
            handle=self._handle,
            lost=lambda: None,
            clock=clock,
            stub=fedtwin_pb2_grpc.KeyHoldingStub,
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.stream.run()

    def status(self) -> dict[str, Any]:
        """Return how this process is."""
        connection = self.stream.connection
        made, opened = self.memory.counts()
        return {
            "running": True,
            "pid": os.getpid(),
            "connected": connection.connected_since is not None,
            "last_error": connection.last_error,
            "revoked": self.revoked,
            "roster_version": self.rosters.current.version,
            "keys_made": made,
            "sums_opened": opened,
        }

    def _hello(self) -> pb.Hello:
        return pb.Hello(software_version=SOFTWARE_VERSION, roster_version=self.rosters.current.version)

    async def _roster(self, data: bytes) -> None:
        await asyncio.to_thread(self.rosters.accept, data)

    # ---- what is asked ----

    async def _handle(self, frame: pb.CoordinatorFrame) -> None:
        match frame.WhichOneof("body"):
            case "make_key":
                asked = frame.make_key
                made = pb.MadeKey(session_id=asked.terms.session_id, step=asked.step)
                made.refusal = await self._tried(self._make, asked, made)
                self.stream.send(pb.NodeFrame(made_key=made))
            case "fix_inputs":
                fixed = pb.FixedInputs(session_id=frame.fix_inputs.session_id, step=frame.fix_inputs.step)
                fixed.refusal = await self._tried(self._fix, frame.fix_inputs, fixed)
                self.stream.send(pb.NodeFrame(fixed_inputs=fixed))
            case "open_sum":
                opened = pb.OpenedSum(session_id=frame.open_sum.session_id, step=frame.open_sum.step)
                opened.refusal = await self._tried(self._open, frame.open_sum, opened)
                self.stream.send(pb.NodeFrame(opened_sum=opened))
            case "forget_keys":
                self._forget(frame.forget_keys.session_id)
            case "roster":
                await self._roster(frame.roster.roster_envelope)
            case "revoked":
                self.revoked = True
                log.warning("the coordinator says that this key-holder is revoked")

    async def _tried(self, what: Any, asked: Any, reply: Any) -> str:
        """Do what was asked in a thread; return the code of what went wrong, or nothing."""
        try:
            await asyncio.to_thread(what, asked, reply)
            return ""
        except SecureSumError as error:
            log.warning("refused: %s", error)
            return error.code.value
        except Refused as refused:
            return refused.code.value
        except ValueError:
            log.warning("refused: a message that is none")
            return RefusalCode.MALFORMED.value
        except Exception:
            log.exception("what was asked failed")
            return RefusalCode.INTERNAL.value

    def _make(self, asked: pb.MakeKey, reply: pb.MadeKey) -> None:
        terms = asked.terms
        parameters = SessionParameters(
            session_id=SessionId(terms.session_id),
            participants=tuple(NodeId(raw) for raw in terms.participants),
            threshold=terms.threshold,
            steps=terms.steps,
            purpose=terms.purpose,
            round=terms.round,
        )
        scheme = asked.scheme or self.rosters.current.settings.secure_sum
        sums = self._of(scheme)
        with self._lock:
            if self._schemes.setdefault(terms.session_id, scheme) != scheme:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            if self._terms.setdefault(terms.session_id, parameters) != parameters:
                raise Refused(RefusalCode.PROTOCOL_VIOLATION)
            self._held.setdefault(terms.session_id, set()).add(asked.step)
            surplus = list(self._terms)[:-MAX_SESSIONS]
        reply.public_key, reply.statement = sums.key(parameters, step=asked.step, tolerance=terms.tolerance)
        for session in surplus:
            self._forget(session)

    def _fix(self, asked: pb.FixInputs, reply: pb.FixedInputs) -> None:
        commitments = {NodeId.parse(node): data for node, data in asked.commitments.items()}
        parameters = self._terms_of(asked.session_id)
        sums = self._of(self._schemes.get(asked.session_id, MASKED))
        reply.statement = sums.fix(parameters, commitments, step=asked.step)

    def _open(self, asked: pb.OpenSum, reply: pb.OpenedSum) -> None:
        sums = self._of(self._schemes.get(asked.session_id, MASKED))
        total = sums.open(
            self._terms_of(asked.session_id),
            step=asked.step,
            survivors=tuple(NodeId(raw) for raw in asked.survivors),
            total=asked.total,
            endorsements={NodeId.parse(node): data for node, data in asked.endorsements.items()},
        )
        reply.total = total.astype("<u8", copy=False).tobytes()

    def _of(self, scheme: str) -> SumKeyHolder:
        """Return the sums of the scheme that a session is added up with. Raises: Refused, MissingExtra."""
        if scheme not in SCHEMES:
            raise Refused(RefusalCode.NOT_ALLOWED)
        with self._lock:  # requests come in several threads, and a second one would not know the first's keys
            if scheme not in self._sums:
                self._sums[scheme] = SumKeyHolder(
                    SCHEMES[scheme],
                    name=self._config.name,
                    signing_key=self._identity,
                    roster=lambda: self.rosters.current,
                    memory=self.memory,
                )
            return self._sums[scheme]

    def _terms_of(self, session: bytes) -> SessionParameters:
        found = self._terms.get(session)
        if found is None:
            raise Refused(RefusalCode.NOT_READY)  # a key of before a restart, or of long ago
        return found

    def _forget(self, session: bytes) -> None:
        with self._lock:
            self._schemes.pop(session, None)
            parameters, steps = self._terms.pop(session, None), self._held.pop(session, set())
            holding = list(self._sums.values())
        for sums in holding:
            for step in steps:
                if parameters is not None:
                    sums.forget(parameters, step=step)

    # ---- its own certificate ----

    async def keep_certified(self) -> None:
        """Renew the certificate in time, until cancelled."""
        await asyncio.sleep(FIRST_RENEWAL_S)
        while True:
            stub = self.stream.stub
            if stub is not None:
                try:
                    await self.renew_if_due(stub)
                except Exception:
                    log.exception("the certificate could not be renewed; it will be tried again")
            await asyncio.sleep(RENEWAL_EVERY_S if stub is not None else FIRST_RENEWAL_S)

    async def renew_if_due(self, stub: Any) -> bool:
        """Renew if less than a third of the certificate's life is left. Returns whether it did."""
        home, config = self._home, self._config
        old = home.certificate.read_bytes()
        if not due_for_renewal(x509.load_pem_x509_certificate(old), now=self._clock.now()):
            return False
        key = tls_key(private_files.read_secret(home.keys / "tls.key"))
        signed = envelope.sign(
            certificate_request(key), purpose=Purpose.RENEWAL, signer=config.name, key=self._identity
        )
        reply = await stub.Renew(pb.RenewRequest(csr_envelope=signed.to_bytes()), timeout=RENEWAL_TIMEOUT_S)
        check_certificate(
            reply.certificate_pem,
            authority_pem=home.authority.read_bytes(),
            key=key.public_key(),
            me=Peer(config.consortium, Role.KEY_HOLDER, config.name),
        )
        await asyncio.to_thread(private_files.write, home.certificate, reply.certificate_pem)
        return True


@asynccontextmanager
async def serving(home: KeyHolderHome, *, clock: Clock) -> AsyncIterator[RunningKeyHolder]:
    """Serve inside the block. Raises: MalformedConfig; MissingExtra without the consortium's scheme."""
    memory = StepMemory(home.steps, clock=clock)
    tasks: list[asyncio.Task[None]] = []
    try:
        holder = RunningKeyHolder(home, memory=memory, clock=clock)
        scheme = holder.rosters.current.settings.secure_sum
        if scheme != MASKED:
            SCHEMES[scheme].require()
        for background in (holder.run(), holder.keep_certified(), _keep_status(home, holder)):
            tasks.append(asyncio.create_task(background))
        yield holder
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        memory.close()


def serve(home: KeyHolderHome, *, clock: Clock) -> None:
    """Serve until SIGTERM or SIGINT. Raises: as `serving`."""
    private_files.make_folder(home.logs)
    handler = logging.FileHandler(home.logs / "keyholder.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    asyncio.run(_serve(home, clock=clock))


async def _serve(home: KeyHolderHome, *, clock: Clock) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with serving(home, clock=clock):
        sys.stdout.write(json.dumps({"serving": True, "name": home.config().name}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


async def _keep_status(home: KeyHolderHome, holder: RunningKeyHolder) -> None:
    before: dict[str, Any] = {}
    try:
        while True:
            now = holder.status()
            if now != before:
                await asyncio.to_thread(private_files.write, home.status, json.dumps(now).encode())
                before = now
            await asyncio.sleep(STATUS_EVERY_S)
    finally:
        stopped = before | {"running": False, "connected": False}
        private_files.write(home.status, json.dumps(stopped).encode())
