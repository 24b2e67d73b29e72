"""The REST interface: its addresses, what the OpenAPI document says of them, and how errors are told."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from coordinator.channel import CoordinatorUnreachable
from coordinator.gateway import documents, problems
from coordinator.gateway.asking import BUDGET_DELTA
from coordinator.gateway.desk import Desk, Parts
from coordinator.gateway.documents import answers, needs
from coordinator.gateway.problems import Problem, malformed
from coordinator.gateway.tokens import ASK, READ
from protocols.refusal import Refused


def create_app(parts: Parts) -> FastAPI:
    """Return the application. Put a Shield around it."""
    desk = Desk(parts)
    app = FastAPI(
        title="fedtwin gateway",
        version=version("fedtwin"),
        description="Private questions across hospitals, each charged to a budget that the hospitals keep.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    _add_routes(app, desk)
    _add_handlers(app)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            gathered = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            app.openapi_schema = documents.completed(gathered, issuer=parts.issuer)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to complete its document
    return app


def _add_routes(app: FastAPI, desk: Desk) -> None:
    asks = needs(ASK, body=True, parameters=(documents.IDEMPOTENCY_KEY, documents.WAIT))

    @app.post("/v1/questions", responses=answers("Question", also=(202,)), openapi_extra=asks)
    async def ask(request: Request) -> Response:
        """Ask a question: 200 with its answer, or 202 and where to look for it."""
        return await desk.ask(request)

    waits = needs(READ, parameters=(documents.WAIT,))

    @app.get("/v1/questions/{question_id}", responses=answers("Question"), openapi_extra=waits)
    async def question(request: Request, question_id: str) -> Response:
        """Look at a question of yours."""
        return await desk.question(request, question_id)

    @app.post("/v1/previews", responses=answers("Preview"), openapi_extra=needs(READ, body=True))
    async def previews(request: Request) -> Response:
        """See what a question would cost and how exact it would be. Free."""
        return await desk.preview(request)

    @app.get("/v1/budget", responses=answers("Budget"), openapi_extra=needs(READ))
    async def budget(
        request: Request,
        project: Annotated[str, Query(max_length=64)],
        delta: Annotated[float, Query(description="At which the epsilon is stated.")] = BUDGET_DELTA,
    ) -> Response:
        """See what a project and your own answers have cost."""
        return await desk.budget(request, project, delta)

    @app.get("/v1/consortium", responses=answers("Consortium"), openapi_extra=needs(READ))
    async def consortium(request: Request) -> Response:
        """See how many hospitals are there, and what you may use."""
        return await desk.consortium(request)

    @app.get("/v1/healthz", responses=answers("Health"))
    async def healthz() -> Response:
        """Say that the process answers. Needs no token and says nothing about the consortium."""
        return JSONResponse({"serving": True})


def _add_handlers(app: FastAPI) -> None:
    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return Problem(problems.refusal(error.code)).response()

    async def on_unreachable(request: Request, error: Exception) -> Response:
        return Problem(problems.NO_COORDINATOR, headers={"retry-after": "10"}).response()

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        place = error.errors()[0]["loc"][-1] if error.errors() else "$"
        return malformed(str(place), "is missing or out of range").response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            return Problem(problems.METHOD, headers={"allow": allowed}).response()
        return Problem(problems.NOT_FOUND).response()

    async def on_gone(request: Request, error: Exception) -> Response:
        return Problem(problems.SLOW).response()  # nobody reads it

    async def on_fault(request: Request, error: Exception) -> Response:
        return Problem(problems.INTERNAL).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(CoordinatorUnreachable, on_unreachable)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_fault)
