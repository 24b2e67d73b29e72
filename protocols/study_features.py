"""What a model sees of a person: the features of a study, each with the columns it becomes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_flag,
    checked_float,
    checked_list,
    checked_name,
    checked_text,
)
from protocols.study_fusion import Modality
from protocols.study_records import Records, parse_codes, parse_concepts, parse_range, parse_records

KINDS = ("value", "present", "category", "age", "sex")
PICKS = ("latest", "earliest", "mean", "minimum", "maximum")

MAX_KNOTS = 33
SHORT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature. `value` and `age` are scaled by the public `range` to [-1, 1] and clipped.

    `present`, `category` and `sex` (1 for `concept_ids`) are 0 or 1; a category has one column for each of
    its `categories` (concepts in value_as_concept_id) or `codes` (numbers in value_as_number). Values outside
    `plausible` are not believed. A missing value takes `fill` (the midpoint of the range by default); with
    `missing_flag` a column says so. With `exclude_missing`, a person without it is not in the study.

    With public `knots` instead of a range, there is a column for each interval between two of them: how far
    the value has come through it, from 0 to 1 (a piecewise-linear encoding, Gorishniy et al. 2022), all 0 if
    it is missing. `modality` names the group that is present or missing together.
    """

    name: str
    kind: str
    records: Records | None = None
    range: tuple[float, float] | None = None
    pick: str = "latest"
    fill: float | None = None
    missing_flag: bool = False
    exclude_missing: bool = False
    plausible: tuple[float, float] | None = None
    categories: tuple[int, ...] = ()
    codes: tuple[float, ...] = ()
    concept_ids: tuple[int, ...] = ()  # of `sex`: which gender concepts count as 1
    knots: tuple[float, ...] = ()
    modality: str = ""

    @property
    def levels(self) -> tuple[float, ...]:
        """The categories or codes, one column each."""
        return self.codes or tuple(float(concept) for concept in self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns it becomes."""
        if self.kind == "category":
            names = tuple(f"{self.name}={value:.15g}" for value in self.levels)
        elif self.knots:
            names = tuple(f"{self.name}>{low:.15g}" for low in self.knots[:-1])
        else:
            names = (self.name,)
        return (*names, f"{self.name}:missing") if self.missing_flag else names

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.records is not None:
            found |= self.records.to_json()
        if self.range is not None:
            found["range"] = list(self.range)
            found["fill"] = self.fill
        if self.kind in ("value", "category"):
            found["pick"] = self.pick
        for key in ("plausible", "categories", "codes", "knots"):
            if getattr(self, key):
                found[key] = list(getattr(self, key))
        if self.concept_ids:
            found["concept_id"] = list(self.concept_ids)
        if self.modality:
            found["modality"] = self.modality
        found |= {key: True for key in ("missing_flag", "exclude_missing") if getattr(self, key)}
        return found


def parse_feature(fields: Fields) -> Feature:
    """Return the feature that a table describes. Raises: MalformedStudy."""
    name = checked_text(*fields.take("name"), SHORT_NAME)
    kind = checked_name(*fields.take("kind"), KINDS)
    found: dict[str, Any] = {}
    if kind in ("value", "present", "category"):
        found["records"] = parse_records(fields, with_value=kind != "present")
    if kind in ("value", "category"):
        found["pick"] = checked_name(*fields.take("pick", "latest"), PICKS)
        found["missing_flag"] = checked_flag(*fields.take("missing_flag", False))
        found["exclude_missing"] = checked_flag(*fields.take("exclude_missing", False))
    if kind == "value" and "plausible" in fields:
        found["plausible"] = parse_range(*fields.take("plausible"))
    if kind in ("value", "age"):
        found |= _scale(fields)
    if kind == "category":
        found |= _levels(fields)
        if found["pick"] not in ("latest", "earliest"):
            raise MalformedStudy(f"{fields.path}.pick", "a category is the latest or the earliest one")
    if kind == "sex":
        found["concept_ids"] = parse_concepts(*fields.take("concept_id"))
    if "modality" in fields:
        found["modality"] = checked_text(*fields.take("modality"), SHORT_NAME)
    fields.done()
    return Feature(name, kind, **found)


def _scale(fields: Fields) -> dict[str, Any]:
    if "knots" in fields:
        return {"knots": _knots(*fields.take("knots"))}
    low, high = parse_range(*fields.take("range"))
    fill = fields.take("fill", (low + high) / 2)
    return {"range": (low, high), "fill": checked_float(*fill, low=low, high=high)}


def _levels(fields: Fields) -> dict[str, Any]:
    if "codes" in fields:
        return {"codes": parse_codes(*fields.take("codes"))}
    return {"categories": parse_concepts(*fields.take("categories"))}


def modalities(features: tuple[Feature, ...]) -> tuple[Modality, ...]:
    """Return the groups that features name, in the order of their first features, each with its columns."""
    columns: dict[str, list[int]] = {}
    observed: dict[str, list[int]] = {}
    at = 0
    for feature in features:
        count = len(feature.columns)
        columns.setdefault(feature.modality, []).extend(range(at, at + count))
        observed.setdefault(feature.modality, []).extend(range(at, at + count - feature.missing_flag))
        at += count
    return tuple(Modality(name, tuple(columns[name]), tuple(observed[name])) for name in columns)


def _knots(value: Any, path: str) -> tuple[float, ...]:
    knots = tuple(checked_float(one, path) for one in checked_list(value, path, at_most=MAX_KNOTS))
    if len(knots) < 2 or list(knots) != sorted(set(knots)):
        raise MalformedStudy(path, "needs two or more numbers in ascending order")
    return knots
