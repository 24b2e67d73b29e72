"""Problems and drugs in notes: negated or not, whose and when; measured on made and on public notes."""

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from node.ingest.note_nlp import Dictionary, annotate, dictionary_of, mentions
from node.ingest.note_sections import Section, parts
from node.omop import starter
from node.omop.store import OmopStore

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        starter.install(opened, now=NOW)
        yield opened


@pytest.fixture
def dictionary(store: OmopStore) -> Dictionary:
    return dictionary_of(store)


def found(text: str, dictionary: Dictionary) -> dict[str, str]:
    """Each mention as written, with N(egated), F(amily), P(ast), H(ypothetical), U(nsure)."""
    return {
        text[one.begin : one.end]: "".join(
            letter
            for letter, said in (
                ("N", one.context.negated),
                ("F", one.context.family),
                ("P", one.context.past),
                ("H", one.context.hypothetical),
                ("U", one.context.unsure),
            )
            if said
        )
        for one in mentions(text, dictionary)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient has asthma and takes metformin.", {"asthma": "", "metformin": ""}),
        ("No evidence of pneumonia.", {"pneumonia": "N"}),
        ("Denies chest pain, cough, or fever.", {"chest pain": "N", "cough": "N", "fever": "N"}),
        ("Denies fever but has cough.", {"fever": "N", "cough": ""}),
        ("No change in asthma.", {"asthma": ""}),
        ("Pneumonia was ruled out.", {"Pneumonia": "N"}),
        ("Pneumonia cannot be ruled out.", {"Pneumonia": "U"}),
        ("Pulmonary embolism is unlikely.", {"Pulmonary embolism": "N"}),
        ("Her mother had breast cancer.", {"breast cancer": "F"}),
        ("Mother with gout. He has asthma.", {"gout": "F", "asthma": ""}),
        ("His father died of MI, and he has hypertension.", {"MI": "F", "hypertension": ""}),
        ("History of stroke in 2002.", {"stroke": "P"}),
        ("Suspected pneumonia.", {"pneumonia": "U"}),
        ("Return to the clinic if fever develops.", {"fever": "H"}),
        ("I saw mi casa.", {}),  # an abbreviation stands in capitals
        ("Lasix 40 mg, acetylsalicylic acid", {"Lasix": "", "acetylsalicylic acid": ""}),
        (
            "acute myocardial infarctions and type 2 diabetes",
            {"type 2 diabetes": "", "myocardial infarctions": ""},
        ),
        ("No fever. Cough for two days.", {"fever": "N", "Cough": ""}),
    ],
)
def test_what_a_sentence_says_of_a_problem(
    text: str, expected: dict[str, str], dictionary: Dictionary
) -> None:
    assert found(text, dictionary) == expected


def test_sections_decide_whose_and_when(dictionary: Dictionary) -> None:
    text = (
        "CC: cough\nPMH: gout, asthma\nFamily History:\nDiabetes.\n"
        "Return precautions: fever\nPLAN\nstart metformin"
    )
    assert [part.section for part in parts(text)] == [
        Section.COMPLAINT, Section.PAST, Section.FAMILY, Section.INSTRUCTIONS, Section.PLAN,
    ]  # fmt: skip
    assert found(text, dictionary) == {
        "cough": "", "gout": "P", "asthma": "P", "Diabetes": "F", "fever": "H", "metformin": "",
    }  # fmt: skip
    assert all(text[part.begin : part.end] == text[part.begin : part.end] for part in parts(text))


def noted(store: OmopStore, *texts: str) -> None:
    with store.writing() as writer:
        writer.execute("DELETE FROM note")
        for number, text in enumerate(texts, 1):
            writer.execute(
                "INSERT INTO note (note_id, person_id, note_date, note_type_concept_id, "
                "note_class_concept_id,"
                " note_text, encoding_concept_id, language_concept_id) VALUES (?, 1, ?, 32831, 0, ?, 0, 0)",
                [number, date(2020, 1, 1), text],
            )


def rows(store: OmopStore) -> list[tuple]:  # type: ignore[type-arg]
    return store.connection.con.execute(
        'SELECT note_nlp_id, note_id, note_nlp_concept_id, lexical_variant, "offset", term_exists,'
        " term_temporal,"
        ' term_modifiers, snippet FROM note_nlp ORDER BY note_id, CAST("offset" AS INT)'
    ).fetchall()


def test_rows_are_those_of_the_notes_however_often_they_are_made(store: OmopStore) -> None:
    noted(store, "No asthma. Took aspirin.", "PMH: gout", "")
    assert annotate(store, now=NOW) == 3
    first = rows(store)
    assert [row[1:7] for row in first] == [
        (1, 317009, "asthma", "3", "N", "Present"),
        (1, 1112807, "aspirin", "16", "Y", "Present"),
        (2, 440674, "gout", "5", "Y", "Past"),
    ]
    assert first[0][7] == "negation=negated,experiencer=patient,certainty=certain,section=other"
    assert first[1][8] == "No asthma. Took aspirin."
    assert annotate(store, now=NOW.replace(year=2027)) == 3
    assert rows(store) == first
    noted(store, "", "PMH: gout")
    assert annotate(store, now=NOW) == 1
    assert rows(store) == [first[2]]


def test_long_and_odd_texts_take_no_more_than_their_length(dictionary: Dictionary) -> None:
    odd = "no " * 5_000 + "asthma\n" * 2_000 + "\x00 ((( [[[ \\ " * 500 + "é中" * 1_000
    assert len(mentions(odd, dictionary)) == 2_000


_FRAMES = (
    # how someone might write it, and what it means: exists?, whose
    ("{a} diagnosed last week.", True, "patient"),
    ("Presents with {a} and {b}.", True, "patient"),
    ("She reports {a}, also {b} since Monday.", True, "patient"),
    ("There is no {a} or {b}.", False, "patient"),
    ("Negative for {a}, {b}.", False, "patient"),
    ("{a}: denies. ", False, "patient"),
    ("Patient without {a}.", False, "patient"),
    ("Never had {a}.", False, "patient"),
    ("{a} has been excluded.", False, "patient"),
    ("Paternal grandmother suffered from {a}.", False, "family"),
    ("Family history is positive for {a} and {b}.", False, "family"),
    ("Two siblings with {a}.", False, "family"),
    ("Should the patient develop {a}, call us.", False, "patient"),
    ("Screening for {a} was discussed.", False, "patient"),
    ("Known {a}, not worse; {b} persists.", True, "patient"),
    ("No fever at home, however {a} was noted.", True, "patient"),
    ("Not only {a}, there is {b} as well.", True, "patient"),
    ("Treated for {a} in the past.", True, "patient"),
    ("Ongoing {a} despite treatment.", True, "patient"),
    ("The {a} has worsened and she is tired.", True, "patient"),
)
_PROBLEMS = ("asthma", "gout", "pneumonia", "atrial fibrillation", "COPD", "migraine", "psoriasis", "GERD",
             "heart failure",
             "osteoporosis", "sinusitis", "chest pain", "hypothyroidism", "rheumatoid arthritis")  # fmt: skip


def test_generated_notes_are_read_as_they_were_meant(dictionary: Dictionary) -> None:
    rng = np.random.default_rng(11)
    counted: Counter[str] = Counter()
    for _ in range(400):
        first, second = rng.choice(_PROBLEMS, 2, replace=False).tolist()
        frame, exists, whose = _FRAMES[int(rng.integers(len(_FRAMES)))]
        sentence = frame.format(a=first, b=second)
        text = f"Seen in clinic today. {sentence} Vital signs stable."
        expected = [name for name in (first, second) if name in sentence]
        read = [one for one in mentions(text, dictionary) if text[one.begin : one.end] in expected]
        counted["wanted"] += len(expected)
        counted["found"] += len(read)
        counted["exists"] += sum(one.context.exists == exists for one in read)
        counted["whose"] += sum(one.context.family == (whose == "family") for one in read)
    assert counted["found"] == counted["wanted"]
    assert counted["exists"] >= 0.95 * counted["wanted"], counted
    assert counted["whose"] >= 0.98 * counted["wanted"], counted


# Of the 154 mentions that the rules find in MTS-Dialog's validation notes, each was read and judged.
_MTS_WRONG = {
    ("27", "glaucoma")
}  # "no recurrence, ..., and glaucoma surgery": a list after "no" that is not its own


def test_public_notes_are_read_as_a_reader_judged(dictionary: Dictionary) -> None:
    path = SHARED / "notes_mts" / "MTS-Dialog-ValidationSet.csv"
    if not path.is_file():
        pytest.skip("the MTS-Dialog notes of the shared data are not here")
    headings = {"PASTMEDICALHX": "PMH", "ROS": "ROS", "ALLERGY": "Allergies", "MEDICATIONS": "Medications"}
    negated, total = [], 0
    with path.open(encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            heading = headings.get(row["section_header"])
            text = f"{heading}:\n{row['section_text']}" if heading else row["section_text"]
            for one in mentions(text, dictionary):
                total += 1
                if one.context.negated:
                    negated.append((row["ID"], text[one.begin : one.end]))
    assert total == 154
    assert set(negated) >= _MTS_WRONG
    assert len(negated) == 54
