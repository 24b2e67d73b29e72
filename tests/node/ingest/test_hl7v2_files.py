"""HL7 v2 files: how many messages stand in one, how they are parted, and what the samples hold."""

import io
from collections import Counter
from pathlib import Path

import pytest

from node.ingest.errors import UnreadableSource
from node.ingest.facts import Reader
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2 import Hl7v2Reader
from node.ingest.readers.hl7v2_files import pieces
from tests.bench.hl7v2_messages import oru
from tests.node.ingest.hl7v2_made import PID, accounted, message, read_file

BHS = b"BHS|^~\\&|A|B\r"


def admitted(number: int) -> bytes:
    return message("ADT^A28", PID.replace("M1", f"M{number}"))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "messages.hl7"
    path.write_bytes(data)
    return path


THREE = [admitted(1), admitted(2), admitted(3)]


@pytest.mark.parametrize(
    "data",
    [
        b"".join(THREE),
        b"\r\n".join(THREE),
        b"\n\n".join(THREE).replace(b"\r", b"\n"),
        b"".join(THREE).replace(b"\r", b"\r\n"),
        b"\xef\xbb\xbf" + b"\xef\xbb\xbf".join(THREE),
        b"".join(b"\x0b" + one + b"\x1c\r" for one in THREE),
        b"".join(b"\x0b" + one.replace(b"\r", b"\n") + b"\x1c\n" for one in THREE),
        b"".join(b"\x0b" + one.rstrip(b"\r") + b"\x1c\r" for one in THREE),
        b"FHS|^~\\&|A\r" + BHS + b"".join(THREE) + b"BTS|3|ok\rFTS|1\r",
        BHS + THREE[0] + b"BTS|1\r" + BHS + THREE[1] + THREE[2] + b"BTS|2",
        BHS + b"".join(THREE) + b"BTS\r",
        b"   " + b"".join(THREE),
    ],
)
def test_messages_are_found_however_they_are_parted(tmp_path, data):
    rows, turned_away, records = read_file(written(tmp_path, data))
    assert [row["patient"] for row in rows] == ["M1", "M2", "M3"]
    assert [row["record"] for row in rows] == [1, 2, 3]
    assert (turned_away, records) == ([], 3)


def test_it_is_a_reader_and_knows_its_files(tmp_path):
    reader: Reader = Hl7v2Reader()
    assert (reader.name, reader.version) == ("hl7v2", "3")
    assert Hl7v2Reader(zone="Europe/Berlin").version != reader.version
    for data in (THREE[0], BHS, b"\x0b" + THREE[0], b"\xef\xbb\xbf" + THREE[0], b"\r\n" + THREE[0]):
        assert reader.reads(written(tmp_path, data))
    for data in (b"", b"MSH", b"MSHX|", b"{}", b"PID|1", b"M\0S\0H\0|\0", b"<MSH>", b"id,MSH|"):
        assert not reader.reads(written(tmp_path, data))


def test_a_file_that_is_something_else_is_refused_by_name_only(tmp_path):
    with pytest.raises(UnreadableSource, match=r"messages\.hl7") as caught:
        read_file(written(tmp_path, b"Jane Doe,1961"))
    assert "Jane" not in str(caught.value)


def test_a_trailer_that_counts_otherwise_is_a_record_of_its_own(tmp_path):
    _, turned_away, records = read_file(written(tmp_path, BHS + b"".join(THREE) + b"BTS|4\r"))
    assert records == 4
    assert [(note.record, note.reason) for note in turned_away] == [(4, reasons.BATCH_COUNT)]


def test_what_stands_between_messages_is_a_record_of_its_own(tmp_path):
    data = b"\x0b" + THREE[0] + b"\x1c\rgarbage\r\x0b" + THREE[1] + b"\x1c\r"
    rows, turned_away, records = read_file(written(tmp_path, data))
    assert (len(rows), records) == (2, 3)
    assert [(note.record, note.reason) for note in turned_away] == [(2, reasons.NOT_A_MESSAGE)]


@pytest.mark.parametrize("envelope", [b"FHS|^~\\&|A\r", BHS, b"FTS|1\r", b"BTS|1\r"])
def test_what_follows_an_envelope_and_is_no_message_is_a_record_of_its_own(tmp_path, envelope):
    _, turned_away, records = read_file(written(tmp_path, THREE[0] + envelope + b"PID|1||M7\r" + THREE[1]))
    assert records == 3
    assert [(note.record, note.reason) for note in turned_away] == [(2, reasons.NOT_A_MESSAGE)]


def test_a_message_that_was_sent_twice_counts_once_and_a_reused_control_id_is_no_repetition(tmp_path):
    rows, turned_away, records = read_file(written(tmp_path, THREE[0] + THREE[0] + THREE[1]))
    assert [row["patient"] for row in rows] == ["M1", "M2"]  # all have MSH-10 C1
    assert [(note.record, note.reason) for note in turned_away] == [(2, reasons.DUPLICATE)]
    assert accounted(rows, turned_away, records)


def test_a_message_over_the_limit_is_turned_away_in_bounded_memory(tmp_path):
    long = message("ORU^R01", PID, "OBX|1|TX|1^a||" + "x" * 5000)
    stream = io.BytesIO(THREE[0] + long + THREE[1])
    found = list(pieces(stream, max_message=2000))
    assert [piece.problem for piece in found] == ["", reasons.TOO_LARGE, ""]
    assert found[0].data.startswith(b"MSH")
    assert found[2].data.endswith(THREE[1].strip())


def test_a_line_of_100_megabytes_is_one_record_turned_away(tmp_path):
    import resource

    path = tmp_path / "long.hl7"
    with path.open("wb") as file:
        file.write(THREE[0] + b"MSH|^~\\&|")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b"\r" + THREE[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, turned_away, records = read_file(path)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert [row["patient"] for row in rows] == ["M1", "M2"]
    assert [(note.record, note.reason) for note in turned_away] == [(2, reasons.TOO_LARGE)]
    assert records == 3
    assert grown_mb < 90


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_begin_on_the_edge_of_a_chunk_is_found(monkeypatch, cut):
    monkeypatch.setattr("node.ingest.readers.hl7v2_files.CHUNK", cut)
    data = b"\n\n".join(THREE)
    found = list(pieces(io.BytesIO(data)))
    assert [piece.data for piece in found] == [one.strip() for one in THREE]
    assert found[-1].end == len(data)


def test_batches_of_facts_cover_the_file(tmp_path):
    path = written(tmp_path, b"".join(oru(i) for i in range(250)))
    batches = list(Hl7v2Reader().read(path, batch_records=100))
    assert [batch.records for batch in batches] == [100, 100, 50]
    assert [batch.facts.num_rows for batch in batches] == [600, 600, 300]
    assert batches[-1].bytes_done == path.stat().st_size
    whole = read_file(path, batch_records=10_000)[0]
    assert [row for batch in batches for row in batch.facts.to_pylist()] == whole


def test_simhospitals_messages(shared_data):
    rows, turned_away, records = read_file(shared_data / "hl7v2_simhospital" / "messages.out")
    assert records == 1013
    assert accounted(rows, turned_away, records)
    assert Counter(row["kind"] for row in rows) == SIMHOSPITAL_KINDS
    assert Counter(row["action"] for row in rows) == {"assert": SIMHOSPITAL_FACTS, "merge": 1}
    assert Counter((note.field, note.reason, note.whole_record) for note in turned_away) == {
        ("OBX-5", "no-value", False): 64
    }
    assert len({row["patient"] for row in rows}) == SIMHOSPITAL_PATIENTS
    first = rows[1]
    assert (first["codes"][0]["code"], first["value_number"], first["unit"]) == ("tt-0003-01", 98.0, "UMOLL")
    assert (first["range_low"], first["range_high"], first["details"]) == (
        49.0,
        92.0,
        [("interpretation", "H")],
    )


def test_the_sample_messages_of_every_type(shared_data):
    rows, notes, files = [], [], 0
    by_type: dict[str, Counter[str]] = {}
    for path in sorted((shared_data / "hl7v2").glob("*.hl7")):
        found, turned_away, records = read_file(path)
        assert records == 1, path.name
        assert accounted(found, turned_away, records), path.name
        rows += found
        notes += turned_away
        files += 1
        by_type.setdefault(type_of(path), Counter()).update(said_of(found))
    assert files == 139
    assert said_of(rows) == SAMPLE_KINDS
    assert by_type == SAMPLE_TYPES
    assert Counter((note.field, note.reason) for note in notes if note.whole_record) == {
        ("MSH-9", "not-clinical"): 15  # appointments
    }
    assert Counter((note.field, note.reason) for note in notes if not note.whole_record) == SAMPLE_NOTES


def said_of(rows: list[dict]) -> Counter[str]:
    return Counter(
        row["kind"] if row["action"] == "assert" else f"{row['action']} {row['kind']}" for row in rows
    )


def type_of(path: Path) -> str:
    """MSH-9 of a file: the type, and of merges of patients the event."""
    data = path.read_bytes()
    parts = data[data.index(b"MSH") :].split(b"|")[8].decode().split("^")
    return "ADT^A40" if parts[1:2] == ["A40"] else parts[0]


SIMHOSPITAL_FACTS = 6828
SIMHOSPITAL_PATIENTS = 403
# counted beside it: 1,013 PID and a merge, 400 A01, 162 AL1, 1,992 runs of NTE and 2 documents of 90 OBX;
# 3,413 OBX less 64 without a value and those 90
SIMHOSPITAL_KINDS = {"person": 1014, "measurement": 3259, "note": 1994, "visit": 400, "observation": 162}
SAMPLE_KINDS = {
    "person": 127,
    "death": 74,
    "visit": 35,
    "observation": 91,  # 48 allergies and results of VXU, 43 reasons for a visit
    "condition": 51,
    "procedure": 30,
    "coverage": 37,
    "cost": 4,
    "retract death": 21,
    "retract observation": 2,
    "measurement": 68,
    "retract visit": 4,
    "move visit": 2,
    "retract person": 2,
    "merge person": 6,
    "note": 90,
    "drug": 20,
    "retract note": 4,
    "retract condition": 1,
}
SAMPLE_NOTES = {
    ("OBX-11", "not-final"): 73,
    ("PV1", "planned"): 6,
    ("PV1-44", "no-start"): 2,
    ("IN1-12", "no-start"): 6,
    ("FT1", "order"): 17,
    ("MRG", "account-merge"): 3,
    ("OBX-5", "no-value"): 8,
    ("OBX-5", "value-is-a-time"): 5,
    ("OBR", "order"): 23,
    ("TXA", "no-content"): 6,
    ("OBX-5", "binary"): 49,
    ("ODS", "order"): 1,
    ("RQD", "order"): 1,
    ("RXO", "order"): 1,
    ("OBX-3", "no-content"): 9,
    ("RXC", "component"): 15,
}
SAMPLE_TYPES = {
    "ADT": {
        "person": 57, "death": 43, "visit": 35, "observation": 37, "condition": 14, "procedure": 12,
        "coverage": 14, "retract death": 11, "measurement": 4, "retract visit": 4, "move visit": 2,
        "retract observation": 2, "retract person": 2, "merge person": 3, "note": 5,
    },
    "ADT^A40": {"person": 3, "merge person": 3},
    "BAR": {"person": 8, "death": 8, "observation": 6, "condition": 6, "procedure": 5, "coverage": 3},
    "DFT": {
        "person": 4, "death": 4, "cost": 4, "procedure": 9, "condition": 11, "coverage": 5, "observation": 2,
        "note": 8, "measurement": 1,
    },
    "MDM": {"person": 13, "note": 19, "retract note": 4},
    "OMG": {
        "person": 2, "death": 2, "observation": 7, "coverage": 2, "note": 11, "condition": 3,
        "measurement": 12,
    },
    "OML": {
        "person": 4, "retract death": 2, "note": 11, "condition": 4, "death": 2, "coverage": 2,
        "observation": 5, "measurement": 7,
    },
    "ORM": {"person": 8, "death": 7, "note": 9, "condition": 7, "observation": 5, "coverage": 1},
    "ORU": {"person": 5, "measurement": 40, "note": 2},
    "OUL": {"person": 6, "note": 8},
    "PPR": {"person": 3, "retract death": 3, "condition": 2, "retract condition": 1, "note": 1},
    "RDE": {"person": 4, "death": 4, "observation": 4, "coverage": 4, "drug": 6},
    "RDS": {"person": 2, "death": 2, "observation": 2, "drug": 6},
    "REF": {
        "person": 4, "retract death": 4, "coverage": 4, "condition": 4, "observation": 8, "procedure": 4,
        "note": 15, "measurement": 4,
    },
    "SIU": {},
    "VXU": {
        "person": 4, "drug": 8, "observation": 15, "death": 2, "coverage": 2, "note": 1, "retract death": 1,
    },
}  # fmt: skip
