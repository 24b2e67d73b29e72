"""One life of a hospital's node that is killed at a point: real parts, with its coordinator in one process.

What leaves the node is written into a pipe as it leaves, with the number of the last record that was durable
by then, read by a connection of its own: whoever holds the other end knows it, however the node dies.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import privacy.ledger
from node import boundary
from node.admission import Admission
from node.answering import Answering
from node.policy import Policy
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.limits import Limits
from node.queries.statements import Statements
from node.sums import SumSessions
from privacy.budget import Account
from privacy.chain import Chain
from privacy.ledger import Ledger
from privacy.secure_sum import SessionParameters
from protocols.clock import FixedClock
from protocols.ids import NodeId
from protocols.roster import Roster, fingerprint
from protocols.wire import fedtwin_pb2 as pb
from tests.threats.crash_coordinator import Ask, Coordinator
from tests.threats.crash_points import (
    IDLE,
    NOWHERE,
    Crash,
    DyingBits,
    DyingWarehouse,
    Witness,
    armed,
    dying_chain,
    dying_ledger,
)

LONGEST_S = 60  # a life that takes longer hangs: it ends by a signal that no history expects
LIMITS = Limits(time_s=30, memory="100MB", threads=1)


@dataclass(frozen=True)
class Consortium:
    """What does not change in a history. `keys` holds everybody's, `me` is the hospital that is killed."""

    keys: Mapping[NodeId, Ed25519PrivateKey]
    me: NodeId
    roster: Roster
    store: Path
    statements: Statements  # compiled before, as they are in a node that has been asked before


@dataclass(frozen=True)
class Parts:
    """Which ledger, chain and sums the node works with: production's, or broken ones."""

    ledger: type[Ledger] = Ledger
    chain: type[Chain] = Chain
    sums: type[SumSessions] = SumSessions


@dataclass(frozen=True)
class Step:
    """One thing that the coordinator does with questions. `how` names a method of `Coordinator`."""

    how: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Life:
    """From one opening of the node to its death."""

    steps: tuple[Step, ...]
    point: str
    nth: int
    tear: int
    now: datetime
    policy: Policy
    dataset: str
    accounts: tuple[Account, ...] = ()  # whose spending the node is asked for when it has opened


@dataclass
class Pipe:
    """Tells the other end, a line at a time. A line is shorter than what a pipe takes at once."""

    handle: int
    witness: Witness

    def tell(self, what: str, **fields: Any) -> None:
        os.write(self.handle, json.dumps({"what": what, **fields}).encode() + b"\n")


def live(consortium: Consortium, path: Path, life: Life, parts: Parts, handle: int) -> None:
    """Be the node, in a process of its own, until killed or through with the life's steps."""
    armed()
    signal.alarm(LONGEST_S)
    pipe = Pipe(handle, Witness(path))
    crash = Crash(life.point, life.nth, life.tear, last_words=lambda: pipe.tell("dying"))
    privacy.ledger.Chain = dying_chain(parts.chain, crash)  # type: ignore[misc]  # in this process alone
    clock = FixedClock(life.now)
    ledger = dying_ledger(parts.ledger, crash)(path, clock=clock)
    pipe.tell("opened", spent=_spent(ledger, life))
    crash.passing("after opening")

    def opening() -> DuckDbWarehouse:
        warehouse = DuckDbWarehouse.open(consortium.store, schema="main", limits=LIMITS)
        warehouse._statements = consortium.statements
        return warehouse

    node = Node(consortium, life, parts, ledger, clock, DyingWarehouse(opening, crash), crash, pipe)
    asyncio.run(node.work(life))
    ledger.close()
    pipe.tell("stopped")


def _spent(ledger: Ledger, life: Life) -> list[tuple[str, str, str, int, float]]:
    """What the node itself believes that each account has spent."""
    found = []
    for account in life.accounts:
        spent = ledger.spent(
            account.project,
            researcher=account.researcher,
            dataset=account.dataset,
            delta=life.policy.budget_delta,
        )
        found.append((account.project, account.researcher, account.dataset, spent.events, spent.epsilon))
    return found


class Node:
    """The hospital's side, with the coordinator and the other hospitals behind its `send`."""

    def __init__(
        self,
        consortium: Consortium,
        life: Life,
        parts: Parts,
        ledger: Ledger,
        clock: FixedClock,
        warehouse: DyingWarehouse,
        crash: Crash,
        pipe: Pipe,
    ) -> None:
        self.consortium, self.clock, self.crash, self.pipe = consortium, clock, crash, pipe
        self.inbox: list[pb.NodeFrame] = []  # what has left
        public = {node: key.public_key() for node, key in consortium.keys.items()}

        def admit(session: SessionParameters, tolerance: int) -> int:
            keys = [fingerprint(public[node].public_bytes_raw()) for node in session.participants]
            life.policy.check_participants(keys, tolerance=tolerance)
            return life.policy.fewest_survivors(participants=len(keys), tolerance=tolerance)

        self.sums = parts.sums(
            me=consortium.me,
            signing_key=consortium.keys[consortium.me],
            peers=lambda: public,
            admit=admit,
            send=self.send,
            left=lambda session, frame, code: None,
        )
        record = lambda event, **fields: None  # noqa: E731 (the audit trail has tests of its own)
        self.answering = Answering(
            admission=Admission(
                roster=lambda: consortium.roster,
                policy=lambda: life.policy,
                ledger=ledger,
                record=record,
                clock=clock,
                dataset=life.dataset,
            ),
            ledger=ledger,
            warehouse=lambda: warehouse,  # type: ignore[arg-type, return-value]  # never closed by who asks
            sums=self.sums,
            send=self.send,
            record=record,
            to_code=boundary.to_code,
            threads=ThreadPoolExecutor(2),
            clock=clock,
            bits=DyingBits(crash),
        )

    def send(self, frame: pb.NodeFrame) -> None:
        """The wire: what is given here has left the hospital."""
        name = frame.WhichOneof("body") or ""
        if name == "sum_input":
            self.crash.passing("before an input leaves")
            body = frame.sum_input
            named = {"session": body.session_id.hex(), "step": body.step, "context": body.context.hex()}
            self.pipe.tell("input", durable=self.pipe.witness.last(), **named)
        elif name == "sum_reveal":
            self.crash.passing("before shares leave")
            named = {"session": frame.sum_reveal.session_id.hex(), "step": frame.sum_reveal.step}
            self.pipe.tell("shares", durable=self.pipe.witness.last(), **named)
        elif name == "offer_reply":
            reply = frame.offer_reply
            self.pipe.tell("reply", question=reply.question_id.hex(), refusal=reply.refusal)
        self.inbox.append(frame)
        if name == "sum_input":
            self.crash.passing("after an input left")
        elif name == "sum_reveal":
            self.crash.passing("after shares left")

    async def work(self, life: Life) -> None:
        """Let the coordinator do what the life says; then stop, or die with whatever is open."""
        coordinator = Coordinator(self)
        for step in life.steps:
            await coordinator.have_session()
            await getattr(coordinator, step.how)(*step.asks)
        self.crash.passing(IDLE)
        if life.point != NOWHERE:
            os.kill(os.getpid(), signal.SIGKILL)  # the point was not reached
        await self.answering.stop()
