"""The gateway before a real coordinator and four real hospitals with their ledgers, all over TLS."""

import asyncio
import contextlib
import json
from pathlib import Path

import httpx
import pytest

from coordinator.gateway.access import Access, Grant
from coordinator.gateway.config import GatewayConfig
from coordinator.gateway.founding import found_gateway
from coordinator.gateway.listener import listening
from coordinator.gateway.serving import serving
from coordinator.gateway.tokens import account_of
from privacy.ledger import Ledger
from sim.identity_provider import IdentityProvider, create_app
from tests.coordinator.gateway.site import AUDIENCE, GROUP, SLACK, edit, problem
from tests.network.consortium import CLOCK, PROJECT, Consortium, until
from tests.node.patients import AF
from tests.ports import free_ports

BODY = {
    "project": PROJECT,
    "cohort": {"index": {"kind": "condition", "concepts": [AF]}},
    "epsilon": 1.0,
    "max_sites_per_patient": 2,
}


class Running:
    """A consortium with a gateway, in this event loop."""

    def __init__(self, consortium: Consortium, issuer: IdentityProvider, port: int) -> None:
        self.consortium = consortium
        self.issuer = issuer
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    async def ask(self, key: str, *, subject: str = "ada", **changes: object) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {self.issuer.token(subject, groups=(GROUP,))}",
            "idempotency-key": f'"{key}"',
        }
        return await self.client.post("/v1/questions", json=BODY | changes, headers=headers)

    async def get(self, path: str, *, subject: str = "ada") -> httpx.Response:
        bearer = f"Bearer {self.issuer.token(subject, groups=(GROUP,))}"
        return await self.client.get(path, headers={"authorization": bearer})

    def charged(self, site: int) -> set[str]:
        """Return to whom the site's ledger has charged anything."""
        with Ledger(self.consortium.node(site).ledger, clock=CLOCK, read_only=True) as ledger:
            return {entry.researcher for entry in ledger.entries() if getattr(entry, "researcher", None)}


@contextlib.asynccontextmanager
async def running(folder: Path, *, on_behalf: bool = True):  # type: ignore[no-untyped-def]
    """Start coordinator, issuer, hospitals and gateway."""
    consortium = Consortium(folder)
    consortium.found()
    (issuing,) = free_ports(1)
    issuer = IdentityProvider(f"http://127.0.0.1:{issuing}", audience=AUDIENCE, clock=CLOCK)
    with contextlib.closing(consortium.home.open_state()) as state:
        path = found_gateway(
            consortium.home,
            state,
            folder / "gateway",
            name="gateway",
            host="localhost",
            issuer=issuer.issuer,
            plain_http=True,
            audience=AUDIENCE,
            access=Access((Grant(PROJECT, frozenset(), frozenset({GROUP})),)),
            port=0,
            clock=CLOCK,
        )
    edit(path, SLACK)
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(consortium.coordinator())
        await consortium.enrol_all()
        for site in range(consortium.sites):
            policy = consortium.node(site).policy
            text = policy.read_text()
            assert "on_behalf = true" in text
            policy.write_text(text.replace("on_behalf = true", f"on_behalf = {json.dumps(on_behalf)}"))
        await stack.enter_async_context(
            listening(create_app(issuer), host="127.0.0.1", port=issuing, context=None)
        )
        await stack.enter_async_context(consortium.nodes())
        await until(lambda: len(coordinator.broker.connected()) == consortium.sites)
        gateway = await stack.enter_async_context(serving(GatewayConfig.load(path), clock=CLOCK))
        found = Running(consortium, issuer, gateway.port)
        stack.push_async_callback(found.client.aclose)
        yield found


def test_a_question_over_rest_is_answered_and_charged_to_the_person_at_each_hospital(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as found:
            response = await found.ask("first")
            assert response.status_code == 200, response.text
            answer = response.json()["answer"]
            truth = sum(found.consortium.counts.values())
            assert abs(answer["estimate"] - truth) < 6.5 * answer["standard_deviation"]
            assert (answer["contributors"], answer["cached"]) == (4, False)
            account = f"gateway/{account_of(found.issuer.issuer, 'ada')}"
            for site in range(4):
                assert found.consortium.spent(site) == 1
                assert account in found.charged(site)
            again = await found.ask("first")
            assert again.content == response.content
            assert [found.consortium.spent(site) for site in range(4)] == [1] * 4

    asyncio.run(story())


def test_the_same_question_of_another_person_of_the_project_is_free(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as found:
            first = (await found.ask("mine")).json()["answer"]
            second = (await found.ask("yours", subject="mary")).json()["answer"]
            assert second["cached"]
            assert second["charged"] == {"epsilon": 0, "delta": 0}
            assert second["estimate"] == first["estimate"]
            assert [found.consortium.spent(site) for site in range(4)] == [1] * 4
            budget = (await found.get(f"/v1/budget?project={PROJECT}", subject="mary")).json()
            assert (budget["releases"], budget["yours"]["answers"]) == (1, 0)
            assert 0.9 < budget["epsilon"] < 1.01

    asyncio.run(story())


def test_hospitals_that_take_no_gateway_refuse_and_charge_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, on_behalf=False) as found:
            response = await found.ask("no gateway")
            assert response.status_code in (403, 503)
            assert problem(response) in {"not-allowed", "too-few-sites"}
            assert [found.consortium.spent(site) for site in range(4)] == [0] * 4
            assert (
                await found.consortium.ask()
            ).contributors == 4  # who signs with an own key still gets one

    asyncio.run(story())


@pytest.mark.parametrize("changes", [{"project": "another"}, {"epsilon": 40.0}])
def test_what_the_hospitals_do_not_allow_is_refused_and_charges_nothing(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    async def story() -> None:
        async with running(tmp_path) as found:
            response = await found.ask("too much", **changes)
            assert problem(response) in {
                "foreign-project",
                "not-allowed",
                "too-few-sites",
                "budget-exhausted",
            }
            assert [found.consortium.spent(site) for site in range(4)] == [0] * 4

    asyncio.run(story())
