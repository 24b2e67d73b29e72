"""What the pattern for plain records takes from an Apple Health export is what expat takes from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.readers import apple_health_xml
from node.ingest.readers.apple_health import AppleHealth
from tests.node.signals.made_signals import export, hearts, record
from tests.node.signals.test_signal_readers import read, write


def mixed_export(rng: np.random.Generator) -> bytes:
    """An export in which plain stretches and everything else take turns."""
    inner = (
        "",
        '\n <MetadataEntry key="HKMetadataKeyHeartRateMotionContext" value="0"/>\n',
        '<MetadataEntry key="HKWasUserEntered" value="1"/>',
        '<HeartRateVariabilityMetadataList><InstantaneousBeatsPerMinute bpm="61" time="10:00:01,20"/>'
        "</HeartRateVariabilityMetadataList>",
    )
    others = (
        '<Workout a="b"><MetadataEntry key="k" value="v"/></Workout>\n',
        f"<Correlation>{record('BodyMass', '2024-03-01 10:00:00 +0100', 82, unit='kg')}</Correlation>",
        "<Record type='HKQuantityTypeIdentifierStepCount' sourceName='it&apos;s &#97; \"phone\"' unit='count'"
        " startDate='2024-03-01 10:00:00 +0100' endDate='2024-03-01 10:10:00 +0100' value='7'/>",
        '<Record\n type="HKQuantityTypeIdentifierHeartRate" value="" startDate="2024-03-01 10:00:00 +0100"/>',
        '<Record type="x" sourceName="&amp;amp;" startDate="" endDate=""/>\r\n',
    )  # fmt: skip
    kinds = (
        ("HeartRate", "count/min"),
        ("StepCount", "count"),
        ("BloodGlucose", "mmol&lt;180.1558800000541&gt;/L"),
    )
    elements = []
    plain = True
    for _ in range(3_000):
        if rng.random() < 0.01:
            plain = not plain
        if not plain and rng.random() < 0.3:
            elements.append(others[int(rng.integers(len(others)))])
            continue
        kind, unit = kinds[int(rng.integers(3))]
        start = f"2024-03-01 {int(rng.integers(24)):02d}:{int(rng.integers(60)):02d}:00 +0100"
        which = int(rng.integers(2 if plain else 4))
        value = ("60", "7.5", "x")[int(rng.choice(3, p=[0.5, 0.49, 0.01]))]
        elements.append(record(kind, start, value, unit=unit, inner=inner[which]))
    return export(*elements)


@pytest.mark.parametrize("seed", range(3))
def test_what_the_pattern_takes_is_what_expat_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("node.ingest.readers.apple_health_xml.CHUNK", 4_000)
    path = write(tmp_path / "export.xml", mixed_export(np.random.default_rng(seed)))
    taken = []

    def counted(stretch: bytes, pattern: Any = apple_health_xml._whole_records) -> Any:
        found = pattern(stretch)
        taken.append(0 if found is None else len(found))
        return found

    monkeypatch.setattr(apple_health_xml, "_whole_records", counted)
    by_pattern = read(AppleHealth(), path)
    assert sum(taken) > 500, "the pattern took part"
    assert taken.count(0) > 20, "and so did expat"
    monkeypatch.setattr(apple_health_xml, "_whole_records", lambda stretch: None)
    assert by_pattern == read(AppleHealth(), path)
    assert by_pattern[1].total() > 20


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<!-- ", " -->"),
        ("<Me><![CDATA[", "]]></Me>"),
        ("<?note ", "?>"),
    ],
)
def test_what_is_commented_out_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    monkeypatch.setattr("node.ingest.readers.apple_health_xml.CHUNK", 500)
    some = hearts("2024-03-01", [(f"10:{minute:02d}:00", 60) for minute in range(20)])
    path = write(tmp_path / "export.xml", export(*some, before, *some, after, *some))
    assert len(read(AppleHealth(), path)[0]) == 40


@pytest.mark.parametrize(
    "wrong",
    [
        '<Record type="a" sourceName="b" startDate="" endDate="" endDate=""/>',
        '<Record type="a" sourceName="&b;" startDate="" endDate=""/>',
        '<Record type="a" sourceName="b & c" startDate="" endDate=""/>',
        '<Record type="a" sourceName="b" startDate="" endDate=""></Workout>',
        '<Record type="a" sourceName="b" startDate="" endDate="">',
        '<Record type="a" sourceName="\x01" startDate="" endDate=""/>',
        '<Record type="a" sourceName="\ufffe" startDate="" endDate=""/>',
        "</HealthData>",
    ],
)
def test_records_that_are_no_xml_are_an_error(tmp_path: Path, wrong: str) -> None:
    some = hearts("2024-03-01", [("10:00:00", 60)] * 3)
    with pytest.raises(UnreadableSource, match="not XML"):
        read(AppleHealth(), write(tmp_path / "export.xml", export(*some, wrong, *some)))
    broken = export(*some, "BREAK", *some).replace(
        b"BREAK", b'<Record type="a" sourceName="\xe8" startDate="" endDate=""/>'
    )
    with pytest.raises(UnreadableSource, match="not XML"):
        read(AppleHealth(), write(tmp_path / "export.xml", broken))
