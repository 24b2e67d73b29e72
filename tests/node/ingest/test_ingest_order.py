"""The same files, in any order and however often, give the same store."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.node.made_facts import DRUG, HEART, LAB, SMOKES, Hospital, event, hospital, person

BEFORE, EARLY, LATE = "2020-06-01T00:00", "2021-01-01T00:00", "2022-01-01T00:00"


def retract(key: str, patient: str | None = "P", **more: Any) -> dict[str, Any]:
    return {"action": "retract", "kind": "condition", "patient": patient, "key": key} | more


def merge(patient: str, into: str, **more: Any) -> dict[str, Any]:
    return {"action": "merge", "kind": "person", "patient": patient, "other_patient": into} | more


def withdraw(patient: str) -> dict[str, Any]:
    return {"action": "withdraw", "kind": "person", "patient": patient}


def close(site: Hospital) -> None:
    site.store.close()
    site.vault.close()


def taken(where: Path, files: dict[str, list[Any]], order: tuple[str, ...]) -> Hospital:
    """A hospital that has taken the files in, one call for each."""
    site = hospital(where)
    for patient in ("P", "Q", "R", "S"):  # the vault draws secrets in this order, whoever comes first
        site.person_id(patient)
    for name in order:
        site.take(site.write(name, *files[name]))
    return site


def every_order(tmp_path: Path, files: dict[str, list[Any]]) -> list[Hospital]:
    """Hospitals that have taken the files in every order (of many, in four); they must hold the same."""
    orders = list(permutations(files))
    some = orders if len(orders) <= 6 else [*orders[::9], orders[-1]]
    sites = [taken(tmp_path / str(n), files, order) for n, order in enumerate(some)]
    hashes = {site.store.content_hash() for site in sites}
    assert len(hashes) == 1
    for site in sites[1:]:
        close(site)
    return sites[:1]


def test_a_second_ingest_changes_nothing_not_even_by_another_version_of_the_reader(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.write("a", [person("P")], [event("measurement", "P", LAB, value_number=1.5, unit="mmol/L")])
    site.write("b", [event("condition", "P", HEART, key="c"), event("condition", "P", "two", place="2")])
    site.take()
    before, epoch = site.store.content_hash(), site.store.epoch()
    assert all(source.unchanged for source in site.take().sources)
    assert (site.store.content_hash(), site.store.epoch()) == (before, epoch)
    with site.store.writing() as writer:  # as if an earlier version of the reader had loaded it
        writer.execute("UPDATE fedtwin_load SET mapping_sha256 = 'older'")
    assert not any(source.unchanged for source in site.take().sources)
    assert site.store.content_hash() == before
    close(site)


def test_persons_may_come_last(tmp_path: Path) -> None:
    files = {
        "a": [[event("condition", "P", HEART)]],
        "b": [[event("measurement", "P", LAB, value_number=1.0)], [event("drug", "Q", DRUG)]],
        "c": [[person("P")]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(1,)]
    assert site.rows("SELECT count(*) FROM drug_exposure") == [(0,)]  # nobody has described Q
    assert site.rows("SELECT count(*) FROM fedtwin_waiting_drug_exposure") == [(1,)]
    assert site.rows("SELECT count(*) FROM observation_period") == [(1,)]
    close(site)


def test_the_later_version_of_a_key_holds(tmp_path: Path) -> None:
    def lab(value: float, version: str | None) -> list[dict[str, Any]]:
        return [event("measurement", "P", LAB, value_number=value, key="k", version=version)]

    files = {
        "a": [[person("P")], lab(1.0, EARLY)],
        "b": [lab(2.0, LATE)],
        "c": [lab(3.0, None), lab(4.0, EARLY)],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT value_as_number FROM measurement") == [(2.0,)]
    close(site)


def test_a_later_version_that_gives_no_record_takes_the_record_away(tmp_path: Path) -> None:
    first = event("procedure", "P", "x", key="k", version=EARLY, status="completed")
    files = {"a": [[person("P")], [first]], "b": [[first | {"version": LATE, "status": "not-done"}]]}
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT count(*) FROM procedure_occurrence") == [(0,)]
    close(site)


@pytest.mark.parametrize(
    ("retraction", "left"),
    [
        (retract("k", version=LATE), 0),
        (retract("k"), 0),  # for good
        (retract("k", patient=None), 0),  # a deletion does not say whose it was
        (retract("k", version="2020-12-31T00:00"), 1),  # of a version before
        (retract("k", patient="Q", version=LATE), 1),  # somebody else's
        (event("condition", "P", HEART, key="k", version=LATE, status="entered-in-error"), 0),
    ],
)
def test_what_is_retracted_goes(tmp_path: Path, retraction: dict[str, Any], left: int) -> None:
    files = {
        "a": [[person("P")], [event("condition", "P", HEART, key="k", version=EARLY)]],
        "b": [[retraction]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(left,)]
    assert site.rows("SELECT count(*) FROM condition_era") == [(left,)]
    close(site)


def test_a_retraction_takes_the_parts_of_a_thing_too(tmp_path: Path) -> None:
    parts = [event("condition", "P", HEART, key=key, place=key) for key in ("k", "k#1", "k#2", "kk")]
    files = {"a": [[person("P")], parts], "b": [[retract("k")]]}
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT place FROM fedtwin_provenance WHERE table_name <> 'person'") == [("kk",)]
    close(site)


def test_a_merge_moves_records_and_their_dates(tmp_path: Path) -> None:
    files = {
        "a": [[person("P")], [event("condition", "P", HEART, "2020-03-01T10:00")]],
        "b": [[person("Q", birth="1970-01-01")], [event("drug", "Q", DRUG, "2020-03-04T10:00")]],
        "c": [[merge("P", "Q", version=EARLY)]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows(
        "SELECT person_id, drug_exposure_start_datetime - condition_start_datetime FROM condition_occurrence"
        " JOIN drug_exposure USING (person_id) JOIN person USING (person_id)"
    )[0][0] == site.person_id("Q")
    ((days,),) = site.rows(
        "SELECT drug_exposure_start_date - condition_start_date FROM condition_occurrence"
        " JOIN drug_exposure USING (person_id)"
    )
    assert days == 3  # as in truth, although each had a shift of their own
    assert site.rows("SELECT count(*) FROM person") == [(1,)]
    assert site.rows("SELECT count(*) FROM observation_period") == [(1,)]
    close(site)


def test_merges_of_merged_persons_and_in_circles(tmp_path: Path) -> None:
    everyone = [[person(who)] for who in "PQR"] + [[event("condition", who, HEART)] for who in "PQR"]
    files = {"a": everyone, "b": [[merge("P", "Q")]], "c": [[merge("Q", "R")]]}
    (site,) = every_order(tmp_path / "chain", files)
    assert site.rows("SELECT DISTINCT person_id FROM condition_occurrence") == [(site.person_id("R"),)]
    ((first, last),) = site.rows(
        "SELECT min(condition_start_date), max(condition_start_date) FROM condition_occurrence"
    )
    assert first == last
    close(site)
    (site,) = every_order(tmp_path / "ring", files | {"c": [[merge("Q", "P")]]})
    assert site.rows("SELECT count(DISTINCT person_id), count(*) FROM condition_occurrence") == [(2, 3)]
    close(site)


def test_who_withdraws_leaves_for_good(tmp_path: Path) -> None:
    files = {
        "a": [[person("P")], [event("condition", "P", HEART, key="k", charged=2.0)], [person("Q")],
              [event("condition", "Q", HEART)]],
        "b": [[event("drug", "P", DRUG)]],
        "c": [[withdraw("P")]],
    }  # fmt: skip
    (site,) = every_order(tmp_path, files)
    gone = site.person_id("P")
    for (name,) in site.rows(
        "SELECT table_name FROM duckdb_columns() WHERE column_name = 'person_id' AND NOT internal"
    ):
        if name != "fedtwin_withdrawn":
            assert site.rows(f"SELECT count(*) FROM {name} WHERE person_id = {gone}") == [(0,)], name
    assert site.rows("SELECT count(*) FROM cost UNION ALL SELECT count(*) FROM fedtwin_held_cost") == [
        (0,),
        (0,),
    ]
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(1,)]
    report = site.take(site.write("d", [event("measurement", "P", LAB)]))
    assert report.sources[0].reasons == {"withdrawn": 1}
    close(site)


def test_whoever_is_merged_with_a_patient_who_withdrew_has_left_too(tmp_path: Path) -> None:
    files = {
        "a": [[person("P")], [person("Q")], [event("condition", "Q", HEART)]],
        "b": [[withdraw("P")]],
        "c": [[merge("P", "Q")]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(0,)]
    assert site.rows("SELECT count(*) FROM person") == [(0,)]
    close(site)


def test_who_withdrew_does_not_come_back_by_a_delimited_file(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    (site.folder / "m.toml").write_text(
        '[source]\nname = "m"\nversion = 1\nfiles = ["p*.csv"]\n[patient]\ncolumn = "mrn"\n'
        'namespace = "mrn"\n'
        '[person]\nyear_of_birth = "born"\n'
    )
    (site.folder / "p.csv").write_text("mrn,born\nP,1960\nQ,1960\n")
    site.take(site.folder / "p.csv")
    assert site.rows("SELECT count(*) FROM person") == [(2,)]
    site.take(site.write("w", [withdraw("P")]))
    assert site.rows("SELECT person_id FROM person") == [(site.person_id("Q"),)]
    (site.folder / "p2.csv").write_text("mrn,born\nP,1960\n")
    site.take(site.folder / "p2.csv")
    assert site.rows("SELECT person_id FROM person") == [(site.person_id("Q"),)]
    close(site)


def test_descriptions_add_up_and_a_poorer_one_takes_nothing_away(tmp_path: Path) -> None:
    files = {
        "a": [[person("P", version=EARLY)]],
        "b": [[person("P", birth=None, sex="male", version=LATE)]],
        "c": [[person("P", birth=None, sex=None, race={"system": "x", "code": "2106-3"})]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT gender_concept_id, race_concept_id, year_of_birth > 1950 FROM person") == [
        (8507, 8527, True)
    ]
    close(site)


def parts(version: str, *names: str, **more: Any) -> list[dict[str, Any]]:
    return [
        event(
            "condition", "P", HEART, key=f"Condition/1#{n}", place=f"Condition.{n}", version=version, **more
        )
        for n in names
    ]


def test_parts_that_a_later_version_leaves_out_go(tmp_path: Path) -> None:
    files = {
        "a": [
            [person("P")],
            parts(EARLY, "a", "b", "c"),
            [event("condition", "P", HEART, key="Condition/2#a")],
        ],
        "b": [parts(LATE, "a")],
        "c": [parts(BEFORE, "a", "b", "d")],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT place FROM fedtwin_provenance WHERE table_name <> 'person' ORDER BY 1") == [
        ("",),
        ("Condition.a",),
    ]
    assert site.rows("SELECT count(*) FROM fedtwin_former_condition_occurrence") == [(6,)]
    close(site)


def test_what_a_bill_and_its_answer_say_under_one_key_are_two_wholes(tmp_path: Path) -> None:
    """An ExplanationOfBenefit names its lines by the Claim's key; it does not say the Claim anew."""
    said = [
        event("condition", "P", HEART, key=f"Claim/1#{n}", place=place, version=version)
        for n, place, version in (("a", "Claim.item[0]", EARLY), ("b", "ExplanationOfBenefit.item[0]", LATE))
    ]
    (site,) = every_order(tmp_path, {"a": [[person("P")], [said[0]]], "b": [[said[1]]]})
    assert site.rows("SELECT count(*) FROM condition_occurrence") == [(2,)]
    close(site)


def test_two_versions_in_one_file_give_one_record(tmp_path: Path) -> None:
    values = [
        [event("measurement", "P", LAB, value_number=value, key="k", version=version)]
        for value, version in ((1.0, EARLY), (3.0, LATE), (2.0, EARLY))
    ]
    (site,) = every_order(tmp_path, {"a": [[person("P")], *values]})
    assert site.rows("SELECT value_as_number FROM measurement") == [(3.0,)]
    ((former,),) = site.rows("SELECT count(*) FROM fedtwin_former_measurement")
    assert former == 1  # of one version the last record
    close(site)


def test_after_a_merge_a_correction_under_the_new_number_reaches_what_the_old_one_has(tmp_path: Path) -> None:
    files = {
        "a": [[person("P")], [event("measurement", "P", LAB, value_number=1.0, key="k", version=EARLY)],
              [event("measurement", "P", LAB, value_number=5.0, key="other", version=EARLY)]],
        "b": [[person("Q")], [event("measurement", "Q", LAB, value_number=2.0, key="k", version=LATE)],
              [retract("other", "Q", version=LATE)]],
        "c": [[merge("P", "Q", version=EARLY)]],
    }  # fmt: skip
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT value_as_number, person_id FROM measurement") == [(2.0, site.person_id("Q"))]
    close(site)


def test_what_left_by_a_merge_that_is_taken_back_comes_back(tmp_path: Path) -> None:
    """P was merged into Q by mistake, and into R later: Q's correction is not of P's measurement."""
    files = {
        "a": [[person("P")], [event("measurement", "P", LAB, value_number=1.0, key="k", version=EARLY)]],
        "b": [[person("Q"), person("R")],
              [event("measurement", "Q", LAB, value_number=2.0, key="k", version=LATE)]],
        "c": [[merge("P", "Q", version=EARLY)]],
        "d": [[merge("P", "R", version=LATE)]],
    }  # fmt: skip
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT value_as_number FROM measurement ORDER BY 1") == [(1.0,), (2.0,)]
    assert site.rows("SELECT count(*) FROM fedtwin_former_measurement") == [(0,)]
    close(site)


def test_a_merge_names_the_other_number_in_its_own_namespace(tmp_path: Path) -> None:
    other = {"other_patient_namespace": "elsewhere"}
    files = {
        "a": [[person("P")], [event("condition", "P", HEART)]],
        "b": [[person("Q") | {"patient_namespace": "elsewhere"}], [merge("P", "Q", details=other)]],
    }
    (site,) = every_order(tmp_path, files)
    assert site.rows("SELECT person_id FROM condition_occurrence") == [(site.person_id("Q", "elsewhere"),)]
    close(site)


def test_a_record_has_its_visit_once_the_visit_is_there(tmp_path: Path) -> None:
    def stay(**more: Any) -> dict[str, Any]:
        return event("visit", "P", "IMP", encounter="e", key="Encounter/e", version=EARLY) | more

    files = {
        "a": [[person("P")], [event("condition", "P", HEART, encounter="e")],
              [event("drug", "P", DRUG, encounter="never")]],
        "b": [[stay()]],
        "c": [[event("measurement", "P", LAB, encounter="e", key="k")]],
    }  # fmt: skip
    (site,) = every_order(tmp_path / "comes", files)
    ((visit,),) = site.rows("SELECT visit_occurrence_id FROM visit_occurrence")
    for table in ("condition_occurrence", "measurement"):
        assert site.rows(f"SELECT visit_occurrence_id FROM {table}") == [(visit,)]
    assert site.rows("SELECT visit_occurrence_id FROM drug_exposure") == [(None,)]
    assert site.rows("SELECT table_name FROM fedtwin_unvisited") == [("drug_exposure",)]
    close(site)
    gone = stay(version=LATE, status="entered-in-error")
    (site,) = every_order(tmp_path / "goes", files | {"d": [[gone]]})
    assert site.rows("SELECT visit_occurrence_id FROM condition_occurrence") == [(None,)]
    assert site.rows("SELECT count(*) FROM fedtwin_unvisited") == [(3,)]
    close(site)


def test_a_visit_is_found_under_the_patient_s_other_number(tmp_path: Path) -> None:
    files = {
        "a": [[person("P")], [event("condition", "P", HEART, encounter="e")],
              [event("visit", "P", "IMP", encounter="e", version=EARLY)]],
        "b": [[person("Q")], [event("drug", "Q", DRUG, encounter="e")]],
        "c": [[merge("P", "Q", version=EARLY)]],
        "d": [[event("visit", "Q", "IMP", encounter="e", version=LATE)]],
    }  # fmt: skip
    (site,) = every_order(tmp_path, files)
    ((visit,),) = site.rows("SELECT visit_occurrence_id FROM visit_occurrence")
    assert site.rows("SELECT visit_occurrence_id FROM condition_occurrence") == [(visit,)]
    assert site.rows("SELECT visit_occurrence_id FROM drug_exposure") == [(visit,)]
    close(site)


# what may happen, for the property: patient, kind, key, version, what is done with it
_STEP = st.tuples(
    st.sampled_from("PQR"),
    st.sampled_from(
        ["person", "condition", "measurement", "visit", "withdraw", "merge", "retract", "no-date", "away"]
    ),
    st.sampled_from([None, "k1", "k2", "k1#a", "k1#b"]),
    st.sampled_from([None, EARLY, LATE]),
    st.sampled_from("PQR"),
)


def _line(step: tuple[str, str, str | None, str | None, str]) -> Any:
    patient, what, key, version, other = step
    match what:
        case "person":
            return [person(patient, version=version)]
        case "withdraw":
            return [withdraw(patient)]
        case "merge":
            return [merge(patient, other, version=version)]
        case "retract":
            return [retract(key or "k1", patient if version else None, version=version)]
        case "no-date":
            return [event("condition", patient, HEART, start=None, key=key)]
        case "away":
            return {"away": "not-clinical"}
        case _:
            return [event(what, patient, SMOKES if key else LAB, key=key, version=version, encounter=key)]


_FILES: dict[str, Any] = {
    "files": st.lists(st.lists(_STEP, min_size=1, max_size=6), min_size=2, max_size=4),
    "order": st.randoms(use_true_random=False),
    "batch": st.sampled_from([1, 2, 100]),
}
_AS_IT_IS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@settings(max_examples=8, **_AS_IT_IS)
@given(**_FILES)
def test_any_files_in_any_order_and_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]], order: Any, batch: int
) -> None:
    _end_in_one_store(tmp_path_factory, files, order, batch)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=100, **_AS_IT_IS)
@given(**_FILES)
def test_a_hundred_sets_of_files_in_any_order_and_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]], order: Any, batch: int
) -> None:
    _end_in_one_store(tmp_path_factory, files, order, batch)


def _end_in_one_store(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]], order: Any, batch: int
) -> None:
    """Check that files taken in two orders give one store, in which nobody is without a reason."""
    named = {f"f{n}": [_line(step) for step in steps] for n, steps in enumerate(files)}
    names = list(named)
    shuffled = names[:]
    order.shuffle(shuffled)
    hashes = []
    for sequence, size in ((names, 1000), (shuffled, batch)):
        where = tmp_path_factory.mktemp("site")
        site = hospital(where, words=False)
        for patient in "PQR":
            site.person_id(patient)
        for name in sequence:
            (source,) = site.take(site.write(name, *named[name]), batch_records=size).sources
            assert source.records_in == len(named[name]) == source.stored + source.quarantined
            # a file like an earlier one is not read again, so that nobody counts its reasons
            assert source.unchanged or sum(source.reasons.values()) == source.quarantined
        hashes.append(site.store.content_hash())
        persons = site.rows("SELECT person_id FROM person")
        spoken = site.rows(
            "SELECT DISTINCT person_id FROM condition_occurrence UNION SELECT person_id FROM measurement"
            " UNION SELECT person_id FROM visit_occurrence"
        )
        assert set(spoken) <= set(persons)
        assert set(site.rows("SELECT person_id FROM observation_period")) == set(spoken)
        close(site)
    assert hashes[0] == hashes[1]
