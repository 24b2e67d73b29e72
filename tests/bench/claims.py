"""How fast claims are read into facts: X12 837 (goal: 5,000 claims/s) beside splitting the same bytes."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from node.ingest.readers.x12 import X12
from tests.bench.figure import Figure
from tests.node.ingest.made_837 import many

GOAL_CLAIMS_PER_S = 5_000
LINES = 3


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield claims a second of processor time, and the ratio to Python's own splitting in the same run."""
    claims = 2_000 if quick else 20_000
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "many.x12"
        path.write_text(many(claims, lines=LINES))
        begin = time.process_time()
        records = sum(batch.records for batch in X12().read(path, batch_records=5_000))
        seconds = time.process_time() - begin
        assert records == claims
        begin = time.process_time()
        segments = [segment.split("*") for segment in path.read_text().split("~")]
        split_s = time.process_time() - begin
        assert len(segments) > claims
    rate = claims / seconds
    yield Figure("X12 837P of 3 lines, to facts", rate, "claims/s", GOAL_CLAIMS_PER_S, "goal")
    yield Figure(
        "X12 837P of 3 lines, to facts", rate, "claims/s", claims / split_s, "splitting the segments"
    )
