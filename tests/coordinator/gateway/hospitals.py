"""A Research service on loopback that answers as a coordinator with four hospitals does.

Mutual TLS, signatures and shares of noise are real. What it charged is in `charged`, by account.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from coordinator.home import CoordinatorHome
from privacy import release
from privacy.rng import SecureBits
from protocols import question as questions
from protocols.clock import Clock
from protocols.question import Mechanism, Question
from protocols.refusal import RefusalCode
from protocols.statistic import KINDS
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

SITES, TOLERANCE = 4, 1
EACH = 250  # patients of every cohort, at each hospital


class Hospitals(fedtwin_pb2_grpc.ResearchServicer):
    """Answers each question once; `held` keeps answers back, `refusal` says no to everything."""

    def __init__(self, home: CoordinatorHome, *, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._answers: dict[bytes, pb.Answer] = {}
        self._server: grpc.aio.Server | None = None
        self.charged: Counter[str] = Counter()
        self.envelopes: list[bytes] = []
        self.refusal: RefusalCode | None = None
        self.held = asyncio.Event()
        self.held.set()

    async def start(self) -> None:
        """Listen at the consortium's broker address."""
        tls = self._home.server_tls(clock=self._clock)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        fedtwin_pb2_grpc.add_ResearchServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.chain)], root_certificates=tls.authority, require_client_auth=True
        )
        self._server.add_secure_port(self._home.config().own_broker_address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening, as a coordinator that was killed."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def Ask(self, request: pb.AskRequest, context: Any) -> Any:
        """Answer one signed question."""
        question, signer = questions.opened(request.question_envelope, key_of=self._roster().signer_keys())
        self.envelopes.append(request.question_envelope)
        yield pb.AskEvent(progress=pb.AskProgress(stage="asked", sites=SITES))
        await self.held.wait()
        if self.refusal is not None:
            yield pb.AskEvent(refusal=self.refusal.value)
            return
        if question.question_id.raw not in self._answers:
            self.charged[f"{signer}/{question.on_behalf_of}"] += 1
            self._answers[question.question_id.raw] = self._answer(question)
        yield pb.AskEvent(answer=self._answers[question.question_id.raw])

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeReply:
        """Say who is there."""
        return pb.DescribeReply(
            consortium=str(self._roster().consortium),
            name="Example",
            minimum_sites=3,
            tolerance=TOLERANCE,
            hospitals=SITES,
            connected=SITES,
            projects=["diabetes", "stroke"],
            statistics=KINDS,
            mechanisms=list(Mechanism),
        )

    async def Budget(self, request: pb.BudgetRequest, context: Any) -> pb.BudgetReply:
        """Say what was charged."""
        line = pb.BudgetLine(kind="count", releases=len(self._answers), epsilon=0.5 * len(self._answers))
        return pb.BudgetReply(
            project=request.project,
            delta=request.delta,
            epsilon=line.epsilon,
            releases=line.releases,
            lines=[line],
            epsilon_with_next=line.epsilon + (0.5 if request.next else 0),
        )

    def _answer(self, question: Question) -> pb.Answer:
        plan = release.plan(question, participants=SITES, tolerance=TOLERANCE)
        vector = np.full(len(question.labels), EACH, dtype=np.int64)
        bits = SecureBits()
        shares = [plan.contribution(vector, bits=bits) for _ in range(SITES)]
        return pb.Answer(
            question_id=question.question_id.raw,
            scaled_totals=[int(total) for total in np.sum(shares, axis=0, dtype=np.uint64).view(np.int64)],
            contributors=SITES,
            participants=SITES,
            tolerance=TOLERANCE,
            releases=1,
            answered_at_unix_s=self._clock.now().timestamp(),
        )

    def _roster(self) -> Any:
        state = self._home.open_state()
        try:
            return self._home.roster_book(state, clock=self._clock).current()
        finally:
            state.close()


def charges(hospitals: Hospitals) -> int:
    """Return how many releases were made in all."""
    return sum(hospitals.charged.values())


def files_with(folder: Path, secret: bytes) -> list[str]:
    """Return the files below `folder` that hold `secret`."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and secret in p.read_bytes()]
