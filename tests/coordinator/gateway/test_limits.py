"""What a request may be, how often it may come, and that the same one twice is charged once."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coordinator.gateway.book import Book, BookInUse
from coordinator.gateway.form import MAX_BODY_BYTES
from protocols.circe import MAX_DEPTH
from tests.consortium import LoopThread
from tests.coordinator.gateway.hospitals import charges
from tests.coordinator.gateway.site import BODY, COHORT, Site, founded, post, problem, until

# ---- size and form ----


def test_a_body_that_is_too_large_is_refused_declared_or_not(site: Site) -> None:
    before = charges(site.hospitals)
    large = json.dumps(BODY | {"project": "x" * MAX_BODY_BYTES}).encode()
    assert problem(site.ask(large)) == "too-large"
    with site.client() as client:
        pieces = (large[at : at + 65_536] for at in range(0, len(large), 65_536))
        headers = {"idempotency-key": '"pieces"', "content-type": "application/json"}
        response = client.post("/v1/questions", content=pieces, headers=headers)
    assert problem(response) == "too-large"
    assert charges(site.hospitals) == before


def test_a_body_that_is_too_deep_is_refused(site: Site) -> None:
    deep = (
        b'{"project": "stroke", "epsilon": 1, "cohort": '
        + b'{"a":' * MAX_DEPTH
        + b"1"
        + b"}" * (MAX_DEPTH + 1)
    )
    refused = site.ask(deep)
    assert problem(refused) == "malformed"
    assert "deeper" in refused.json()["detail"]
    assert problem(site.ask(b"[" * 2_000_000)) == "malformed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "$"),
        (b"{", "$"),
        (b"\xff\xfe", "$"),
        (b'"text"', "$"),
        (b'{"epsilon": NaN}', "$"),
        (b'{"epsilon": 1e999, "project": "stroke", "cohort": {}}', "$"),
        (b'{"epsilon": 1, "epsilon": 2}', "$"),
        (b'{"project": "\\ud800"}', "$"),
        ({"epsilon": 1, "cohort": COHORT}, "project"),
        ({"project": "stroke", "cohort": COHORT}, "epsilon"),
        ({"project": "stroke", "epsilon": 1}, "cohort"),
        (BODY | {"epsilon": 0}, "epsilon"),
        (BODY | {"epsilon": "1"}, "epsilon"),
        (BODY | {"epsilon": True}, "epsilon"),
        (BODY | {"epsilon": 10**400}, "epsilon"),
        (BODY | {"delta": 0}, "delta"),
        (BODY | {"mechanism": "laplace", "delta": 1e-6}, "delta"),
        (BODY | {"mechanism": "none"}, "mechanism"),
        (BODY | {"mechanism": []}, "mechanism"),
        (BODY | {"project": "UP"}, "project"),
        (BODY | {"attempts": 3}, "attempts"),
        (BODY | {"max_sites_per_patient": 0}, "max_sites_per_patient"),
        (BODY | {"statistic": {"kind": "everything"}}, "statistic.kind"),
        (BODY | {"statistic": {"kind": "mean", "concept": 1, "lower": 2, "upper": 1}}, None),
        (BODY | {"on_behalf_of": "grace"}, "on_behalf_of"),
        (BODY | {"sql": "DROP TABLE person"}, "sql"),
        (BODY | {"cohort": {"index": {"kind": "condition", "concepts": ["1; DROP TABLE person"]}}}, None),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_field(site: Site, body: Any, field: str | None) -> None:
    before = charges(site.hospitals)
    for path in ("/v1/questions", "/v1/previews"):
        with site.client() as client:
            response = post(client, path, body)
        assert problem(response) == "malformed"
        assert response.status_code == 400
        if field is not None:
            assert response.json()["field"] == field
        assert "DROP" not in response.text
    assert charges(site.hospitals) == before


def test_only_plain_json_is_read(site: Site) -> None:
    with site.client() as client:
        for headers in (
            {"content-type": "text/plain"},
            {"content-type": "application/x-www-form-urlencoded"},
            {"content-type": "application/json", "content-encoding": "gzip"},
            {},
        ):
            key = {"idempotency-key": '"plain"'}
            response = client.post("/v1/questions", content=json.dumps(BODY).encode(), headers=headers | key)
            assert problem(response) == "not-json"


def test_other_addresses_and_methods_are_problems_too(site: Site) -> None:
    with site.client() as client:
        assert problem(client.get("/")) == "not-found"
        assert problem(client.get("/docs")) == "not-found"
        assert problem(client.get("/v1/questions/")) == "not-found"
        refused = client.delete("/v1/questions")
        assert problem(refused) == "method-not-allowed"
        assert refused.headers["allow"] == "POST"
        assert problem(client.get("/v1/budget")) == "malformed"
        assert problem(client.get("/v1/budget?project=stroke&delta=x")) == "malformed"
        assert problem(client.get("/v1/budget?project=stroke&delta=0")) == "malformed"
        assert problem(client.get("/v1/budget?project=stroke&delta=nan")) == "malformed"


def test_every_answer_forbids_what_a_browser_might_do_with_it(site: Site) -> None:
    with site.client() as client:
        for response in (
            client.get("/v1/healthz"),
            client.get("/nowhere"),
            post(client, "/v1/questions", {}),
        ):
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["content-security-policy"].startswith("default-src 'none'")
            assert response.headers["strict-transport-security"]
            assert "set-cookie" not in response.headers
            assert "server" not in response.headers
        cross = client.options(
            "/v1/questions",
            headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
        )
        assert problem(cross) == "method-not-allowed"
        assert not [name for name in cross.headers if name.startswith("access-control")]


# ---- rates ----


def test_a_person_who_asks_too_often_waits_and_others_do_not(tmp_path: Path, loop_thread: LoopThread) -> None:
    with founded(tmp_path, loop=loop_thread, questions_per_minute=3, reads_per_minute=5) as site:
        token = site.token("ada")
        codes = [site.ask(token=token).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        refused = site.ask(token=token)
        assert problem(refused) == "rate-limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert site.ask(token=site.token("mary")).status_code == 200
        assert charges(site.hospitals) == 4
        reads = [site.get("/v1/consortium", token=token).status_code for _ in range(7)]
        assert reads == [200] * 5 + [429] * 2


def test_one_person_cannot_hold_all_questions_open(site: Site) -> None:
    from coordinator.gateway.asking import MAX_OPEN_EACH

    site.hold()
    try:
        token = site.token("hoarder")
        held = [site.ask(token=token, prefer="wait=0").status_code for _ in range(MAX_OPEN_EACH)]
        assert held == [202] * MAX_OPEN_EACH
        refused = site.ask(token=token, prefer="wait=0")
        assert problem(refused) == "too-many-open"
        assert refused.headers["retry-after"]
        assert site.ask(token=site.token("mary"), prefer="wait=0").status_code == 202
    finally:
        site.release()


# ---- the same request again ----


def test_the_same_request_again_gets_the_same_answer_and_is_charged_once(site: Site) -> None:
    before = charges(site.hospitals)
    first = site.ask(key="again")
    for _ in range(3):
        again = site.ask(key="again")
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["location"] == first.headers["location"]
    reordered = json.dumps(dict(reversed(BODY.items())), indent=3).encode()
    assert site.ask(reordered, key="again").content == first.content
    assert charges(site.hospitals) == before + 1


def test_a_key_stands_for_one_body(site: Site) -> None:
    site.ask(key="one body")
    before = charges(site.hospitals)
    other = site.ask(BODY | {"epsilon": 0.25}, key="one body")
    assert problem(other) == "idempotency-key-reused"
    assert other.status_code == 422
    assert charges(site.hospitals) == before


def test_keys_of_two_people_are_two_keys(site: Site) -> None:
    ada, mary = site.ask(key="mine", token=site.token("ada")), site.ask(key="mine", token=site.token("mary"))
    assert ada.json()["question_id"] != mary.json()["question_id"]


def test_a_key_must_be_there_and_well_formed(site: Site) -> None:
    before = charges(site.hospitals)
    with site.client() as client:
        assert problem(client.post("/v1/questions", json=BODY)) == "idempotency-key-missing"
        for key in ("bare", '""', '"' + "x" * 129 + '"', '"a"b"', '"one" "two"', "'single'"):
            response = client.post("/v1/questions", json=BODY, headers={"idempotency-key": key})
            assert problem(response) == "idempotency-key-malformed"
        twice = [("idempotency-key", '"a"'), ("idempotency-key", '"b"')]
        assert problem(client.post("/v1/questions", json=BODY, headers=twice)) == "idempotency-key-malformed"
    assert charges(site.hospitals) == before


def test_the_second_of_two_at_once_is_told_so(site: Site) -> None:
    before = charges(site.hospitals)
    site.hold()
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(site.ask(key="at once")))
    try:
        first.start()
        asked = len(site.hospitals.envelopes)
        until(lambda: site.gateway is not None and site.gateway.asker._open)
        second = site.ask(key="at once")
        assert problem(second) == "idempotency-key-in-use"
        assert second.status_code == 409
        assert problem(site.ask(BODY | {"epsilon": 2}, key="at once")) == "idempotency-key-reused"
    finally:
        site.release()
        first.join(20)
    assert found[0].status_code == 200
    assert second.headers["location"] == found[0].headers["location"]
    assert site.ask(key="at once").content == found[0].content
    assert charges(site.hospitals) == before + 1
    assert len(site.hospitals.envelopes) <= asked + 1


def test_a_key_holds_across_a_restart(tmp_path: Path, loop_thread: LoopThread) -> None:
    with founded(tmp_path, loop=loop_thread) as site:
        first = site.ask(key="restart")
        site.down()
        site.up()
        again = site.ask(key="restart")
        assert (again.status_code, again.content) == (200, first.content)
        assert problem(site.ask(BODY | {"epsilon": 2}, key="restart")) == "idempotency-key-reused"
        assert charges(site.hospitals) == 1


def test_a_question_that_was_open_at_a_restart_is_answered_and_charged_once(
    tmp_path: Path, loop_thread: LoopThread
) -> None:
    with founded(tmp_path, loop=loop_thread) as site:
        site.hold()
        lost: list[Any] = []

        def ask() -> None:
            try:
                lost.append(site.ask(key="cut"))
            except Exception as error:
                lost.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: site.hospitals.envelopes)
        site.down()  # while it waits
        asking.join(20)
        site.release()
        site.up()
        answered = site.ask(key="cut")
        assert answered.status_code == 200
        assert charges(site.hospitals) == 1
        assert len(set(site.hospitals.envelopes)) == 1  # signed once


def test_two_gateways_cannot_share_one_book(tmp_path: Path) -> None:
    book = Book(tmp_path / "gateway.sqlite")
    with pytest.raises(BookInUse):
        Book(tmp_path / "gateway.sqlite")
    book.close()
    Book(tmp_path / "gateway.sqlite").close()


def test_old_questions_are_forgotten_and_what_they_cost_is_not(site: Site) -> None:
    from datetime import UTC, datetime, timedelta

    token = site.token("herschel")
    where = site.ask(token=token, key="old").headers["location"]
    assert site.gateway is not None
    soon = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=31)

    async def forget() -> None:
        assert site.gateway is not None
        site.gateway.book.forget(now=soon - timedelta(days=2), older_than=timedelta(days=30))

    site.loop.run(forget())
    assert site.get(where, token=token).status_code == 200

    async def forget_all() -> None:
        assert site.gateway is not None
        site.gateway.book.forget(now=soon, older_than=timedelta(days=30))

    site.loop.run(forget_all())
    assert problem(site.get(where, token=token)) == "not-found"
    assert site.get("/v1/budget?project=stroke", token=token).json()["yours"]["answers"] == 1
    assert site.ask(token=token, key="old").headers["location"] != where
