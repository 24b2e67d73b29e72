"""The researchers' side of the coordinator: who may call what, and refusals as codes.

Guarantee: the caller is known by certificate, and listed in the roster, at every call and while it waits; a
question or a study also carries the signature of the very same person. An error tells a code of the closed
list and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from coordinator.broker import Broker
from coordinator.budget_mirror import budget
from coordinator.question_book import QuestionBook
from coordinator.questions import QuestionDesk
from coordinator.state import State
from coordinator.studies import StudyDesk
from privacy.accountant import Event, UnknownEvent, event_from_json
from protocols import canonical
from protocols import question as questions
from protocols.clock import Clock
from protocols.envelope import MAX_ENVELOPE_BYTES, BadEnvelope
from protocols.ids import MalformedId, NodeId
from protocols.peer import Peer, Role
from protocols.question import MalformedQuestion, Mechanism, Question, UnknownSigner
from protocols.refusal import RefusalCode, Refused
from protocols.roster import Roster
from protocols.statistic import KINDS
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

log = logging.getLogger(__name__)

RECHECK_S = 1.0  # how often a waiting caller is looked up again: the longest a revocation waits
MAX_EVENT_BYTES = 1_000  # one event is three short fields


class Research(fedtwin_pb2_grpc.ResearchServicer):
    """Ask, Describe, Budget, ListNodes, ProposeStudy, OpenRound and EndRound."""

    def __init__(
        self,
        broker: Broker,
        desk: QuestionDesk,
        studies: StudyDesk,
        state: State,
        book: QuestionBook,
        *,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._desk = desk
        self._studies = studies
        self._state = state
        self._book = book
        self._clock = clock

    async def Ask(self, request, context):  # type: ignore[no-untyped-def]  # the generated base is untyped
        """Answer one signed question."""
        async with _Codes(context):
            caller = await self._broker.caller(context, Role.RESEARCHER, Role.LEAD)
            if len(request.question_envelope) > MAX_ENVELOPE_BYTES:
                raise Refused(RefusalCode.MALFORMED)
            # in a thread: a definition of megabytes takes longer to read than a stream may wait
            roster = self._broker.roll.roster
            question = await asyncio.to_thread(
                _opened, request.question_envelope, roster=roster, signer=caller.name
            )
            events = self._desk.ask(question, researcher=caller.name, envelope=request.question_envelope)
            async for event in self._while_admitted(events, caller):
                yield event

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeReply:
        """Say what the consortium agreed on, how many hospitals are there, and what the caller may use."""
        async with _Codes(context):
            caller = await self._broker.caller(context, Role.RESEARCHER, Role.LEAD)
            roster = self._broker.roll.roster
            return pb.DescribeReply(
                consortium=str(roster.consortium),
                name=roster.settings.name,
                minimum_sites=roster.settings.minimum_sites,
                tolerance=roster.settings.tolerance,
                hospitals=len(roster.active_nodes),
                connected=len(self._broker.connected()),
                roster_version=roster.version,
                projects=roster.active_people[caller.name].projects,
                statistics=KINDS,
                mechanisms=list(Mechanism),
            )
        raise AssertionError("unreachable: _Codes has ended the call")

    async def Budget(self, request: pb.BudgetRequest, context: Any) -> pb.BudgetReply:
        """Say what a project has cost as far as this coordinator saw it, to those who may ask under it."""
        async with _Codes(context):
            caller = await self._broker.caller(context, Role.RESEARCHER, Role.LEAD)
            if not self._broker.roll.roster.active_people[caller.name].may_use(request.project):
                raise Refused(RefusalCode.NOT_ALLOWED)
            if not 0.0 < request.delta < 1.0:
                raise Refused(RefusalCode.MALFORMED)
            history = list(self._book.seen(request.project))
            thought_of = _event(request.next)
            return await asyncio.to_thread(
                budget, request.project, history, delta=request.delta, thought_of=thought_of
            )
        raise AssertionError("unreachable: _Codes has ended the call")

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesReply:
        """List every hospital, for a lead."""
        async with _Codes(context):
            await self._broker.caller(context, Role.LEAD)
            records = await asyncio.to_thread(self._state.nodes)
            connected = self._broker.connected()
        nodes = [
            pb.NodeState(
                node_id=record.node_id.raw,
                name=record.name,
                connected=record.node_id in connected,
                last_seen_unix_s=self._broker.last_seen_unix_s(record.node_id)
                or (record.last_seen.timestamp() if record.last_seen else 0.0),
                certificate_expires=record.certificate_expires.isoformat(),
                revoked=record.revoked_at is not None,
            )
            for record in records
        ]
        return pb.ListNodesReply(nodes=nodes, roster_version=self._broker.roll.roster.version)

    async def ProposeStudy(self, request: pb.ProposeStudyRequest, context: Any) -> pb.ProposeStudyReply:
        """Pass a signed study to the hospitals, for a lead."""
        async with _Codes(context):
            caller = await self._broker.caller(context, Role.LEAD)
            return await self._studies.propose(request.study_envelope, proposer=caller.name)
        raise AssertionError("unreachable: _Codes has ended the call")

    async def OpenRound(self, request, context):  # type: ignore[no-untyped-def]  # as above
        """Run one round's secure sums, for the ServerApp of the lead."""
        async with _Codes(context):
            caller = await self._broker.caller(context, Role.LEAD)
            events = self._studies.round(
                request.plan_hash,
                number=request.round,
                steps=request.steps,
                without=_nodes(request.without),
            )
            async for event in self._while_admitted(events, caller):
                yield event

    async def EndRound(self, request: pb.EndRoundRequest, context: Any) -> pb.EndRoundReply:
        """Let a round end with the sum at hand, for the ServerApp of the lead."""
        async with _Codes(context):
            await self._broker.caller(context, Role.LEAD)
            self._studies.end_round(request.session_id)
            return pb.EndRoundReply()
        raise AssertionError("unreachable: _Codes has ended the call")

    async def _while_admitted(self, events: AsyncIterator[Any], caller: Peer) -> AsyncIterator[Any]:
        """Pass events on while the roster lists the caller. Raises: Refused(REVOKED)."""
        iterator = aiter(events)
        following: asyncio.Task[Any] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(_next(iterator))
                done, _ = await asyncio.wait({following}, timeout=RECHECK_S)
                if not self._broker.roll.admits(caller):
                    raise Refused(RefusalCode.REVOKED)
                if done:
                    event = following.result()
                    following = None
                    if event is None:
                        return
                    yield event
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await iterator.aclose()  # type: ignore[attr-defined]  # these are async generators


def _opened(envelope: bytes, *, roster: Roster, signer: str) -> Question:
    """Return the question if its signer is the caller and may use its project. Raises: Refused."""
    try:
        question, name = questions.opened(envelope, key_of=roster.signer_keys())
    except UnknownSigner as error:
        raise Refused(RefusalCode.UNKNOWN_SIGNER) from error
    except BadEnvelope as error:
        raise Refused(RefusalCode.BAD_SIGNATURE) from error
    except MalformedQuestion as error:
        raise Refused(RefusalCode.MALFORMED) from error
    if name != signer:
        raise Refused(RefusalCode.UNKNOWN_SIGNER)
    if not roster.active_people[name].may_use(question.project):
        raise Refused(RefusalCode.NOT_ALLOWED)
    return question


def _nodes(raw: Iterable[bytes]) -> frozenset[NodeId]:
    """Return the nodes of a request. Raises: Refused(MALFORMED)."""
    try:
        return frozenset(NodeId(one) for one in raw)
    except MalformedId as error:
        raise Refused(RefusalCode.MALFORMED) from error


def _event(text: str) -> Event | None:
    """Return the release that a caller thinks of. Raises: Refused(MALFORMED)."""
    if not text:
        return None
    try:
        return event_from_json(canonical.decode(text.encode(), max_bytes=MAX_EVENT_BYTES))
    except (canonical.MalformedJson, UnknownEvent) as error:
        raise Refused(RefusalCode.MALFORMED) from error


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, None)


class _Codes:
    """Ends the call with a code for whatever goes wrong inside."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Refused):
            await self._context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.code.value)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            log.exception("a researcher's call failed", exc_info=error)
            await self._context.abort(grpc.StatusCode.INTERNAL, RefusalCode.INTERNAL.value)
