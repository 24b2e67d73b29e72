"""How fast a phone's export comes in: read alone, and with raw samples stored and their windows summarized.

Rates are per second of processor time (others may use the machine); `elapsed` is by the clock on the wall,
disk and all. The baseline of a parse is expat alone, with a handler that does nothing: the floor of any
reader of XML in Python that makes a call for each element.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from xml.parsers import expat

import numpy as np

from deid.vault import PseudonymKey, Vault
from node.ingest.readers.apple_health import AppleHealth
from node.signals.belonging import Whose
from node.signals.intake import SignalFacts
from node.signals.raw import RawSamples
from privacy.rng import SecureBits
from tests.bench.figure import Figure

GOAL_RECORDS_PER_S = 50_000
BATCH = 20_000


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield records a second: expat alone, read, and stored with summaries."""
    records = 50_000 if quick else 500_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, made in (("a watch's heart rate", _dense), ("five kinds of records", _mixed)):
            path = _export(folder / "export.xml", made(records))
            bare, _ = _rates(records, lambda path=path: _bare(path))  # type: ignore[misc]
            read, _ = _rates(records, lambda path=path: _read(path, records))  # type: ignore[misc]
            yield Figure(f"apple health, {label}, read", read, "records/s", bare, "expat alone")
            ward = folder / label.replace(" ", "-")
            stored, elapsed = _rates(records, lambda path=path, ward=ward: _stored(path, ward, records))  # type: ignore[misc]
            yield Figure(
                f"apple health, {label}, stored and summarized", stored, "records/s", bare, "expat alone"
            )
            yield Figure(
                f"apple health, {label}, stored and summarized",
                stored,
                "records/s",
                GOAL_RECORDS_PER_S,
                "goal",
            )
            yield Figure(f"apple health, {label}, elapsed", elapsed, "records/s", GOAL_RECORDS_PER_S, "goal")


def _rates(records: int, work: Callable[[], None]) -> tuple[float, float]:
    """Records per second of processor time, and of the clock."""
    begin = time.process_time(), time.perf_counter()
    work()
    return records / (time.process_time() - begin[0]), records / (time.perf_counter() - begin[1])


def _bare(path: Path) -> None:
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda element, attributes: None
    with path.open("rb") as file:
        parser.ParseFile(file)


def _read(path: Path, records: int) -> None:
    assert sum(len(batch.samples) for batch in AppleHealth().samples(path, batch_records=BATCH)) == records


def _stored(path: Path, folder: Path, records: int) -> None:
    folder.mkdir()
    key = PseudonymKey(b"bench only " + bytes(21))
    vault = Vault.open(folder / "vault.sqlite", key=key, bits=SecureBits())
    raw = RawSamples(folder / "signals")
    reader = SignalFacts(AppleHealth(), raw=raw, vault=vault, whose=lambda _: Whose("one", "mrn", None))
    assert sum(len(batch.facts) for batch in reader.read(path, batch_records=BATCH))
    assert reader.added == records


def _dense(records: int) -> Iterator[str]:
    """A heart rate every half minute: the densest that people have for months."""
    begin = datetime(2020, 1, 1)
    for number in range(records):
        yield _record(
            "HeartRate", "count/min", begin + timedelta(seconds=30 * number), 0, str(60 + number % 40)
        )


def _mixed(records: int) -> Iterator[str]:
    """What a watch writes in a year and a half: kind after kind, of some with metadata, some 800 a day."""
    rng = np.random.default_rng(5)
    still = '>\n  <MetadataEntry key="HKMetadataKeyHeartRateMotionContext" value="1"/>\n </Record>'
    kinds = (
        ("HeartRate", "count/min", 0, still),
        ("StepCount", "count", 300, "/>"),
        ("DistanceWalkingRunning", "km", 300, "/>"),
        ("ActiveEnergyBurned", "kcal", 60, "/>"),
        ("BasalEnergyBurned", "kcal", 600, "/>"),
    )  # fmt: skip
    each = records // len(kinds)
    for kind, unit, seconds, end in kinds:
        moments = np.sort(rng.choice(records // 800 * 86_400, each, replace=False)).tolist()
        for moment in moments:
            start = datetime(2020, 1, 1) + timedelta(seconds=moment)
            yield _record(kind, unit, start, seconds, f"{rng.uniform(30, 120):.2f}", end)


def _record(kind: str, unit: str, start: datetime, seconds: int, value: str, end: str = "/>") -> str:
    at, until = (f"{start + timedelta(seconds=more):%Y-%m-%d %H:%M:%S} +0100" for more in (0, seconds))
    return (
        f' <Record type="HKQuantityTypeIdentifier{kind}" sourceName="Watch" sourceVersion="7.1"'
        ' device="&lt;&lt;HKDevice: 0x28&gt;, name:Apple Watch, model:Watch&gt;"'
        f' unit="{unit}" creationDate="{until}" startDate="{at}" endDate="{until}" value="{value}"{end}\n'
    )


def _export(path: Path, records: Iterator[str]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<HealthData locale="en_US">\n')
        file.writelines(records)
        file.write("</HealthData>\n")
    return path
