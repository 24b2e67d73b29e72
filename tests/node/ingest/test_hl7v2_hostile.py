"""Damaged HL7 v2: every record ends as facts or turned away; nothing crashes, hangs or leaks."""

import logging
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ingest.errors import UnreadableSource
from node.ingest.readers import hl7v2_people, hl7v2_times, hl7v2_types, hl7v2_values
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_messages import HANDLERS, facts_of
from node.ingest.readers.hl7v2_record import cells, table
from tests.bench.hl7v2_messages import oru
from tests.node.ingest.hl7v2_made import PID, PV1, accounted, message, read_file

SECRET = "Zebrowska"
SEEDS = [
    message(
        "ADT^A01",
        "EVN|A01|20200501",
        PID.replace("Doe", SECRET),
        PV1,
        "AL1|1|DA|1191^Aspirin^RXNORM|SV|hives|2015",
    ),
    message("ADT^A40", PID.replace("Doe", SECRET), "MRG|M2^^^GHH^MR"),
    message(
        "MDM^T02",
        PID.replace("Doe", SECRET),
        "TXA|1|DS|TX|20200502||||||||D1",
        f"OBX|1|TX|1||{SECRET} fell||||||F",
    ),
    message("VXU^V04", PID, "ORC|RE||F1", "RXA|0|1|20150624||88^flu^CVX|0.5|mL||00|||||||||||CP|A", "RXR|IM"),
    message(
        "RDE^O11",
        PID,
        "ORC|NW|P1|F1",
        "RXE|^^D10^20200501|1^A^NDC|5||mg|TAB||||30|TAB|2",
        "TQ1|1||||||20200601",
    ),
    message(
        "ORU^R01",
        PID,
        "OBR|1||F1|1^a^LN|||20200501",
        "OBX|1|SN|1^a^LN||<^5|mg/dL|1-3|H|||F",
        "NTE|1||old",
        "ZZZ|1",
    ),
    oru(5),
]
PIECES = [
    *(b"\x00", b"\xff\xfe", b"\x1c\r", b"\x0b", b"MSH|", b"MSH|^~\\&|", b"\rPID|", b"^^^^^", b"&&&", b"~~~~"),
    *(
        b"|" * 300,
        b"\\X",
        b"\\.sp99999\\",
        b"\\" * 50,
        b'""',
        b"99999999999999999999",
        b"-1",
        b"1e308",
        b"nan",
    ),
    *(b"20209999", b"\r\n\r\n", b"BTS|9\r", b"FHS|^~\\&\r", "Ü€漢".encode(), "Ü".encode("latin-1"), b"%s%n"),
    *(b"../../etc/passwd", b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"' OR 1=1 --", b"9" * 5000, b"\x1b$B"),
    *(b"\r" * 40, b"\xed\xa0\x80"),
]
MUTATIONS = 3000


def mutated(rng: np.random.Generator) -> bytes:
    data = bytearray(b"".join(SEEDS[int(i)] for i in rng.integers(0, len(SEEDS), int(rng.integers(1, 4)))))
    for _ in range(int(rng.integers(1, 6))):
        at, kind = int(rng.integers(0, len(data) or 1)), int(rng.integers(0, 6))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 40))]
        elif kind == 2:
            data[at:at] = PIECES[int(rng.integers(0, len(PIECES)))]
        elif kind == 3 and data:
            data[at] = int(rng.integers(0, 256))
        elif kind == 4:
            data[at:at] = data[at // 2 : at]
        else:
            old, new = b"|^~\\&\r"[int(rng.integers(0, 6))], int(rng.integers(1, 127))
            data = bytearray(bytes(data).replace(bytes([old]), bytes([new])))
    return bytes(data)


def test_mutated_files_end_in_facts_or_in_quarantine(tmp_path, caplog):
    rng = np.random.default_rng(42)
    found: Counter[str] = Counter()
    said: list[str] = []
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "mutated.hl7"
    began = time.process_time()
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(rng))
        try:
            rows, turned_away, records = read_file(path)
        except UnreadableSource as error:
            found["unreadable"] += 1
            said.append(str(error))
            continue
        assert accounted(rows, turned_away, records)
        for note in turned_away:
            assert note.reason in reasons.ALL
            assert SECRET not in note.field
            found[note.reason] += note.whole_record
        found["facts"] += bool(rows)
    assert reasons.FAULT not in found
    assert SECRET not in "".join(said)
    assert time.process_time() - began < 120
    assert min(found["facts"], found["unreadable"]) > MUTATIONS / 50
    for reason in ("nul-byte", "encoding", "delimiters", "no-patient", "not-a-message", "duplicate"):
        assert found[reason] > 0, reason
    assert not caplog.records


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_after_a_header_are_accounted_for(tail):
    rows, turned_away = facts_of(b"MSH|^~\\&|A|B|C|D|20200101||ORU^R01|1|P|2.5\rPID|||M1\r" + tail, 1)
    whole = [note for note in turned_away if note.whole_record]
    assert len(whole) == (0 if rows else 1)
    assert all(note.reason != reasons.FAULT for note in turned_away)
    table(cells(rows)).validate(full=True)


SEGMENTS = sorted(set(HANDLERS) | {"TXA", "ZAA"})
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEGMENTS),
    st.lists(
        st.one_of(FIELDS, st.sampled_from(["20200501", "1^a^LN", "5", "NM", "F", '""', "a&b~c^d"])),
        max_size=25,
    ),
    st.sampled_from(["ADT^A01", "ADT^A40", "ORU^R01", "MDM^T02", "RDE^O11", "VXU^V04", "PPR^PC1"]),
)
def test_any_fields_of_any_segment_are_accounted_for(name, fields, kind):
    rows, turned_away = facts_of(message(kind, PID, "|".join([name, *fields])), 1)
    assert [note.reason for note in turned_away if note.whole_record] in ([], ["no-content"], ["no-patient"])
    assert all(note.reason in reasons.ALL and note.reason != reasons.FAULT for note in turned_away)
    table(cells(rows)).validate(full=True)


@pytest.mark.parametrize(
    "data",
    [
        message("ORU^R01", PID, "OBX|1|NM|1^a||" + "~".join(["5"] * 20_000)),
        message("ORU^R01", PID, "OBX|1|TX|1^a||" + "\\" * 200_000),
        message("ORU^R01", PID, "OBX|1|TX|1^a||" + "\\X41\\" * 50_000),
        message("ORU^R01", PID, *["OBX|1|TX|1^a||line||||||F"] * 20_000),
        message("ORU^R01", PID, *["Z|1"] * 20_000),
        message("ORU^R01", PID, "OBX|1|NM|" + "^" * 200_000),
        message("ORU^R01", PID, "OBX|1|NM|1^a||5||" + "1" * 100_000 + "-"),
        message("ADT^A40", *([PID, "MRG|M2"] * 20_000)),
        message("ORU^R01", PID, "OBX|1|TX|1^a||x", *["y"] * 500_000),
    ],
    ids=[
        "repetitions",
        "escapes",
        "hexadecimals",
        "lines",
        "local",
        "components",
        "range",
        "merges",
        "no segments",
    ],
)
def test_a_message_made_to_be_slow_is_not(data):
    began = time.process_time()
    facts_of(data, 1)
    assert time.process_time() - began < 5


def test_content_does_not_reach_logs_or_errors(tmp_path: Path, caplog):
    caplog.set_level(logging.DEBUG)
    data = message("ADT^A01", f"PID|1||M1^^^G^MR||{SECRET}||{SECRET}|{SECRET}", f"PV1|1|{SECRET}|{SECRET}")
    path = tmp_path / "x.hl7"
    path.write_bytes(data + data.replace(b"|2.5|", b"|" + SECRET.encode() + b"|"))
    _, turned_away, _ = read_file(path)
    assert {(note.field, note.reason) for note in turned_away} >= {
        ("PID-7", "bad-time"),
        ("MSH-12", "version"),
    }
    assert SECRET not in repr(turned_away)
    assert SECRET not in caplog.text


def test_long_fields_are_read_and_not_remembered():
    caches = (hl7v2_types._concept, hl7v2_types._identifier, hl7v2_types._unit, hl7v2_values._form)
    caches += (hl7v2_people._who_of, hl7v2_times._moment, hl7v2_types._range)
    facts_of(message("ORU^R01", PID, "OBX|1|CWE|short^a^LN||v^w^L|kg|1-2||||F"), 1)
    before = [cache.cache_info().currsize for cache in caches]
    long = "x" * 100_000
    rows, _ = facts_of(
        message(
            "ORU^R01", f"PID|1||{long}^^^GHH^MR||Doe||19610615{long}|F",
            f"OBX|1|CWE|{long}^a^LN||{long}^w^L|kg|1-2||||F",
            f"OBX|2|NM|1^a^LN||5|{long}|{long}||||F|||{long}",
        ), 1,
    )  # fmt: skip
    assert len(rows) == 3
    assert rows[0]["patient"] == long
    after = [cache.cache_info().currsize for cache in caches]
    assert sum(after) <= sum(before) + 2  # "kg" and "1^a^LN", which are short
