"""A drug is the same one however its name is written, and another one if its strength is another."""

import numpy as np
import pytest

from node.concept_maps.drug_names import DrugIndex, drug_name
from node.concept_maps.ranking import Named, Ranker


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("METFORMIN HCL 500MG TAB", "metformin hydrochloride 500 MG Tablet"),
        ("Levothyroxine sodium 50 mcg tablets", "levothyroxine 0.05 MG Tablet"),
        ("amoxicillin 125 mg/5 mL susp", "amoxicillin 25 MG/ML Suspension"),
        ("heparin 5,000 units/ml inj", "heparin sodium 5000 UNT/ML Injection"),
        ("Hydrocortisone 1% cream", "hydrocortisone 10 MG/ML Cream"),
        ("potassium chloride 20mEq ER", "potassium chloride 20 MEQ Extended Release"),
        (".5 gm metformin", "metformin 500 MG"),
        ("albuterol 90 mcg/puff", "salbutamol 0.09 MG/ACTUAT"),
    ],
)
def test_two_ways_of_writing_one_drug_have_one_form(said: str, meant: str) -> None:
    assert drug_name(said).text == drug_name(meant).text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("metformin 500 MG Tablet", "metformin 850 MG Tablet"),
        ("amoxicillin 25 MG/ML Suspension", "amoxicillin 25 MG Tablet"),
        ("potassium chloride 20 MEQ", "sodium chloride 20 MEQ"),
        ("insulin 100 UNT/ML", "insulin 100 MG/ML"),
    ],
)
def test_other_drugs_have_other_forms(one: str, other: str) -> None:
    assert drug_name(one).text != drug_name(other).text


def test_strength_decides_between_names_that_are_written_alike() -> None:
    names = [
        Named(number, f"lisinopril {strength} MG Oral Tablet")
        for number, strength in enumerate(("2.5", "5", "10", "20", "30", "40"), 1)
    ]
    with_strengths = Ranker(names, embedder=None, drugs=True)
    labels = ["LISINOPRIL 2500MCG TAB", "Tab lisinopril 0.04 g"]
    assert [best[0].concept_id for best in with_strengths.best(labels, most=5)] == [1, 6]
    by_writing = Ranker(names, embedder=None)
    assert [best[0].concept_id for best in by_writing.best(labels, most=5)] != [1, 6]


def test_a_name_that_was_cut_short_is_found_by_what_is_missing() -> None:
    long = "{5 (dienogest 2 MG / estradiol valerate 2 MG Oral Tablet) / 17 (dienogest 3 MG) } Pack [N..."
    names = [
        long,
        "{28 (norethindrone 0.35 MG Oral Tablet) } Pack [Errin 28 Day]",
        "{21 (desogestrel) } Pack [M...",
    ]
    scores = DrugIndex(names).scores(["Natazia 28 Day Pack"])[0]
    assert int(np.argmax(scores)) == 0
    assert scores[2] < scores[1]


def test_no_names_and_no_labels_are_no_error() -> None:
    assert DrugIndex([]).scores(["aspirin"]).shape == (1, 0)
    assert DrugIndex(["aspirin"]).scores([""]).tolist() == [[0.0]]


def test_a_large_vocabulary_takes_a_few_labels_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Named(number, f"drug{number} {number} MG Oral Tablet") for number in range(1, 40)]
    labels = [f"DRUG{number} {number}MG TAB" for number in range(1, 40, 3)]
    ranker = Ranker(names, embedder=None, drugs=True)
    whole = ranker.best(labels, most=3)
    monkeypatch.setattr("node.concept_maps.ranking._CELLS", 50)
    assert ranker.best(labels, most=3) == whole
    assert [best[0].concept_id for best in whole] == list(range(1, 40, 3))
