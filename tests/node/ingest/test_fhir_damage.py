"""Damaged and hostile files: each record is turned away or the file refused, and nothing of it is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.ingest.errors import UnreadableSource
from node.ingest.readers import fhir_files
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir import FhirReader
from node.ingest.readers.fhir_catalogue import NAMES, NOT_READ, READ
from tests.node.ingest.fhir_resources import (
    PATIENT,
    Facts,
    concept,
    observation,
    quantity,
    read_bundle,
    read_lines,
    resource,
)

GOOD = json.dumps(observation(id="good"))


@pytest.mark.parametrize(
    "line",
    [
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD + "}",
        "[1, 2]",
        "null",
        '"text"',
        "{}",
        '{"resourceType": null}',
        '{"resourceType": 7}',
        '{"resourceType": ["Observation"]}',
        json.dumps(observation(valueQuantity={"value": "95.5"})),
        json.dumps(observation(status=1)),
        json.dumps(observation(subject=["Patient/p1"])),
        json.dumps(observation(code={"coding": {"code": "1"}})),
        json.dumps(observation(code={"coding": [None]})),
        json.dumps(observation(id="x" * 300)),
        json.dumps(observation(valueQuantity={"value": 1})).replace(": 1}", ": 1e999}"),
        json.dumps(observation(valueQuantity={"value": 1})).replace(": 1}", ": NaN}"),
        json.dumps(observation(valueString="a\0b")),
        json.dumps(observation(valueQuantity=None, valueString="\ud800 alone")),
        json.dumps(observation(note="deep")).replace('"deep"', "[" * 10**5 + "]" * 10**5),
        json.dumps(observation(extra="deep")).replace('"deep"', '{"a":' * 10**5 + "1" + "}" * 10**5),
        json.dumps(resource("MedicationRequest", dispenseRequest={"numberOfRepeatsAllowed": 2**31})),
        json.dumps(resource("MedicationRequest", dispenseRequest={"numberOfRepeatsAllowed": -1})),
        json.dumps(
            resource(
                "MedicationRequest",
                status="active",
                intent="order",
                subject=PATIENT,
                contained=[7],
                medicationReference={"reference": "#m"},
            )
        ),
    ],
    ids=range(25),
)  # fmt: skip
def test_a_damaged_line_is_turned_away_and_its_neighbours_are_read(tmp_path: Path, line: str) -> None:
    facts = read_lines(tmp_path, GOOD, line, GOOD)
    assert [row["record"] for row in facts.rows] == [1, 3]
    assert facts.reasons == {"malformed": 1}


def test_a_literal_backslash_is_no_forbidden_character(tmp_path: Path) -> None:
    facts = read_lines(tmp_path, observation(valueQuantity=None, valueString="a \\u0000 in words"))
    assert facts.rows[0]["value_text"] == "a \\u0000 in words"


def test_text_that_is_not_utf8_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(GOOD.replace("Glucose", "Gl\xfccose").encode("latin-1") + b"\n" + GOOD.encode())
    facts = Facts(path)
    assert (facts.reasons, len(facts.rows)) == ({"malformed": 1}, 1)


def test_of_a_key_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    facts = read_lines(tmp_path, GOOD[:-1] + ', "valueQuantity": {"value": 1}}')
    assert facts.rows[0]["value_number"] == 1


def test_bad_dates_are_noted_and_the_rest_is_kept(tmp_path: Path) -> None:
    facts = read_lines(
        tmp_path,
        observation(effectiveDateTime="yesterday", issued="2020-01-01T10:00:00"),
        resource("Patient", birthDate="1950-02-30"),
    )
    assert facts.notes == {
        ("effectiveDateTime", "bad-date"),
        ("meta.lastUpdated", "no-time-zone"),
        ("birthDate", "bad-date"),
    }
    assert "start" not in facts.rows[0]
    assert "birth" not in facts.rows[1]


def test_a_mark_at_the_start_blank_lines_and_gzip_change_nothing(tmp_path: Path) -> None:
    plain = read_lines(tmp_path, GOOD, GOOD)
    path = tmp_path / "marked.ndjson.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + f"{GOOD}\r\n\n  \n{GOOD}".encode()))
    assert Facts(path).rows == plain.rows


def test_a_line_over_the_limit_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_files, "MAX_LINE", 2000)
    huge = json.dumps(observation(valueQuantity=None, valueString="x" * 9000))
    facts = read_lines(tmp_path, GOOD, huge, GOOD)
    assert (facts.reasons, [row["record"] for row in facts.rows]) == ({"too-large": 1}, [1, 3])


def test_a_huge_string_is_a_string(tmp_path: Path) -> None:
    facts = read_lines(tmp_path, observation(valueQuantity=None, valueString="x" * (8 << 20)))
    assert len(facts.rows[0]["value_text"]) == 8 << 20


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ndjson.gz"
    with gzip.open(path, "wb") as stream:
        for _ in range(160):
            stream.write(b" " * (1 << 20))
    with pytest.raises(UnreadableSource, match="200 times"):
        Facts(path)


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_compression_that_is_cut_off_or_broken_is_refused(tmp_path: Path, cut: float) -> None:
    whole = gzip.compress("\n".join([GOOD] * 500).encode(), compresslevel=1)
    path = tmp_path / "cut.ndjson.gz"
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(UnreadableSource, match="damaged or cut off"):
        Facts(path)
    path.write_bytes(whole[:200] + b"\0" * 50 + whole[250:])
    with pytest.raises(UnreadableSource, match="damaged or cut off"):
        Facts(path)


@pytest.mark.parametrize("data", [b"{", b"", b"[]", b'{"a": 1}', GOOD[:-1].encode(), GOOD.encode("utf-16")])
def test_a_document_that_is_no_resource_is_refused_without_its_name_or_content(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "Jane_Doe.json"
    path.write_bytes(data)
    with pytest.raises(UnreadableSource) as caught:
        Facts(path)
    assert "Jane" not in str(caught.value)
    assert "Glucose" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bundles_damaged_entries_are_turned_away_alone(tmp_path: Path) -> None:
    facts = read_bundle(
        tmp_path,
        {"resource": observation()},
        {"resource": {"resourceType": "Observation", "status": 1}},
        {"resource": 7},
        {"resource": None},
        {},
        {"resource": {"resourceType": "Bundle", "entry": []}},
        {"resource": observation(id="z")},
    )
    assert [row["record"] for row in facts.rows] == [1, 7]
    assert facts.reasons == {"malformed": 3, "no-content": 2}
    assert read_bundle(tmp_path).records == 0


def test_a_bundle_on_a_line_does_not_nest(tmp_path: Path) -> None:
    inner = {"resourceType": "Bundle", "entry": [{"resource": observation()}]}
    facts = read_lines(tmp_path, {"resourceType": "Bundle", "entry": [{"resource": inner}]}, GOOD)
    assert facts.reasons == {"not-supported": 1}


def test_what_is_not_fhir_is_not_taken(tmp_path: Path) -> None:
    reader = FhirReader()
    for name, data in {
        "a.csv": b'"resourceType"',
        "b.json": b'{"dateOfSleep": "2020"}',
        "c.json": b"",
        "d.ndjson.gz": b"\x1f\x8bbroken",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not reader.reads(tmp_path / name)
    assert not reader.reads(tmp_path / "absent.json")
    (tmp_path / "e.json").write_text(GOOD)
    assert reader.reads(tmp_path / "e.json")


def test_every_reason_is_on_the_list_and_every_resource_has_one_fate() -> None:
    assert set(NOT_READ.values()) <= reasons.ALL
    assert not {form.__name__ for form in READ} & NOT_READ.keys()
    assert len(NAMES) == 145  # the 146 of R4 but Bundle


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
SEEDS: list[dict[str, Any]] = [
    observation(component=[{"code": concept("1"), "valueQuantity": quantity(1, "g")}]),
    resource("Patient", birthDate="1950-01-01", gender="male"),
    resource("Condition", subject=PATIENT, code=concept("1"), onsetDateTime="2020"),
    resource("MedicationRequest", status="active", intent="order", subject=PATIENT, dosageInstruction=[{}]),
    resource("ExplanationOfBenefit", patient=PATIENT, item=[{"net": {"value": 1}}], diagnosis=[{}]),
    resource("DocumentReference", subject=PATIENT, content=[{"attachment": {"data": "eA=="}}]),
    resource("Encounter", subject=PATIENT, period={"start": "2020"}),
    resource("Consent", patient=PATIENT, scope=concept("research"), status="inactive"),
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return the text of a resource in which a field, or a few bytes, are something else."""
    made = json.loads(json.dumps(draw(st.sampled_from(SEEDS))))
    place: Any = made
    while isinstance(place, dict | list) and place:
        key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
        if draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = draw(JSON)
            break
        place = place[key]
    text = json.dumps(made)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text) - 1))
        text = (
            text[:at]
            + draw(st.text(max_size=3).filter(str.isprintable))
            + text[at + draw(st.integers(0, 9)) :]
        )
    return text or "{}"


@given(st.lists(mutated(), min_size=1, max_size=12), st.integers(1, 5))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_record_has_facts_or_a_reason_whatever_is_in_it(
    tmp_path: Path, lines: list[str], batch_records: int
) -> None:
    path = tmp_path / "mutated.ndjson"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    facts = Facts(path, batch_records=batch_records)  # which holds records in = with facts + turned away
    assert facts.records == sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    assert {away.reason for away in facts.turned_away} <= reasons.ALL
    assert all(
        away.field == "" or away.field in NAMES | {"Bundle"}
        for away in facts.turned_away
        if away.whole_record
    )
    assert Facts(path, batch_records=1000).rows == facts.rows
