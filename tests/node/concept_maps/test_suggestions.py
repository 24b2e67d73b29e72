"""From unmapped codes to accepted mappings: ranked, reviewed by a person, in force, and reproducible."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.concept_maps.accepting import UnknownTarget, accept, in_force
from node.concept_maps.candidates import candidates
from node.concept_maps.ranking import Named, Ranker
from node.concept_maps.review import COLUMNS, MalformedReview, read, written
from node.concept_maps.suggestions import LEXICAL, suggest
from node.concept_maps.unmapped import unmapped
from node.omop import code_map, starter
from node.omop.concepts import Concepts
from node.omop.concepts import written as codings
from node.omop.store import OmopStore

NOW = datetime(2026, 2, 1, tzinfo=UTC)
HEART_ATTACK, ASPIRIN, TROPONIN = 312327, 1112807, 3021337


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        starter.install(opened, now=NOW)
        yield opened


def seen(store: OmopStore, table: str, *labels: tuple[str, int]) -> None:
    """Records with concept 0, so many persons each."""
    prefix = {"condition_occurrence": "condition", "drug_exposure": "drug"}.get(table, table)
    dates = {
        "condition_occurrence": ("condition_start_date",),
        "drug_exposure": ("drug_exposure_start_date", "drug_exposure_end_date"),
        "measurement": ("measurement_date",),
    }[table]
    days = ", ".join(["DATE '2020-01-01'"] * len(dates))
    with store.writing() as writer:
        for label, persons in labels:
            for person in range(1, persons + 1):
                columns = f"{table}_id, person_id" + "".join(
                    f", {prefix}_{name}" for name in ("concept_id", "type_concept_id", "source_value")
                )
                writer.execute(
                    f"INSERT INTO {table} ({columns}, {', '.join(dates)}) SELECT count(*) + 1, ?, 0, "
                    "32817, ?,"
                    f" {days} FROM {table}",
                    [person, label],
                )


def decided(text: str, choose: dict[str, int], word: str = "yes") -> str:
    """The review file after a person went through it."""
    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        if choose.get(row["source_code"]) == int(row["concept_id"]):
            row["decision"] = word
    out = io.StringIO()
    lines = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    return out.getvalue()


def mapped(store: OmopStore, *coded: tuple[str, str]) -> list[int]:
    with store.cursor() as cursor:
        found = Concepts(cursor).choices([codings([one]) for one in coded])
    return [choice.targets[0].concept_id for choice in found]


def test_words_abbreviations_and_codes_of_one_thing_lead_to_one_concept(store: OmopStore) -> None:
    seen(
        store, "condition_occurrence", ("heart attack", 3), ("MI", 2), ("Heart Attack, acute", 2), ("AMI", 1)
    )
    found = suggest(store, codes=10, candidates_each=5, model=False)
    assert {one.source.label: one.candidates[0][0].concept_id for one in found.found} == dict.fromkeys(
        ("heart attack", "MI", "Heart Attack, acute", "AMI"), HEART_ATTACK
    )
    assert mapped(store, ("ICD10CM", "I21.9")) == [HEART_ATTACK]


def test_what_is_accepted_holds_for_the_next_look_up_in_whatever_system(store: OmopStore) -> None:
    seen(store, "condition_occurrence", ("heart attack", 3))
    seen(store, "drug_exposure", ("ASA 100", 2))
    wanted = {"heart attack": HEART_ATTACK, "ASA 100": ASPIRIN}
    codes = (("local:problems", "heart attack"), ("", "ASA 100"))
    assert mapped(store, *codes) == [0, 0]
    text = decided(written(suggest(store, codes=10, candidates_each=20, model=False)), wanted)
    assert accept(store, read(text), now=NOW) == 2
    assert mapped(store, *codes) == [HEART_ATTACK, ASPIRIN]
    assert mapped(store, ("ICD10CM", "I10")) == [320128]  # others stay as they were


def test_a_mapping_for_any_system_gives_way_to_what_the_vocabulary_says(store: OmopStore) -> None:
    with store.writing() as writer:
        code_map.put(writer, [code_map.CodeMapping("any", "8480-6", ASPIRIN)], origin="review-x", now=NOW)
    assert mapped(store, ("http://loinc.org", "8480-6"), ("local:x", "8480-6")) == [3004249, ASPIRIN]


def test_accepting_twice_changes_nothing_and_another_decision_ends_the_first(store: OmopStore) -> None:
    seen(store, "measurement", ("trop", 3))
    text = written(suggest(store, codes=10, candidates_each=20, model=False))
    first, second = read(decided(text, {"trop": TROPONIN})), read(decided(text, {"trop": 3019800}))
    assert first.version != second.version
    assert (accept(store, first, now=NOW), accept(store, first, now=NOW)) == (1, 0)
    before = code_map.version(store)
    assert accept(store, second, now=NOW.replace(month=3)) == 1
    assert mapped(store, ("local:lab", "trop")) == [3019800]
    assert [one.target_concept_id for one in in_force(store)] == [3019800]
    assert [(one.target_concept_id, one.until is None) for one in in_force(store, history=True)] == [
        (TROPONIN, False), (3019800, True),
    ]  # fmt: skip
    assert accept(store, first, now=NOW.replace(month=4)) == 1
    assert code_map.version(store) == before  # the name is that of the content


def test_the_version_of_decisions_does_not_depend_on_order_or_notes(store: OmopStore) -> None:
    seen(store, "condition_occurrence", ("heart attack", 3), ("asthma attack", 2))
    text = written(suggest(store, codes=10, candidates_each=10, model=False))
    one = read(decided(text, {"heart attack": HEART_ATTACK, "asthma attack": 317009}))
    lines = decided(text, {"heart attack": HEART_ATTACK, "asthma attack": 317009}, word="Y").splitlines()
    other = read("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert len(one.mappings) == 2
    assert one.version == other.version


def test_rare_counts_are_not_told_and_nothing_but_the_code_stands_in_the_file(store: OmopStore) -> None:
    seen(store, "condition_occurrence", ("rare thing", 3), ("often seen", 12))
    rows = list(csv.DictReader(io.StringIO(written(suggest(store, codes=9, candidates_each=1, model=False)))))
    assert {(row["source_code"], row["records"]) for row in rows} == {
        ("rare thing", "<11"),
        ("often seen", "12"),
    }
    assert set(rows[0]) == set(COLUMNS)
    assert [one.source_code for one in unmapped(store)] == ["often seen", "rare thing"]


def test_a_cell_that_a_spreadsheet_would_run_is_text_there_and_itself_when_read(store: OmopStore) -> None:
    seen(store, "condition_occurrence", ("=heart attack", 1))
    text = written(suggest(store, codes=1, candidates_each=5, model=False))
    assert "\n,condition_occurrence,any,'=heart attack," in text
    rows = text.replace("\n,condition_occurrence", "\nyes,condition_occurrence", 1)
    assert [one.source_code for one in read(rows).mappings] == ["=heart attack"]


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("maybe,any,code,5", "decision"),
        ("yes,any,code,-5", "concept_id"),
        ("yes,any,code,5.0", "concept_id"),
        ("yes,any,,5", "source_code"),
        (f"yes,{'v' * 21},code,5", "source_vocabulary_id"),
        ("yes,any,code,5,6", "line"),
        ("yes,any,code,5\nyes,any,code,6", "decision"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_by_line_and_column(line: str, column: str) -> None:
    with pytest.raises(MalformedReview) as refused:
        read(f"decision,source_vocabulary_id,source_code,concept_id\n{line}\n")
    assert refused.value.column == column
    assert "code" not in str(refused.value).replace("source_code", "").replace("this code", "")


def test_a_target_that_the_vocabulary_does_not_hold_accepts_nothing(store: OmopStore) -> None:
    head = "decision,source_vocabulary_id,source_code,concept_id\n"
    with pytest.raises(UnknownTarget):
        accept(store, read(f"{head}yes,any,a,{ASPIRIN}\nyes,any,b,999\n"), now=NOW)
    assert in_force(store) == []
    assert mapped(store, ("local:x", "a")) == [0]


def test_a_code_of_a_known_vocabulary_is_suggested_by_its_name_and_mapped_in_its_system(
    store: OmopStore,
) -> None:
    with store.writing() as writer:
        writer.execute(
            "INSERT INTO concept VALUES (2000000007, 'Heart attack (local list)', 'Condition', "
            "'OurCodes', 'Code',"
            " NULL, 'X7', '2020-01-01', '2099-12-31', NULL)"
        )
        writer.execute(
            "INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id,"
            " condition_start_date, condition_type_concept_id, condition_source_value, "
            "condition_source_concept_id)"
            " VALUES (1, 1, 0, DATE '2020-01-01', 32817, 'X7', 2000000007)"
        )
    (found,) = suggest(store, codes=5, candidates_each=3, model=False).found
    assert (found.source.source_vocabulary_id, found.source.source_code) == ("OurCodes", "X7")
    assert found.candidates[0][0].concept_id == HEART_ATTACK


def test_without_the_model_suggestions_say_so(store: OmopStore) -> None:
    seen(store, "condition_occurrence", ("heart attack", 1))
    found = suggest(store, codes=1, candidates_each=1, model=False)
    assert found.method == LEXICAL
    assert found.note is not None


def test_ranking_is_the_same_every_time_and_unlike_for_unlike(store: OmopStore) -> None:
    names = candidates(store, "measurement")
    labels = ["Arterial Blood Pressure systolic", "BUN", "Hematocrit (serum)", "zzz qqq"]
    one = Ranker(names, embedder=None).best(labels, most=5)
    assert one == Ranker(list(reversed(names)), embedder=None).best(labels, most=5)
    assert [best[0].concept_id for best in one[:3]] == [3004249, 3013682, 3009542]
    assert one[3] == []
    assert Ranker([], embedder=None).best(["x"], most=5) == [[]]
    assert Ranker([Named(1, "a name")], embedder=None).best(["A Name"], most=1)[0][0].score == 1.0
