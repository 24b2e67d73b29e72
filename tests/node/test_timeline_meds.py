"""The MEDS export is a dataset as the standard's own package has it, and holds what the timelines hold."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from node.omop.store import OmopStore
from node.timeline_meds import CODES, SCHEMA, FolderNotEmpty, export
from node.timeline_sql import Scope, Unrecorded
from tests.bench.stores import make_store
from tests.node.timelines import ADA, ASTHMA, small

NOW = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with small(tmp_path / "omop.duckdb") as opened:
        yield opened


def read(folder: Path) -> pa.Table:
    names = sorted((folder / "data").iterdir(), key=lambda path: int(path.stem))
    return pa.concat_tables(pq.read_table(name) for name in names)


def test_a_person_is_their_birth_who_they_are_and_every_event(store: OmopStore, tmp_path: Path) -> None:
    with store.writing() as writer:
        writer.execute(
            "INSERT INTO concept BY NAME SELECT ? AS concept_id, 'Asthma' AS concept_name,"
            " 'Condition' AS domain_id, 'SNOMED' AS vocabulary_id, 'Disorder' AS concept_class_id,"
            " '195967001' AS concept_code, DATE '1970-01-01' AS valid_start_date,"
            " DATE '2099-12-31' AS valid_end_date",
            [ASTHMA],
        )
        writer.execute("UPDATE measurement SET measurement_concept_id = 0 WHERE value_as_number = 120")
    written = export(store, tmp_path / "meds", scope=Scope(), now=NOW)
    assert (written.subjects, written.shards) == (2, 1)
    found = read(tmp_path / "meds")
    assert found.num_rows == written.rows
    ada = found.filter(pa.compute.equal(found["subject_id"], ADA)).to_pylist()
    assert [row["code"] for row in ada] == [
        "OMOP/8532",
        "MEDS_BIRTH",
        "OMOP/9201//start",
        "SNOMED/195967001",
        "OMOP/3004501",
        "SOURCE/measurement/GLU",
        "OMOP/9201//end",
        "MEDS_DEATH",
    ]
    assert [row["time"] for row in ada[:2]] == [None, datetime(1970, 1, 1)]
    assert ada[4]["numeric_value"] == 90.0
    codes = pq.read_table(tmp_path / "meds" / "metadata" / "codes.parquet")
    assert set(codes["code"].to_pylist()) == set(found["code"].to_pylist())
    assert (
        dict(zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True))[
            "SNOMED/195967001"
        ]
        == "Asthma"
    )


def test_the_standards_own_package_takes_it(store: OmopStore, tmp_path: Path) -> None:
    meds = pytest.importorskip("meds", reason="needs the package meds (extra dev)")
    export(store, tmp_path / "meds", scope=Scope(), now=NOW)
    found = read(tmp_path / "meds")
    meds.DataSchema.validate(found)
    meds.CodeMetadataSchema.validate(pq.read_table(tmp_path / "meds" / meds.code_metadata_filepath))
    about = json.loads((tmp_path / "meds" / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(about)
    extra = {name for key in about if key.endswith("_columns") for name in about[key]}
    core = {"subject_id", "time", "code", "numeric_value", "text_value"}
    assert extra | core == set(SCHEMA.names)
    with pytest.raises(Exception, match="subject_id"):
        meds.DataSchema.validate(found.drop_columns(["subject_id"]))


def test_no_subject_is_cut_and_each_shard_is_in_order(tmp_path: Path) -> None:
    with OmopStore.open(make_store(tmp_path / "s.duckdb", 40, 2_000, seed=6), threads=1) as store:
        written = export(store, tmp_path / "meds", scope=Scope(), now=NOW, rows_per_shard=300)
    shards = [pq.read_table(path) for path in (tmp_path / "meds" / "data").iterdir()]
    assert len(shards) == written.shards > 5
    subjects = [set(shard["subject_id"].to_pylist()) for shard in shards]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == written.subjects
    for shard in shards:
        assert shard.schema.equals(SCHEMA)
        order = [
            (row["subject_id"], row["time"] is not None, row["time"] or datetime.min)
            for row in shard.to_pylist()
        ]
        assert order == sorted(order)


def test_an_export_as_of_a_moment_knows_nothing_later(store: OmopStore, tmp_path: Path) -> None:
    scope = Scope(as_of=datetime(2020, 1, 3, tzinfo=UTC), unrecorded=Unrecorded.EVENT)
    export(store, tmp_path / "meds", scope=scope, now=NOW)
    times = [time for time in read(tmp_path / "meds")["time"].to_pylist() if time]
    assert max(times) <= datetime(2020, 1, 3)
    assert set(read(tmp_path / "meds")["subject_id"].to_pylist()) == {ADA}


def test_it_is_written_for_its_owner_into_a_folder_of_its_own(store: OmopStore, tmp_path: Path) -> None:
    export(store, tmp_path / "meds", scope=Scope(), now=NOW)
    for path in (tmp_path / "meds").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    with pytest.raises(FolderNotEmpty):
        export(store, tmp_path / "meds", scope=Scope(), now=NOW)
    assert pq.read_schema(tmp_path / "meds" / "metadata" / "codes.parquet").equals(CODES)
