"""Damaged HL7 v2 on its whole way into a store: each file is stored, quarantined or named unreadable."""

import logging
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.ingest.readers import hl7v2_reasons
from node.omop import starter
from node.omop.store import OmopStore
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from tests.node.ingest.hl7v2_made import PID, PV1, message
from tests.node.ingest.test_hl7v2_hostile import PIECES, SECRET, SEEDS

HARMONIZERS = {"missing-patient", "missing-date", "implausible-date", "status", "withdrawn", "text-withheld"}
HARMONIZERS |= {"implausible-birth", "missing-target", "no-table"}
NAMED = PID.replace("Doe", SECRET)
MORE = [
    message("DFT^P03", NAMED, PV1, f"FT1|1|7||20200502||CG|X^{SECRET}^L||||9&USD", "PR1|1||1^a^C4||20200502"),
    message("ADT^A45", NAMED, "MRG|M9^^^GHH^MR||||V0", PV1, f"IN1|1|P^{SECRET}|1|Payer||||||||20200101"),
    message("OML^O21", NAMED, "ORC|NW|P1", "OBR|1|P1||1^a^LN", f"NTE|1||{SECRET} asked"),
    message("PPR^PC1", NAMED, f"PRB|AD|20200101|I10^{SECRET}^I10|7"),
    b"FHS|^~\\&|A\rBHS|^~\\&|B\r" + message("ADT^A28", NAMED) + b"BTS|1\rFTS|1\r",
]
WRONG = [
    *(
        b"20201332256199",
        b"+9999",
        b"-00000001",
        b"1,5",
        b"5 mg/dL",
        b"\xc3\x28",
        b"\xff\xfe\x00A",
        b"\xa4\xdf",
    ),
    *(b"~" * 3000, b"^" * 3000, b"&" * 3000, b"\\.br\\" * 300, b"\\Xzz\\", b"\\X" + b"4" * 399 + b"\\"),
    *(b"FHS|^~\\&\rBHS|^~\\&\r", b"BTS|999999999\r", b"BHS|^~\\&\rBHS|^~\\&\r", b"\x1c\r\x0b\x0b\x1c\r"),
    *(b"ISO IR87", b"|||||||||||||||||UNICODE UTF-16", b"KLINGON", b'""', b"\r\rOBX\rOBX|\rOBX||||\r"),
]
CHARSETS = ("utf-8", "utf-16", "latin-1", "cp1252", "shift_jis", "utf-7")


def damaged(rng: np.random.Generator) -> bytes:
    """One to four messages, damaged in one to eight ways."""
    seeds = [*SEEDS, *MORE]
    data = bytearray(b"".join(seeds[int(i)] for i in rng.integers(0, len(seeds), int(rng.integers(1, 5)))))
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(0, len(data) or 1))
        match int(rng.integers(0, 8)):
            case 0:
                del data[max(at, 9) :]
            case 1:
                del data[at : at + int(rng.integers(1, 60))]
            case 2:
                data[at:at] = (*PIECES, *WRONG)[int(rng.integers(0, len(PIECES) + len(WRONG)))]
            case 3 if data:
                data[at] = int(rng.integers(0, 256))
            case 4:
                data[at:at] = data[at // 2 : at]
            case 5:  # a field becomes another: a name where a date stood
                fields = bytes(data).split(b"|")
                one, other = (int(i) for i in rng.integers(0, len(fields), 2))
                fields[one] = fields[other]
                data = bytearray(b"|".join(fields))
            case 6:  # its segments in another order
                segments = bytes(data).split(b"\r")
                data = bytearray(b"\r".join(segments[int(i)] for i in rng.permutation(len(segments))))
            case _:
                text = bytes(data).decode("latin-1")
                data = bytearray(text.encode(CHARSETS[int(rng.integers(0, len(CHARSETS)))], "replace"))
    return bytes(data)


@pytest.mark.parametrize(
    ("seed", "files"),
    [(7, 40), *(pytest.param(seed, 100, marks=pytest.mark.slow) for seed in range(100, 115))],
)
def test_damaged_files_are_stored_or_quarantined_and_tell_nobody_of_whom(tmp_path: Path, caplog, seed, files):
    rng = np.random.default_rng(seed)
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "given"
    folder.mkdir()
    for number in range(files):
        (folder / f"messages{number}.hl7").write_bytes(damaged(rng))
    bare = {path.name for path in folder.iterdir() if b"MSH" not in path.read_bytes()}  # an envelope alone
    began = time.process_time()
    vault = Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SecureBits())
    with closing(vault), OmopStore.open(tmp_path / "omop.duckdb") as store:
        starter.ensure(store, now=SystemClock().now())
        report = Pipeline(store, vault, SystemClock()).ingest([folder])
        con = store.connection.con
        notes = con.execute("SELECT source_name, field, reason FROM fedtwin_quarantine").fetchall()
        persons = con.execute("SELECT person_id FROM person").fetchall()
    found: Counter[str] = Counter()
    for source in report.sources:
        assert source.records_in == source.stored + source.quarantined, source.source
        assert source.unreadable or source.records_in or source.source in bare, source.source
        found["stored"] += source.stored
        found["quarantined"] += source.quarantined
    assert len(report.sources) + len(report.without_reader) == files  # those that no longer begin like HL7
    reasons = {reason for _, _, reason in notes}
    assert hl7v2_reasons.FAULT not in reasons
    assert reasons <= hl7v2_reasons.ALL | HARMONIZERS
    assert SECRET not in repr(report)
    assert SECRET not in repr(notes)
    assert SECRET not in caplog.text
    assert min(found["stored"], found["quarantined"]) > files / 4
    assert persons
    assert len(reasons) > 8
    assert time.process_time() - began < 2 * files
