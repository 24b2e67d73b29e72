"""How fast FHIR Observations are read into facts (goal: 60,000 a second of one core), and in what memory.

Beside it, in the same run and per resource: decoding the same lines alone, and DuckDB's own JSON reader for
seven fields. Processor time, since other work on the machine is not the reader's.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import msgspec

from node.ingest.readers.fhir import FhirReader
from node.ingest.readers.fhir_observations import Observation
from tests.bench.figure import Figure
from tests.node.ingest.fhir_resources import LOINC, concept, observation, quantity

GOAL_FACTS_PER_S = 60_000
MEMORY_GOAL_MB = 2_000
_COLUMNS = """{id: 'VARCHAR', status: 'VARCHAR', effectiveDateTime: 'VARCHAR',
 subject: 'STRUCT(reference VARCHAR)', encounter: 'STRUCT(reference VARCHAR)',
 code: 'STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[])',
 valueQuantity: 'STRUCT("value" DOUBLE, code VARCHAR)'}"""
_PEAK = """
import resource, sys
from pathlib import Path
from node.ingest.readers.fhir import FhirReader
for batch in FhirReader().read(Path(sys.argv[1]), batch_records=20_000):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def lines(resources: int) -> Iterable[bytes]:
    """Yield Observations as a hospital has them: mostly one value, one in five of two components."""
    pressure = [
        {"code": concept(code, LOINC), "valueQuantity": quantity(100, "mm[Hg]")}
        for code in ("8480-6", "8462-4")
    ]
    for i in range(resources):
        month, day = i // 11 % 12 + 1, i % 28 + 1
        made = observation(
            id=f"o{i}",
            meta={"lastUpdated": "2023-05-01T10:00:00.000Z"},
            subject={"reference": f"Patient/p{i // 500}"},
            encounter={"reference": f"Encounter/e{i // 20}"},
            code=concept(f"{i % 5000}-{i % 9}", LOINC, "A result"),
            effectiveDateTime=f"20{i // 37 % 24:02d}-{month:02d}-{day:02d}T{i % 24:02d}:12:01-05:00",
            issued="2023-05-01T10:00:00.000Z",
            valueQuantity=None if i % 5 == 4 else quantity(i % 1000 / 10, "mg/dL"),
            component=pressure if i % 5 == 4 else None,
            referenceRange=[{"low": quantity(1, "mg/dL"), "high": quantity(5, "mg/dL")}] if i % 2 else None,
        )
        yield json.dumps(made).encode() + b"\n"


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield facts/s against the goal, resources/s against two bare readings, and the peak of memory."""
    resources = 20_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "Observation.000.ndjson"
        path.write_bytes(b"".join(lines(resources)))
        facts = 0

        def read() -> None:
            nonlocal facts
            facts = sum(b.facts.num_rows for b in FhirReader().read(path, batch_records=20_000))

        decoder = msgspec.json.Decoder(Observation)

        def decode() -> None:
            for line in path.read_bytes().splitlines():
                decoder.decode(line)

        def duck() -> None:
            with duckdb.connect(config={"threads": "1"}) as con:
                con.execute(
                    f"FROM read_json('{path}', format = 'newline_delimited', columns = {_COLUMNS})"
                ).to_arrow_table()

        seconds, decoding_s, duck_s = best(read), best(decode), best(duck)
        yield Figure("FHIR Observations to facts", facts / seconds, "facts/s", GOAL_FACTS_PER_S, "goal")
        rate = resources / seconds
        yield Figure(
            "FHIR Observations to facts", rate, "resources/s", resources / decoding_s, "decoding alone"
        )
        yield Figure(
            "FHIR Observations to facts", rate, "resources/s", resources / duck_s, "DuckDB, 7 fields"
        )
        if not quick:
            with path.open("ab") as stream:
                for _ in range(9):
                    stream.write(b"".join(lines(resources)))
        size_mb = path.stat().st_size / 1e6
        said = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, check=True)
        yield Figure(
            f"memory for {size_mb:.0f} MB of ndjson",
            float(said.stdout),
            "MB",
            MEMORY_GOAL_MB,
            "goal for 5 GB",
        )


def best(work: Callable[[], None]) -> float:
    """Return the least processor time of three."""
    taken = []
    for _ in range(3):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)
