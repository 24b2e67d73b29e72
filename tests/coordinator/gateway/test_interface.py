"""The document that describes the interface is valid and true, and the log tells nothing about anybody."""

import asyncio
import logging
import re
import socket
import ssl

import httpx
import pytest
from openapi_spec_validator import validate

from coordinator.gateway import problems
from coordinator.gateway.problems import Problem
from coordinator.gateway.shield import Shield
from protocols.refusal import RefusalCode
from tests.coordinator.gateway.site import BODY, Site, problem


def test_the_openapi_document_is_valid_and_names_every_address(site: Site) -> None:
    with site.client() as client:
        client.headers.pop("authorization")
        document = client.get("/v1/openapi.json").json()
    validate(document)
    assert set(document["paths"]) == {
        "/v1/questions",
        "/v1/questions/{question_id}",
        "/v1/previews",
        "/v1/budget",
        "/v1/consortium",
        "/v1/healthz",
    }
    for path, methods in document["paths"].items():
        for entry in methods.values():
            assert ("security" in entry) == (path != "/v1/healthz")
            assert "application/problem+json" in entry["responses"]["default"]["content"]
    asked = document["paths"]["/v1/questions"]["post"]
    assert asked["security"] == [{"openid": ["fedtwin.ask"]}]
    assert {"200", "202", "default"} == set(asked["responses"])
    scheme = document["components"]["securitySchemes"]["openid"]
    assert scheme["openIdConnectUrl"].startswith(site.issuer.issuer)


def test_every_refusal_of_the_consortium_is_a_problem_with_a_status() -> None:
    for code in RefusalCode:
        kind = problems.refusal(code)
        assert kind.code == code.value
        assert 400 <= kind.status < 600
        assert kind.title == code.help
    own = [kind.code for kind in problems.OURS]
    assert len(set(own)) == len(own)
    assert set(own) & set(RefusalCode) == {"internal"}


def test_the_log_holds_no_token_no_body_and_no_name(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for noisy in ("hypothesis", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    token = site.token("babbage")
    answered = site.ask(BODY | {"epsilon": 0.123}, token=token)
    site.ask(b'{"sql": "DROP TABLE person"}', token=token)
    site.ask(token=token[:-5] + "AAAAA")
    site.ask(token="a.b.c")
    site.get("/v1/budget?project=secret-project", token=token)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("coordinator", "uvicorn"))]
    lines = "\n".join(ours)
    assert re.search(r"POST /v1/questions 200 \d+ ms [a-z2-7]{52}", lines)
    assert "POST /v1/questions 401" in lines
    told = (*token.split("."), "babbage", "0.123", "DROP", "secret-project", "201826", "idempotency")
    assert not [word for word in told if word in lines]
    assert answered.json()["question_id"] not in lines


def test_a_fault_is_a_problem_without_its_words(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.gateway is not None

    async def broken() -> None:
        raise KeyError("a patient's name")

    monkeypatch.setattr(site.gateway.asker, "describe", broken)
    response = site.get("/v1/consortium")
    assert problem(response) == "internal"
    assert response.status_code == 500
    assert "patient" not in response.text


def test_without_tls_and_with_old_tls_nobody_is_served(site: Site) -> None:
    assert site.gateway is not None
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://localhost:{site.gateway.port}/v1/healthz", trust_env=False)
    old = ssl.create_default_context(cafile=str(site.home.authority_certificate))
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("localhost", site.gateway.port)) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        old.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


def test_a_slow_application_and_too_many_requests_end_as_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.gateway.shield.REQUEST_MARGIN_S", 0.05)
    monkeypatch.setattr("coordinator.gateway.shield.MAX_AT_ONCE", 2)

    async def slow(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(5)

    async def story() -> None:
        transport = httpx.ASGITransport(Shield(slow, wait_s=0.2, tls=True))
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
            found = await asyncio.gather(*(client.get("/v1/healthz") for _ in range(3)))
        assert sorted(problem(response) for response in found) == [
            "busy",
            "request-timeout",
            "request-timeout",
        ]

    asyncio.run(story())


def test_a_problem_holds_what_the_standard_asks_for() -> None:
    body = Problem(problems.RATE, headers={"retry-after": "3"}).to_json()
    assert body == {
        "type": "urn:fedtwin:problem:rate-limited",
        "title": problems.RATE.title,
        "status": 429,
        "code": "rate-limited",
    }
