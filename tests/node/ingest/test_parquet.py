"""Parquet comes in by the rules of CSV: the same rows, records and reasons; what is damaged is said to be."""

from collections import Counter
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node.ingest.errors import MalformedMapping, UnreadableSource
from node.ingest.mapping import parse_mapping
from node.ingest.parquet import MAX_BATCH_BYTES, open_parquet
from node.ingest.typed_columns import mappable
from node.omop.errors import AlreadyLoaded
from node.omop.loading import Again
from tests.node.ingest.table_rows import (
    FILES,
    WORD,
    content,
    made,
    site,
    turned_away,
    write_csv,
    write_parquet,
)

MAPPING = parse_mapping(FILES.encode(), file="results.toml")


def test_the_same_rows_give_the_same_store_and_the_same_reasons(tmp_path: Path) -> None:
    rows = made()
    csv, parquet = (
        write_csv(tmp_path / "results.csv", rows),
        write_parquet(tmp_path / "results.parquet", rows, row_group=128),  # ids follow batches
    )
    found = []
    for path in (csv, parquet):
        with site(tmp_path / path.suffix[1:], batch_rows=64) as node:
            (report,) = node.ingest([path], mappings=[MAPPING]).sources
            assert report.format == ("delimited" if path is csv else "parquet")
            assert report.records_in == report.stored + report.quarantined == len(rows)
            assert report.quarantined > 10
            assert report.delimited is not None
            assert set(report.delimited.unknown_columns) == {"id", "shoe"}
            found.append((content(node), turned_away(node), report.reasons, report.records))
    assert found[0] == found[1]
    assert {reason for _, _, reason, _ in found[0][1]} == {
        "missing-patient", "missing-date", "out-of-range", "unknown-unit",
    }  # fmt: skip


def test_a_file_is_loaded_once_and_a_changed_one_asks(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "results.parquet", made(60))
    with site(tmp_path / "node") as node:
        node.ingest([path], mappings=[MAPPING])
        before = node.store.content_hash()
        (again,) = node.ingest([path], mappings=[MAPPING]).sources
        assert again.unchanged
        assert again.records_in == again.stored + again.quarantined == 60
        assert node.store.content_hash() == before
        formats = node.store.connection.con.execute("SELECT format FROM fedtwin_load").fetchall()
        assert formats == [("parquet",)]
        write_parquet(path, made(60, seed=2))
        with pytest.raises(AlreadyLoaded):
            node.ingest([path], mappings=[MAPPING])
    with site(tmp_path / "node", again=Again.REPLACE) as node:
        node.ingest([path], mappings=[MAPPING])
        assert node.store.content_hash() != before


def test_typed_values_are_what_a_mapping_takes() -> None:
    def of(values: list[Any], kind: pa.DataType, zone: str = "UTC") -> list[Any]:
        found: list[Any] = mappable(pa.array(values, kind), zone=zone).to_pylist()
        return found

    assert of([42.0, 0.1, None, -3.0, 1e300], pa.float64()) == ["42", "0.1", "", "-3", "1e+300"]
    assert of([0.1, 7.0], pa.float32()) == ["0.1", "7"]
    assert of([1, None], pa.uint64()) == ["1", ""]
    assert of([True, False, None], pa.bool_()) == ["true", "false", ""]
    assert of([Decimal("250.00"), None], pa.decimal128(9, 2)) == ["250.00", ""]
    assert of([None, None], pa.null()) == ["", ""]
    noon = datetime(2020, 7, 1, 12)
    assert of([noon, None], pa.timestamp("ms", tz="America/New_York")) == [noon, None]  # UTC, as it came
    berlin = of([noon], pa.timestamp("us", tz="UTC"), zone="Europe/Berlin")
    assert berlin == [datetime(2020, 7, 1, 14)]
    assert of([noon], pa.timestamp("s"), zone="Europe/Berlin") == [noon]  # without a zone: as it stands
    with pytest.raises(ValueError, match="no mapping"):
        mappable(pa.array([b"x"], pa.binary()), zone="UTC")


def test_a_moment_beyond_the_calendar_is_an_implausible_date(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(made(3))
    taken = pa.array([2**62, -(2**62), 0]).cast(pa.timestamp("ms", tz="UTC"))
    where = rows.column_names.index("taken")
    pq.write_table(rows.set_column(where, "taken", taken), tmp_path / "results.parquet")
    with site(tmp_path / "node") as node:
        (report,) = node.ingest([tmp_path / "results.parquet"], mappings=[MAPPING]).sources
        assert report.reasons == {"implausible-date": 2}
        assert report.stored == 1


def test_a_row_that_is_no_text_is_turned_away_by_its_number(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(made(5))
    broken = pa.array([b"SBP", b"\xff\xfe", b"SBP", "\N{REPLACEMENT CHARACTER}".encode(), None], pa.binary())
    codes = pa.Array.from_buffers(pa.string(), 5, broken.buffers())  # says that it is text, and is not
    where = rows.column_names.index("code")
    pq.write_table(rows.set_column(where, "code", codes), tmp_path / "results.parquet", use_dictionary=False)
    with site(tmp_path / "node") as node:
        (report,) = node.ingest([tmp_path / "results.parquet"], mappings=[MAPPING]).sources
        assert report.reasons["not-text"] == 2
        assert {row for row, _, why, _ in turned_away(node) if why == "not-text"} == {2, 4}


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("value", pa.array([[1.0], [2.0], [3.0]]), "'value' is a column of structures"),
        ("code", pa.array([b"a", b"b", b"c"]), "'code' is a column of bytes"),
        ("taken", pa.array([1, 2, 3], pa.duration("s")), "'taken' is a column of durations"),
        ("value", None, "'value' is not in the file"),
    ],
)
def test_a_column_that_no_rule_can_use_is_named(tmp_path: Path, column: str, values: Any, said: str) -> None:
    rows = pa.Table.from_pylist(made(3))
    rows = rows.drop_columns([column])
    if values is not None:
        rows = rows.append_column(column, values)
    pq.write_table(rows, tmp_path / "results.parquet")
    with pytest.raises(UnreadableSource, match=said):
        open_parquet(tmp_path / "results.parquet", MAPPING)


def test_a_nested_column_that_nothing_uses_does_not_matter(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(made(3)).append_column("notes", pa.array([[{"a": 1}], [], None]))
    pq.write_table(rows, tmp_path / "results.parquet")
    table = open_parquet(tmp_path / "results.parquet", MAPPING)
    assert "notes" in table.unknown_columns
    assert [rows.tolist() for _, rows in table.batches(batch_rows=2)] == [[1, 2], [3]]


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    times = MAX_BATCH_BYTES // 1_000_000 + 10
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array(["x" * 1_000_000]))
    rows = pa.Table.from_pylist([made(1)[0]] * times).drop_columns(["code"]).append_column("code", bomb)
    pq.write_table(rows, tmp_path / "results.parquet")
    assert (tmp_path / "results.parquet").stat().st_size < 5_000_000
    with pytest.raises(UnreadableSource, match="unpacks to more"):
        list(open_parquet(tmp_path / "results.parquet", MAPPING).batches(batch_rows=100_000))


def test_a_clock_that_is_none_is_a_mistake_of_the_mapping() -> None:
    with pytest.raises(MalformedMapping, match="zone"):
        parse_mapping(FILES.replace("[source]", '[source]\nzone = "Middle/Earth"').encode(), file="m.toml")


def harmed(data: bytes, rng: np.random.Generator) -> bytes:
    """What an accident may make of a file."""
    kind, at = int(rng.integers(5)), int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]
    if kind == 2:
        return data[:at] + data[at + int(rng.integers(1, 200)) :]
    found = bytearray(data)
    start = max(0, len(data) - 3000) if kind == 3 else 0  # the footer, or anywhere
    for place in rng.integers(start, len(data), int(rng.integers(1, 12))):
        found[place] = int(rng.integers(256))
    return bytes(found)


def test_damaged_files_end_in_a_reason_and_tell_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    good = [
        write_parquet(tmp_path / "good.parquet", made(200), checksums=sums).read_bytes()
        for sums in (True, False)
    ]
    outcomes: Counter[str] = Counter()
    said = ""
    for seed in range(50):
        path = tmp_path / "results.parquet"
        path.write_bytes(harmed(good[seed % 2], np.random.default_rng(seed)))
        try:
            table = open_parquet(path, MAPPING)
            rows = sum(len(numbers) for _, numbers in table.batches(batch_rows=64)) + len(table.not_text)
            assert rows > 0
            outcomes["read"] += 1
        except UnreadableSource as error:
            outcomes["unreadable"] += 1
            said += str(error)
    assert outcomes.total() == 50
    assert outcomes["unreadable"] > 20
    assert WORD not in said + "".join(capfd.readouterr()) + caplog.text


def test_nothing_of_a_file_that_ends_too_soon_is_stored(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "results.parquet", made(300))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)  # a page in the middle
    path.write_bytes(data)
    with site(tmp_path / "node", batch_rows=50) as node:
        (one,) = node.ingest([path], mappings=[MAPPING]).sources
        assert "damaged" in str(one.unreadable)
        assert (one.format, one.records_in, one.stored) == ("parquet", 0, 0)
        assert node.store.counts()["person"] == 0
        assert node.store.connection.con.execute("SELECT count(*) FROM fedtwin_load").fetchone() == (0,)
