"""What the starter vocabulary holds, read from `node/omop/starter/` (sources and licences: NOTICE there)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

from node.omop.code_map import CodeMapping
from node.omop.tables import STARTER_VOCABULARY


class Checked(StrEnum):
    """Where a concept's number and name have been seen together."""

    CDM = "cdm"  # in the vocabulary of a public CDM: a test holds them against it
    PUBLISHED = "published"  # in a public mapping or list
    NOT = ""


@dataclass(frozen=True, slots=True)
class StarterConcept:
    """A concept of the starter vocabulary. `code` is the concept_id where the true code may not ship."""

    concept_id: int
    name: str
    domain_id: str
    vocabulary_id: str
    class_id: str
    code: str
    synonyms: tuple[str, ...] = ()
    standard: bool = True
    checked: Checked = Checked.NOT


@cache
def concepts() -> tuple[StarterConcept, ...]:
    """Return the concepts, each once, in order of their ids."""
    return tuple(sorted(_concepts(), key=lambda concept: concept.concept_id))


@cache
def diagnosis_codes() -> tuple[CodeMapping, ...]:
    """Return the ICD-10-CM codes and the concept each stands for."""
    return tuple(
        CodeMapping("ICD10CM", code, int(row["concept_id"]), row["name"])
        for row in _rows("conditions")
        for code in _split(row["icd10cm"])
    )


def _concepts() -> Iterator[StarterConcept]:
    for row in _rows("basics"):
        yield StarterConcept(
            int(row["concept_id"]), row["name"], row["domain_id"], row["vocabulary_id"], row["class_id"],
            row["code"], standard=row["standard"] == "S", checked=Checked(row["checked"]),
        )  # fmt: skip
    kinds = (
        ("units", "Unit", "UCUM", "Unit", "ucum"),
        ("ingredients", "Drug", "RxNorm", "Ingredient", "rxcui"),
        ("vaccines", "Drug", "CVX", "CVX", "cvx"),
        ("measurements", "Measurement", "LOINC", "", "loinc"),
        ("conditions", "Condition", STARTER_VOCABULARY, "Plain words", "concept_id"),
    )
    for file, domain, vocabulary, kind, code in kinds:
        for row in _rows(file):
            yield StarterConcept(
                int(row["concept_id"]),
                row["name"],
                domain,
                vocabulary,
                row.get("class", kind),
                row[code],
                _split(row.get("synonyms")),
                checked=Checked(row["checked"]),
            )


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("node.omop").joinpath("starter", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(";") if part.strip())
