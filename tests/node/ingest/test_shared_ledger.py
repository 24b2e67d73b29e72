"""The published test data of every format: each record is stored, or turned away for a reason that we name.

`shared_ledger.json` beside this has the numbers as they are, and why each reason is a good one. A folder's
numbers: `python -m tests.node.ingest.ledgers FOLDER`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.node.ingest.ledgers import genotypes, summary, taken_in

LEDGER = json.loads((Path(__file__).parent / "shared_ledger.json").read_text(encoding="utf-8"))
BECAUSE, FOLDERS, MESSAGES = LEDGER["because"], LEDGER["folders"], LEDGER["messages"]
GENOMES = ("vcf", "vcf_1000g")
MANY_FILES = ("claims_x12", "claims_hcc", "claims_synpuf", "fhir_bundles")


def folder_of(shared_data: Path, name: str) -> Path:
    if not (shared_data / name).is_dir():
        pytest.skip(f"needs ../shared/data/{name}")
    return shared_data / name


def found_in(folder: Path, where: Path) -> dict[str, Any]:
    site, report = taken_in(folder, where)
    try:
        return summary(site, report)
    finally:
        site.store.close()
        site.vault.close()


def names(*, slow: bool) -> list[Any]:
    marks = [pytest.mark.slow] if slow else []
    chosen = [name for name in FOLDERS if name not in GENOMES and (name in MANY_FILES) is slow]
    return [pytest.param(name, marks=marks) for name in chosen]


@pytest.mark.parametrize("name", [*names(slow=False), *names(slow=True)])
def test_a_folder_of_published_files_gives_what_the_ledger_says(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    found = found_in(folder_of(shared_data, name), tmp_path)
    unmapped, before = found.pop("unmapped"), FOLDERS[name]["unmapped"]
    assert found == {key: value for key, value in FOLDERS[name].items() if key != "unmapped"}
    for table, count in unmapped.items():  # the starter vocabulary gains and loses a code now and then
        assert count <= before.get(table, 0) * 1.05 + 5, table


@pytest.mark.parametrize("name", GENOMES)
def test_published_genotypes_give_what_the_ledger_says(shared_data: Path, tmp_path: Path, name: str) -> None:
    assert genotypes(folder_of(shared_data, name), tmp_path) == FOLDERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", MESSAGES)
def test_published_messages_are_all_accounted_for(shared_data: Path, tmp_path: Path, name: str) -> None:
    found = found_in(folder_of(shared_data, name), tmp_path)
    counts = found["sources"]["hl7v2"]
    assert {key: counts[key] for key in ("files", "records_in")} == MESSAGES[name]["sources"]["hl7v2"]
    assert counts["turned_away"].keys() <= BECAUSE["of records"].keys()
    assert found["fields_turned_away"].keys() <= BECAUSE["of fields"].keys()


def test_every_reason_of_the_ledger_is_explained() -> None:
    for name, found in FOLDERS.items():
        if name in GENOMES:
            reasons = {reason for one in found.values() for reason in one["turned_away"]}
            assert reasons <= BECAUSE["of records"].keys()
            continue
        for source in found["sources"].values():
            assert source["turned_away"].keys() <= BECAUSE["of records"].keys()
            assert source["records_in"] == source["stored"] + sum(source["turned_away"].values())
            assert not source["superseded"] or BECAUSE["superseded"]
        assert found["fields_turned_away"].keys() <= BECAUSE["of fields"].keys()
        assert not found["waiting"] or BECAUSE["waiting"]
