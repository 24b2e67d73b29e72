"""Whatever comes as a body or a header: a 4xx problem of the closed list, never a fault, never a charge."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.statistic import KINDS
from tests.coordinator.gateway.hospitals import charges
from tests.coordinator.gateway.site import BODY, COHORT, Site, post, problem

FEW, MANY = 60, 1_000  # examples of each test: always, and in the slow suite


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])])
def examples(request: pytest.FixtureRequest) -> settings:
    """How many examples, the same ones in every run."""
    checks = list(HealthCheck)
    return settings(
        max_examples=request.param,
        deadline=None,
        suppress_health_check=checks,
        derandomize=True,
        database=None,
    )


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [10**400, -1, 0, 1e-400, "", "\x00", "\ud800", "'; DROP TABLE person; --", "$", "stroke"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    [*BODY, "statistic", "delta", "mechanism", "attempts", "max_sites_per_patient", "question"]
)
words = st.sampled_from(
    ["index", "include", "exclude", "kind", "concepts", "window", "PrimaryCriteria", "ConceptSets", *KINDS]
)
cohorts = st.one_of(values, st.dictionaries(st.one_of(words, st.text(max_size=8)), values, max_size=5))
statistics = st.fixed_dictionaries(
    {"kind": st.one_of(st.sampled_from(KINDS), values)}, optional={"by": values}
)
WRONG = {  # each key, and values that it cannot have
    "project": st.one_of(st.integers(), st.text(max_size=5).map(lambda text: text + " "), st.none()),
    "cohort": cohorts.filter(lambda value: value != COHORT),
    "epsilon": st.one_of(
        st.text(), st.none(), st.floats(max_value=0), st.booleans(), st.integers(min_value=65)
    ),
    "statistic": st.one_of(st.none(), st.text(), st.just({}), statistics.map(lambda s: s | {"no": 1})),
    "delta": st.one_of(st.text(), st.none(), st.floats(min_value=0.02), st.floats(max_value=0)),
    "mechanism": st.one_of(st.integers(), st.none(), st.text(max_size=4), values),
    "attempts": st.one_of(st.integers(min_value=3), st.floats(), st.text(), st.booleans()),
    "max_sites_per_patient": st.one_of(st.integers(max_value=0), st.floats(), st.text(), st.booleans()),
}


def raw(value: Any) -> bytes:
    """Return JSON as a careless client writes it: NaN and half a surrogate pair included."""
    return json.dumps(value, ensure_ascii=True, allow_nan=True).encode()


def must_be_refused(client: httpx.Client, path: str, body: bytes) -> None:
    response = post(client, path, body)
    assert 400 <= response.status_code < 500, (response.status_code, response.text)
    assert problem(response) in {"malformed", "foreign-project", "too-large"}
    assert len(response.content) < 500
    assert response.json()["title"]


def test_random_bodies_are_refused_and_nothing_is_charged(site: Site, examples: settings) -> None:
    before = charges(site.hospitals), len(site.hospitals.envelopes)
    with site.client() as client:

        @examples
        @given(st.one_of(st.binary(max_size=200), values.map(raw), st.dictionaries(keys, values).map(raw)))
        def story(body: bytes) -> None:
            must_be_refused(client, "/v1/questions", body)

        story()
    assert (charges(site.hospitals), len(site.hospitals.envelopes)) == before


def test_a_right_body_with_one_wrong_part_is_refused_and_nothing_is_charged(
    site: Site, examples: settings
) -> None:
    before = charges(site.hospitals), len(site.hospitals.envelopes)
    wrong = st.sampled_from(sorted(WRONG)).flatmap(lambda key: st.tuples(st.just(key), WRONG[key]))
    with site.client() as client:

        @examples
        @given(wrong, st.sampled_from(["/v1/questions", "/v1/previews"]))
        def story(part: tuple[str, Any], path: str) -> None:
            key, value = part
            must_be_refused(client, path, raw(BODY | {key: value}))

        story()
    assert (charges(site.hospitals), len(site.hospitals.envelopes)) == before


def test_a_right_body_that_was_damaged_is_refused_and_nothing_is_charged(
    site: Site, examples: settings
) -> None:
    before = charges(site.hospitals), len(site.hospitals.envelopes)
    body = raw(BODY)
    with site.client() as client:

        @examples
        @given(st.integers(0, len(body) - 1), st.sampled_from(b'{}[]":,\\\x00\xff'), st.booleans())
        def story(at: int, byte: int, cut: bool) -> None:
            damaged = body[:at] if cut else body[:at] + bytes([byte]) + body[at + 1 :]
            if damaged != body and not (byte == ord(",") and body[at : at + 1].isdigit()):  # two concepts
                must_be_refused(client, "/v1/questions", damaged)

        story()
    assert (charges(site.hospitals), len(site.hospitals.envelopes)) == before


def test_random_headers_and_addresses_are_refused_and_nothing_is_charged(
    site: Site, examples: settings
) -> None:
    before = charges(site.hospitals)
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.strip)
    names = st.sampled_from(
        ["authorization", "idempotency-key", "content-type", "prefer", "content-encoding"]
    )
    paths = st.text(st.sampled_from("abq-0/.%2fe?=&v1"), max_size=30).map(lambda path: "/" + path)
    right = {"idempotency-key": '"fuzz"', "content-type": "application/json"}
    with site.client() as client:

        @examples
        @given(names, text, paths, st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"]))
        def story(name: str, value: str, path: str, method: str) -> None:
            for where, content in ((path, None), ("/v1/questions", b"{}")):
                response = client.request(
                    method, site.url + where, headers=right | {name: value}, content=content
                )
                assert 400 <= response.status_code < 500, (method, where, response.status_code)
                problem(response)

        story()
    assert charges(site.hospitals) == before
