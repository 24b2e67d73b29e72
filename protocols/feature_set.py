"""A feature set: modalities of features as of an index date, in a file with a version and a hash.

    [feature_set]  name = "cardio", version = 2
    [[modalities]] name = "labs", observed_by = "any" | a table (then `window`): what makes it present
    [[features]]   as in a study (protocols.study_features), each with its `modality`

What it promises beyond a study's own features: nothing after a person's index date goes in. Each feature that
reads records states a window that ends on the index date or earlier, and a record counts only if its source
had recorded it by then. Each value states its unit (`unit_concept_id`, or `unitless = true`), and every scale
is public, part of the file, and so of the hash.

A study holds the whole set under `[feature_set]`, so the hash that a hospital approves covers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from protocols import canonical
from protocols.study_features import SHORT_NAME, Feature, parse_feature
from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_flag,
    checked_int,
    checked_list,
    checked_name,
    checked_text,
    read_toml,
)
from protocols.study_fusion import MAX_MODALITIES
from protocols.study_records import COUNTED_TABLES, Window

FORMAT = "fedtwin-feature-set-v1"
MAX_FEATURES = 1024
ANY = "any"


@dataclass(frozen=True, slots=True)
class ModalityRule:
    """When a modality counts as present: some value of it is there, or any record of a table in a window.

    The second is for what is told by absence too: no code of heart failure means something only of a patient
    who has been seen.
    """

    name: str
    observed_by: str = ANY
    window: Window | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"name": self.name}
        if self.observed_by != ANY:
            found["observed_by"] = self.observed_by
        if self.window is not None:
            found["window"] = [self.window.from_days, self.window.to_days]
        return found


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A validated set. Equal sets have equal hashes, whatever the order of keys in their files."""

    name: str
    version: int
    modalities: tuple[ModalityRule, ...]
    features: tuple[Feature, ...]
    unitless: frozenset[str]  # names of features whose values have no unit

    @property
    def last_day(self) -> int:
        """The last day, from the index date, that any feature looks at."""
        windows = [f.records.window for f in self.features if f.records is not None]
        windows += [rule.window for rule in self.modalities]
        return max((window.to_days for window in windows if window is not None), default=0)

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it reads, besides person."""
        read = {f.records.table for f in self.features if f.records is not None}
        return frozenset(read | {rule.observed_by for rule in self.modalities if rule.observed_by != ANY})

    def shapes(self) -> dict[str, int]:
        """Return how many columns each modality has."""
        found = {rule.name: 0 for rule in self.modalities}
        for feature in self.features:
            found[feature.modality] += len(feature.columns)
        return found

    @classmethod
    def parse(cls, toml: bytes) -> Self:
        """Return the set written in `toml`. Raises: MalformedStudy, naming the path of what is wrong."""
        return cls.from_json(read_toml(toml))

    @classmethod
    def from_json(cls, value: Any, path: str = "$") -> Self:
        """Return the set that a parsed form describes. Raises: MalformedStudy."""
        top = Fields(value, path)
        at = "" if path == "$" else f"{path}."
        head = top.section("feature_set")
        name = checked_text(*head.take("name"), SHORT_NAME)
        version = checked_int(*head.take("version"), low=1, high=1_000_000)
        head.done()
        listed = checked_list(*top.take("modalities"), at_most=MAX_MODALITIES)
        rules = tuple(_rule(Fields(rule, f"{at}modalities[{n}]")) for n, rule in enumerate(listed))
        features, unitless = [], set()
        for place, form in enumerate(checked_list(*top.take("features"), at_most=MAX_FEATURES)):
            fields = Fields(form, f"{at}features[{place}]")
            no_unit = checked_flag(*fields.take("unitless", False))
            features.append(_checked(parse_feature(fields), fields.path, no_unit))
            unitless |= {features[-1].name} if no_unit else set()
        top.done()
        named = [rule.name for rule in rules]
        if len(set(named)) != len(named) or {f.modality for f in features} != set(named):
            raise MalformedStudy(f"{at}modalities", "each once, and each with features of its own")
        return cls(name, version, rules, tuple(features), frozenset(unitless))

    def to_json(self) -> dict[str, Any]:
        """Return the form that `from_json` reads, with every default written out."""
        features = [
            f.to_json() | ({"unitless": True} if f.name in self.unitless else {}) for f in self.features
        ]
        return {
            "feature_set": {"name": self.name, "version": self.version},
            "modalities": [rule.to_json() for rule in self.modalities],
            "features": features,
        }

    def hash(self) -> bytes:
        """Return the 32 bytes that name these features, in stores, models and reports."""
        return canonical.digest({"format": FORMAT, "features": self.to_json()})


def _rule(fields: Fields) -> ModalityRule:
    name = checked_text(*fields.take("name"), SHORT_NAME)
    by = checked_name(*fields.take("observed_by", ANY), (ANY, *COUNTED_TABLES))
    window = None
    if by != ANY:
        window = Window.parse(*fields.take("window"))
        _past(window, f"{fields.path}.window")
    fields.done()
    return ModalityRule(name, by, window)


def _checked(feature: Feature, path: str, unitless: bool) -> Feature:
    """Return a feature that keeps to the promises of a set. Raises: MalformedStudy."""
    if not feature.modality:
        raise MalformedStudy(f"{path}.modality", "is missing")
    if feature.records is not None:
        if feature.records.window is None:
            raise MalformedStudy(f"{path}.window", "is missing")
        _past(feature.records.window, f"{path}.window")
    needs_unit = feature.kind == "value"
    has_unit = feature.records is not None and feature.records.unit_concept_id is not None
    if needs_unit == (has_unit == unitless):
        raise MalformedStudy(f"{path}.unit_concept_id", "a value has a unit, or is unitless")
    if not needs_unit and unitless:
        raise MalformedStudy(f"{path}.unitless", "only a value may be")
    return feature


def _past(window: Window, path: str) -> None:
    if window.to_days > 0:
        raise MalformedStudy(path, "ends on the index date (0) or earlier: later records are not known then")
