"""What a mapping told of a patient goes where the patient goes, whether the file or the merge came first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.ingest.mapping import Mapping, parse_mapping
from node.ingest.pipeline import Pipeline
from node.omop.loading import Again
from tests.node.made_facts import CLOCK, ENTRIES, Hospital, event, hospital, person
from tests.node.test_ingest import LABS, LABS_HEADER, PATIENTS

DEATHS = """
[source]
name = "deaths"
version = 1
files = ["deaths*.csv"]
[patient]
column = "mrn"
namespace = "mrn"
[date]
column = "died"
[[events]]
table = "death"
column = "died"
kind = "present"
concept_id = 0
"""
ROWS = "A-1,2020-02-01 08:30,SBP,142,mm[Hg],V1\nB-2,2021-07-01 10:00,SBP,118,mm[Hg],V3\n"
PEOPLE = "mrn,name,dob,sex,hobby\nA-1,Ann,05/03/1950,F,chess\nB-2,Bo,17/11/1985,M,golf\n"
MERGE = {"kind": "person", "patient": "A-1", "action": "merge", "other_patient": "B-2"}


def mappings() -> list[Mapping]:
    return [
        parse_mapping(_named(text).encode(), file=f"{place}.toml")
        for place, text in enumerate((PATIENTS, LABS))
    ]


def _named(text: str) -> str:
    return text.replace('column = "mrn"\n', 'column = "mrn"\nnamespace = "mrn"\n')


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    made.vault.pseudonyms(["A-1", "B-2"], namespace="mrn")
    yield made
    made.store.close()
    made.vault.close()


def take(site: Hospital, *names: str, **options: Any) -> None:
    """Take in files by their names."""
    texts = {"patients.csv": PEOPLE, "labs.csv": f"{LABS_HEADER}\n{ROWS}"}
    for name in names:
        path = site.folder / name
        if name in texts:
            path.write_text(texts[name])

        pipeline = Pipeline(site.store, site.vault, CLOCK, readers=ENTRIES, **options)
        (one,) = pipeline.ingest([path], mappings=mappings() if name in texts else None).sources
        assert one.records_in == one.stored + one.quarantined
        assert not one.quarantined


def found(site: Hospital) -> tuple[list[tuple[Any, ...]], ...]:
    """Who there is, and what there is of them, on days as the source had them."""
    shift = int(site.vault.pseudonyms(["B-2"], namespace="mrn").shift_days[0])
    return (
        site.rows("SELECT person_id, gender_concept_id FROM person"),
        site.rows(
            f"SELECT person_id, CAST(CAST(measurement_date - {shift} AS DATE) AS VARCHAR), value_as_number"
            " FROM measurement ORDER BY 3"
        ),
        site.rows("SELECT count(*) FROM observation_period"),
    )


ORDERS = (
    ("patients.csv", "labs.csv", "merge.facts"),
    ("patients.csv", "merge.facts", "labs.csv"),
    ("merge.facts", "patients.csv", "labs.csv"),
)


@pytest.mark.parametrize("order", ORDERS)
def test_records_of_a_mapping_move_on_a_merge(site: Hospital, order: tuple[str, ...]) -> None:
    site.write("merge", [MERGE])
    take(site, *order)
    kept = site.person_id("B-2")
    assert found(site) == (
        [(kept, 8507)],
        [(kept, "2021-07-01", 118.0), (kept, "2020-02-01", 142.0)],
        [(1,)],
    )
    assert site.rows("SELECT DISTINCT person_id FROM visit_occurrence WHERE person_id <> 0") in (
        [], [(kept,)],
    )  # fmt: skip
    take(site, "labs.csv", "patients.csv")  # unchanged
    assert len(site.rows("FROM measurement")) == 2


def test_a_file_that_replaces_another_after_the_merge_leaves_nothing_of_it(site: Hospital) -> None:
    site.write("merge", [MERGE])
    take(site, *ORDERS[0])
    before = found(site)
    (site.folder / "labs.csv").unlink()
    labs, people = f"{LABS_HEADER}\n{ROWS}".replace("142", "150"), PEOPLE.replace("golf", "tennis")

    (site.folder / "labs.csv").write_text(labs)
    (site.folder / "patients.csv").write_text(people)
    pipeline = Pipeline(site.store, site.vault, CLOCK, readers=ENTRIES, again=Again.REPLACE)
    for name in ("labs.csv", "patients.csv"):
        pipeline.ingest([site.folder / name], mappings=mappings())
    persons, values, periods = found(site)
    assert (persons, periods) == (before[0], before[2])
    assert [value for *_, value in values] == [118.0, 150.0]


def test_only_the_number_that_is_given_up_is_described_by_the_mapping(site: Hospital) -> None:
    merge = MERGE | {"other_patient": "NEW"}
    site.write("merge", [merge])
    take(site, "patients.csv", "labs.csv", "merge.facts")
    kept = site.person_id("NEW")
    assert site.rows(f"SELECT gender_concept_id FROM person WHERE person_id = {kept}") == [(8532,)]
    assert site.rows(f"SELECT value_as_number FROM measurement WHERE person_id = {kept}") == [(142.0,)]
    assert site.rows(f"SELECT count(*) FROM person WHERE person_id = {site.person_id('A-1')}") == [(0,)]


def test_a_reader_and_a_mapping_that_describe_the_two_give_one_person(site: Hospital) -> None:
    site.write("said", [person("B-2", sex="female")], [event("condition", "A-1", "heart", key="c")], [MERGE])
    take(site, "patients.csv", "labs.csv", "said.facts")
    kept = site.person_id("B-2")
    assert site.rows("SELECT person_id FROM person") == [(kept,)]
    assert site.rows("SELECT person_id FROM condition_occurrence") == [(kept,)]
    assert {row[0] for row in site.rows("SELECT person_id FROM measurement")} == {kept}


def test_a_death_that_a_mapping_told_of_is_that_of_who_it_is(site: Hospital) -> None:

    site.write("merge", [MERGE])
    (site.folder / "deaths.csv").write_text("mrn,died\nA-1,2022-05-01\n")
    take(site, "patients.csv")
    pipeline = Pipeline(site.store, site.vault, CLOCK, readers=ENTRIES)
    pipeline.ingest(
        [site.folder / "deaths.csv"], mappings=[parse_mapping(DEATHS.encode(), file="deaths.toml")]
    )
    take(site, "merge.facts")
    shift = int(site.vault.pseudonyms(["B-2"], namespace="mrn").shift_days[0])
    assert site.rows("SELECT person_id, death_date - DATE '2022-05-01' FROM death") == [
        (site.person_id("B-2"), shift)
    ]
