"""How fast a phone's export comes in: read alone, and with raw samples stored and their windows summarized.

The goal is for reading (50,000 records/s). The baseline of a parse is expat alone, with a handler that does
nothing: the floor of any reader of XML in Python.
"""

import tempfile
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from xml.parsers import expat

from deid.vault import PseudonymKey, Vault
from node.ingest.readers.apple_health import AppleHealth
from node.signals.belonging import Whose
from node.signals.intake import SignalFacts
from node.signals.raw import RawSamples
from privacy.rng import SecureBits
from tests.bench.figure import Figure

GOAL_RECORDS_PER_S = 50_000


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield records a second: expat alone, read, and stored with summaries."""
    records = 50_000 if quick else 500_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = _export(folder / "export.xml", records)
        begin = time.perf_counter()
        parser = expat.ParserCreate()
        parser.StartElementHandler = lambda element, attributes: None
        with path.open("rb") as file:
            parser.ParseFile(file)
        bare = records / (time.perf_counter() - begin)
        begin = time.perf_counter()
        found = sum(len(batch.samples) for batch in AppleHealth().samples(path, batch_records=20_000))
        rate = records / (time.perf_counter() - begin)
        assert found == records
        yield Figure("apple health, read, against expat alone", rate, "records/s", bare, "expat alone")
        yield Figure("apple health, read", rate, "records/s", GOAL_RECORDS_PER_S, "goal")
        vault = Vault.open(
            folder / "vault.sqlite", key=PseudonymKey(b"bench only " + bytes(21)), bits=SecureBits()
        )
        reader = SignalFacts(
            AppleHealth(),
            raw=RawSamples(folder / "signals"),
            vault=vault,
            whose=lambda _: Whose("one", "mrn", None),
        )
        begin = time.perf_counter()
        facts = sum(len(batch.facts) for batch in reader.read(path, batch_records=20_000))
        rate = records / (time.perf_counter() - begin)
        assert facts
        assert reader.added == records
        yield Figure("apple health, stored and summarized", rate, "records/s", bare, "expat alone")


def _export(path: Path, records: int) -> Path:
    """A watch's heart rate every half minute: the densest that people have for months."""
    begin = datetime(2020, 1, 1)
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<HealthData locale="en_US">\n')
        for number in range(records):
            at = f"{begin + timedelta(seconds=30 * number):%Y-%m-%d %H:%M:%S} +0100"
            file.write(
                ' <Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Watch" sourceVersion="7.1"'
                ' device="&lt;&lt;HKDevice: 0x28&gt;, name:Apple Watch, model:Watch&gt;" unit="count/min"'
                f' creationDate="{at}" startDate="{at}" endDate="{at}" value="{60 + number % 40}"/>\n'
            )
        file.write("</HealthData>\n")
    return path
