"""The table of fields against the readers of X12 and of wearables: what these look at stands in it."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, SupportsIndex

import pytest

from deid.structured import Action, Source, rules_of, table
from node.ingest.readers import fitbit
from node.ingest.readers.claims_rows import ClaimRows
from node.ingest.readers.x12_claims import Claims
from node.ingest.readers.x12_members import Members
from node.signals.sifting import Rows
from tests.node.ingest.made_837 import billing, professional, subscriber

READERS = Path(__file__).parents[2] / "node" / "ingest" / "readers"
ENVELOPE = {"ST-1", "ST-3", "GS-8"}  # what `x12.py` itself looks at


class Segment(list[str]):
    """A segment that notes which of its elements are looked at."""

    def __init__(self, text: str, seen: set[str]) -> None:
        super().__init__(text.split("*"))
        self._seen = seen

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            self._seen.add(f"{list.__getitem__(self, 0)}-*")
        elif isinstance(place, SupportsIndex) and int(place) != 0:
            self._seen.add(f"{list.__getitem__(self, 0)}-{int(place)}")
        return super().__getitem__(place)


def looked_at(reader: Claims | Members, segments: Iterator[str]) -> set[str]:
    seen: set[str] = set()
    for text in segments:
        reader.segment(Segment(text, seen))
    reader.end(truncated=False)
    return seen


CLAIM = (
    "BHT*0019*00*1*20240102*0930*CH", "CUR*85*USD", *billing(), *subscriber("M1"), "PAT*****D8*20240301",
    *professional("C1"), "AMT*F5*10", "LIN**N4*00002140180", "CTP****30*UN", "SVD*P*10*HC:99213**1",
    "CAS*PR*1*5*1", "DTP*472*RD8*20240101-20240102", "SBR*S*18", "AMT*D*20", "CAS*PR*2*5",
    "HL*3*2*23*0", "PAT*19", "NM1*QC*1*FAMILY*CHILD", "DMG*D8*20200102*M", *professional("C2"),
    "CLM*C3*200***11:A:1", "DTP*434*RD8*20240101-20240103", "DTP*435*DT*202401010900", "AMT*F5*10",
    "HI*BK:25000*BR:4513:D8:20240102*DR:470", "LX*1", "SV2*0450*HC:99283*150*UN*1", "SV3*AD:D0120*50****1",
)  # fmt: skip
MEMBER = (
    "BGN*00*1*20240102*0930", "N1*IN*INSURER*FI*123456789", "INS*Y*18*021*28*A***FT***D8*20240401",
    "REF*0F*S1", "NM1*IL*1*FAMILY*GIVEN****34*900112233", "DMG*D8*19700102*F", "HD*021**HLT*PLAN",
    "DTP*348*D8*20240101",
)  # fmt: skip


def x12_lines() -> set[str]:
    return {rule.field for rule in table() if rule.source is Source.X12 and rule.action is not Action.DROP}


def test_the_elements_that_the_x12_readers_look_at_are_those_of_the_table() -> None:
    number = itertools.count(1)
    claims = Claims(ClaimRows(), [], lambda: next(number), "005010X222A1", ":")
    members = Members(ClaimRows(), [], lambda: next(number))
    seen = looked_at(claims, iter(CLAIM)) | looked_at(members, iter(MEMBER))
    rules = rules_of(Source.X12)
    assert not {element for element in seen if element not in rules}
    assert len(seen) > 40
    never = {line for line in x12_lines() - ENVELOPE if line not in seen and not line.endswith("-*")}
    assert not never, "lines of the table that no reader looks at"


def test_a_reader_that_looked_at_a_street_would_be_found_out() -> None:
    assert "N3-1" not in rules_of(Source.X12)
    street = rules_of(Source.X12).of("N3.1")
    assert street is not None
    assert street.action is Action.DROP


class Row(dict[str, Any]):
    """A row that notes which of its fields are looked at."""

    def __init__(self, values: dict[str, Any], seen: set[str], path: str = "") -> None:
        super().__init__(values)
        self._seen, self._path = seen, path

    def __getitem__(self, name: str) -> Any:
        self._seen.add(self._path + name)
        value = super().__getitem__(name)
        return Row(value, self._seen, f"{self._path}{name}.") if isinstance(value, dict) else value

    def get(self, name: str, default: Any = None) -> Any:
        self._seen.add(self._path + name)
        return super().get(name, default)


def test_the_fields_that_the_fitbit_reader_looks_at_stand_in_the_table() -> None:
    seen: set[str] = set()
    when = "2024-01-02T03:04:05"
    samples: dict[str, dict[str, Any]] = {
        "heart_rate": {"dateTime": "01/02/24 03:04:05", "value": {"bpm": 60, "confidence": 2}},
        "steps": {"dateTime": "01/02/24 03:04:05", "value": "7"},
        "resting_heart_rate": {"dateTime": "01/02/24 00:00:00", "value": {"value": 55.0}},
        "sleep": {"logId": 1, "startTime": when, "endTime": "2024-01-02T09:04:05", "minutesAsleep": 300},
    }
    assert set(samples) == set(fitbit._JSON)
    for kind, (convert, _) in fitbit._JSON.items():
        assert convert(Rows(), 1, Row(samples[kind], seen)) is None
    for names, (convert, _) in fitbit._CSV.items():
        values = {
            name: "7" if name in ("Value", "Steps", "StepTotal", "value", "rmssd", "coverage", "Id",
                                  "daily_respiratory_rate") else when if name == "timestamp"
            else "1/2/2024 3:04:05 AM" for name in names
        }  # fmt: skip
        assert convert(Rows(), 1, Row(values, seen)) is None
    rules = rules_of(Source.WEARABLE)
    assert len(seen) > 12
    assert not {field for field in seen if field not in rules}


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("cgm.py", r"\A(?:Timestamp|Event|Glucose|Device|Record|Historic|Scan|Strip) [A-Z(][^.]*\Z"),
        ("apple_health_xml.py", r"\A(?:type|sourceName|device|unit|\w+Date|value|bpm|time|key)\Z"),
    ],
)  # fmt: skip
def test_the_names_that_the_readers_of_wearables_write_stand_in_the_table(file: str, pattern: str) -> None:
    named = {
        node.value
        for node in ast.walk(ast.parse((READERS / file).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(pattern, node.value)
    }
    assert len(named) > 5
    rules = rules_of(Source.WEARABLE)
    kinds = ("", "Record.", "MetadataEntry.", "InstantaneousBeatsPerMinute.")
    assert not {name for name in named if not any(kind + name in rules for kind in kinds)}


def test_attributes_of_apple_health_are_read_by_no_other_way_than_by_name() -> None:
    text = (READERS / "apple_health_xml.py").read_text()
    got = set(re.findall(r'(?:attributes\.get\(|written\()"(\w+)"', text))
    assert got == {
        "type", "sourceName", "device", "unit", "creationDate", "startDate", "endDate", "value", "bpm",
        "time", "key",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "action"),
    [
        ("NM1-9", Action.PSEUDONYM), ("DMG-2", Action.BIRTH), ("DTP-3", Action.DATE), ("NM1-3", Action.DROP),
    ],
)  # fmt: skip
def test_what_names_a_member_does_not_pass(field: str, action: Action) -> None:
    rule = rules_of(Source.X12).of(field)
    assert rule is not None
    assert rule.action is action


@pytest.mark.parametrize("field", ["N2-1", "NM1-5", "REF-3", "CLM-9"])
def test_an_element_that_nobody_named_is_not_in_the_table(field: str) -> None:
    assert field not in rules_of(Source.X12)


def test_names_serials_and_positions_of_wearables_do_not_pass() -> None:
    rules = rules_of(Source.WEARABLE)
    for field in ("Record.sourceName", "Record.device", "Patient Info", "Serial Number", "Location.latitude"):
        rule = rules.of(field)
        assert rule is not None
        assert rule.action is Action.DROP
    assert "Record.heartRateMotionContext" not in rules
