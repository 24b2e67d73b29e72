"""How fast claims are read into facts, of X12 837 and of CMS (goal: 5,000/s), beside splitting the bytes."""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from node.ingest.readers.claims_csv import ClaimsCsv
from node.ingest.readers.x12 import X12
from tests.bench.figure import Figure
from tests.node.ingest.made_837 import many

GOAL_CLAIMS_PER_S = 5_000
LINES = 3
CODES = ("4019", "25000", "V5861", "42731", "2724")


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield claims a second of processor time, and the ratio to Python's own splitting in the same run."""
    claims = 2_000 if quick else 20_000
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "many.x12"
        path.write_text(many(claims, lines=LINES))
        rate = _rate(claims, lambda: sum(batch.records for batch in X12().read(path, batch_records=5_000)))
        split = _rate(claims, lambda: len([s.split("*") for s in path.read_text().split("~")]) and claims)
        yield Figure("X12 837P of 3 lines, to facts", rate, "claims/s", GOAL_CLAIMS_PER_S, "goal")
        yield Figure("X12 837P of 3 lines, to facts", rate, "claims/s", split, "splitting the segments")
        path = Path(name) / "DE1_0_2008_to_2010_Outpatient_Claims_Sample_0.csv"
        path.write_text("\n".join(_outpatient(claims)) + "\n")
        rate = _rate(
            claims, lambda: sum(batch.records for batch in ClaimsCsv().read(path, batch_records=5_000))
        )
        split = _rate(claims, lambda: len([s.split(",") for s in path.read_text().split("\n")]) and claims)
        label = "DE-SynPUF outpatient claims of 3 diagnoses and 2 procedures, to facts"
        yield Figure(label, rate, "claims/s", GOAL_CLAIMS_PER_S, "goal")
        yield Figure(label, rate, "claims/s", split, "splitting the lines")


def _rate(claims: int, work: Callable[[], int]) -> float:
    begin = time.process_time()
    assert work() == claims
    return claims / (time.process_time() - begin)


def _outpatient(claims: int) -> Iterable[str]:
    """Lines as CMS publishes them: 76 columns, most of them empty."""
    diagnoses = [f"ICD9_DGNS_CD_{number}" for number in range(1, 11)]
    procedures = [f"ICD9_PRCDR_CD_{number}" for number in range(1, 7)]
    services = [f"HCPCS_CD_{number}" for number in range(1, 46)]
    head = ["DESYNPUF_ID", "CLM_ID", "SEGMENT", "CLM_FROM_DT", "CLM_THRU_DT", "PRVDR_NUM", "CLM_PMT_AMT",
            "NCH_PRMRY_PYR_CLM_PD_AMT", "AT_PHYSN_NPI", "OP_PHYSN_NPI", "OT_PHYSN_NPI",
            "NCH_BENE_BLOOD_DDCTBL_LBLTY_AM"]  # fmt: skip
    tail = ["NCH_BENE_PTB_DDCTBL_AMT", "NCH_BENE_PTB_COINSRNC_AMT", "ADMTNG_ICD9_DGNS_CD"]
    yield ",".join((*head, *diagnoses, *procedures, *tail, *services))
    for number in range(claims):
        day = f"2009{number % 12 + 1:02d}{number % 28 + 1:02d}"
        first = [f"{number % 5_000:016X}", str(542_000_000_000 + number), "1", day, day, "2600GD", "50.00",
                 "0.00", "4824842417", "", "", "0.00"]  # fmt: skip
        said = [CODES[(number + place) % len(CODES)] for place in range(3)]
        done = [f"{99_211 + number % 5}", "85610"]
        yield ",".join((*first, *said, *[""] * 7, *[""] * 6, "0.00", "10.00", "", *done, *[""] * 43))
