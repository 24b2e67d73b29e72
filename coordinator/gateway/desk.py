"""What each request does, and in which order it is checked: token, scope, rate, size, form, project, key."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from coordinator.gateway import problems
from coordinator.gateway.access import Access
from coordinator.gateway.asking import BUDGET_DELTA, Asker
from coordinator.gateway.book import Book, Given, Kept
from coordinator.gateway.form import question_of, read_body
from coordinator.gateway.issuer import IssuerUnreachable
from coordinator.gateway.pace import Pace
from coordinator.gateway.preview import event_of, finite, preview
from coordinator.gateway.problems import Problem, malformed
from coordinator.gateway.tokens import ASK, READ, BadToken, Caller, TokenReader
from privacy.reading import read_answer
from protocols.clock import Clock
from protocols.ids import MalformedId, QuestionId
from protocols.question import MAX_DELTA, Question
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,128})"')  # an sf-string without escapes (RFC 8941)
_WAIT = re.compile(r"(?:^|[,\s])wait=([0-9]{1,6})(?:$|[,;\s])", re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)  # RFC 6750
RETRY_S = 2  # when to look again at an open question
REALM = 'Bearer realm="fedtwin"'


@dataclass(frozen=True, slots=True)
class Parts:
    """What the interface is made of."""

    tokens: TokenReader
    access: Access
    pace: Pace
    asker: Asker
    book: Book
    clock: Clock
    issuer: str
    wait_s: float


class Desk:
    """Answers requests. One for each process: it knows which keys are in use."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._in_use: set[tuple[str, str]] = set()

    async def caller(self, request: Request, scope: str) -> Caller:
        """Return who asks, if their token holds and carries `scope`. Raises: Problem."""
        given = request.headers.getlist("authorization")
        found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            raise Problem(problems.UNAUTHENTICATED, headers={"www-authenticate": REALM})
        try:
            caller = await self._parts.tokens.caller(found.group(1))
        except BadToken as bad:
            words = f'{REALM}, error="invalid_token", error_description="{bad.fault.value}"'
            raise Problem(
                problems.UNAUTHENTICATED, reason=bad.fault.value, headers={"www-authenticate": words}
            ) from None
        except IssuerUnreachable:
            raise Problem(problems.NO_ISSUER, headers={"retry-after": "30"}) from None
        request.scope["state"]["account"] = caller.account
        if scope not in caller.scopes:
            words = f'{REALM}, error="insufficient_scope", scope="{scope}"'
            raise Problem(problems.INSUFFICIENT_SCOPE, headers={"www-authenticate": words})
        if scope == ASK:
            self._parts.pace.question(caller.account)
        else:
            self._parts.pace.read(caller.account)
        return caller

    async def ask(self, request: Request) -> Response:
        """Sign and ask a question, once for each key; wait for its answer."""
        caller = await self.caller(request, ASK)
        key = _idempotency_key(request)
        question, fingerprint = await self._question(request, caller)
        hold = (caller.account, key)
        known = self._parts.book.request(*hold)
        if known is not None and known.fingerprint != fingerprint:
            raise Problem(problems.KEY_REUSED)
        if hold in self._in_use:
            where = {} if known is None else {"location": _location(known.question_id)}
            raise Problem(problems.KEY_IN_USE, headers={"retry-after": str(RETRY_S), **where})
        if known is not None and known.given is not None:
            return _given(known.given, known.question_id)
        self._in_use.add(hold)
        try:
            if known is None:
                question_id = self._parts.asker.begin(
                    question, account=caller.account, key=key, fingerprint=fingerprint
                ).question_id
            else:  # the process ended before it could respond
                question_id = known.question_id
            await self._parts.asker.ended(question_id, timeout_s=self._wait(request))
            given = await asyncio.to_thread(self._response, _there(self._parts.book.find(question_id)))
            self._parts.book.responded(*hold, given)
        finally:
            self._in_use.discard(hold)
        return _given(given, question_id)

    async def question(self, request: Request, name: str) -> Response:
        """Return a question of the caller's and how far it is; waits where that is preferred."""
        caller = await self.caller(request, READ)
        try:
            question_id = QuestionId.parse(name)
        except MalformedId:
            raise Problem(problems.NOT_FOUND) from None
        kept = _there(self._parts.book.find(question_id))
        if kept.account != caller.account:
            raise Problem(problems.NOT_FOUND)
        question = await asyncio.to_thread(self._parts.asker.question_of, kept)
        if not self._parts.access.may_use(caller, question.project):
            raise Problem(problems.NOT_FOUND)
        if "prefer" in request.headers:
            await self._parts.asker.ended(question_id, timeout_s=self._wait(request))
            kept = _there(self._parts.book.find(question_id))
        headers = {"retry-after": str(RETRY_S)} if kept.outcome is None else {}
        return JSONResponse(await asyncio.to_thread(self._view, kept), headers=headers)

    async def preview(self, request: Request) -> Response:
        """Say what a question would cost and how exact it would be. Free; nothing is sent to a hospital."""
        caller = await self.caller(request, READ)
        question, _ = await self._question(request, caller)
        event = await asyncio.to_thread(event_of, question)
        consortium = await self._parts.asker.describe()
        budget = await self._parts.asker.budget(
            question.project, delta=question.delta or BUDGET_DELTA, thought_of=event
        )
        return JSONResponse(await asyncio.to_thread(preview, question, consortium, budget))

    async def budget(self, request: Request, project: str, delta: float) -> Response:
        """Say what a project has cost as the coordinator saw it, and what the caller's answers have."""
        caller = await self.caller(request, READ)
        if not self._parts.access.may_use(caller, project):
            raise Problem(problems.FOREIGN_PROJECT)
        if not 0 < delta <= MAX_DELTA:
            raise malformed("delta", f"above 0, at most {MAX_DELTA:g}")
        found = await self._parts.asker.budget(project, delta=delta)
        yours = self._parts.book.charged(caller.account, project)
        return JSONResponse(
            {
                "project": project,
                "delta": found.delta,
                "epsilon": finite(found.epsilon),
                "releases": found.releases,
                "cached": found.cached,
                "lines": [
                    {
                        "kind": line.kind,
                        "releases": line.releases,
                        "epsilon": finite(line.epsilon),
                        "cached": line.cached,
                    }
                    for line in found.lines
                ],
                "yours": {"answers": yours.answers, "epsilon": yours.epsilon, "delta": yours.delta},
            }
        )

    async def consortium(self, request: Request) -> Response:
        """Say what the consortium agreed on, how many hospitals are there, what the caller may use."""
        caller = await self.caller(request, READ)
        found = await self._parts.asker.describe()
        own = set(found.projects)
        projects = {p for p in self._parts.access.projects(caller) if "*" in own or p in own}
        return JSONResponse(
            {
                "consortium": found.consortium,
                "name": found.name,
                "minimum_sites": found.minimum_sites,
                "tolerance": found.tolerance,
                "hospitals": found.hospitals,
                "connected": found.connected,
                "statistics": list(found.statistics),
                "mechanisms": list(found.mechanisms),
                "projects": sorted(projects),
                "account": caller.account,
            }
        )

    async def _question(self, request: Request, caller: Caller) -> tuple[Question, bytes]:
        """Return the question that the body describes, if the caller may ask it. Raises: Problem."""
        body = await read_body(request)
        question = await asyncio.to_thread(
            question_of, body, account=caller.account, now=self._parts.clock.now()
        )
        if not self._parts.access.may_use(caller, question.project):
            raise Problem(problems.FOREIGN_PROJECT)
        return question, body.fingerprint

    def _wait(self, request: Request) -> float:
        """Return how long to wait for an answer: what the caller prefers, up to our limit."""
        found = _WAIT.search(request.headers.get("prefer", ""))
        return min(float(found.group(1)), self._parts.wait_s) if found else self._parts.wait_s

    def _response(self, kept: Kept) -> Given:
        """Return the response to a request whose question is as `kept` says."""
        if isinstance(kept.outcome, RefusalCode):
            more = {"question_id": str(kept.question_id)}
            problem = Problem(problems.refusal(kept.outcome), more=more)
            return Given(problem.kind.status, problems.MEDIA_TYPE, json.dumps(problem.to_json()).encode())
        status = 202 if kept.outcome is None else 200
        return Given(status, "application/json", json.dumps(self._view(kept)).encode())

    def _view(self, kept: Kept) -> dict[str, Any]:
        question = self._parts.asker.question_of(kept)
        found: dict[str, Any] = {
            "question_id": str(kept.question_id),
            "status": "open",
            "project": question.project,
            "asked_at": question.asked_at.isoformat(),
            "expires_at": question.expires_at.isoformat(),
        }
        if isinstance(kept.outcome, pb.Answer):
            return found | {"status": "answered", "answer": _answer(question, kept.outcome)}
        if isinstance(kept.outcome, RefusalCode):
            refusal = {"code": kept.outcome.value, "title": kept.outcome.help}
            return found | {"status": "refused", "refusal": refusal}
        stage, sites = self._parts.asker.progress(kept.question_id)
        return found | {"stage": stage, "sites": sites}


def _idempotency_key(request: Request) -> str:
    given = request.headers.getlist("idempotency-key")
    if not given:
        raise Problem(problems.KEY_MISSING)
    found = _KEY.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise Problem(problems.KEY_MALFORMED)
    return found.group(1)


def _there(kept: Kept | None) -> Kept:
    if kept is None:
        raise Problem(problems.NOT_FOUND)
    return kept


def _location(question_id: QuestionId) -> str:
    return f"/v1/questions/{question_id}"


def _given(given: Given, question_id: QuestionId) -> Response:
    headers = {"location": _location(question_id)}
    if given.status == 202:
        headers["retry-after"] = str(RETRY_S)
    return Response(given.body, given.status, headers, media_type=given.media_type)


def _answer(question: Question, wire: pb.Answer) -> dict[str, Any]:
    answer = read_answer(question, wire)
    paid = 0 if answer.cached else answer.releases
    return answer.to_json() | {
        "half_width_95": answer.noise.half_width(),
        "charged": {"epsilon": paid * answer.epsilon, "delta": paid * answer.delta},
    }
