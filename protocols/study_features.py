"""What a model sees of a person: the features of a study, each with the columns it becomes.

kind           columns
value          a number: scaled by `range` to [-1, 1], or along `knots`; which one by `pick`
age            years at the index date, scaled alike
sex, present   0 or 1; with `signed`, -1 or 1
category       0 or 1, or -1 or 1, for each of `categories` (value_as_concept_id) or `codes` (value_as_number)
count          how many records: log(1 + n) / log(1 + most), at most 1
stay           days in visits until the index date, encoded as a count
sequence       for each concept and half-life h: 1 - exp(-Σ 2^(-days ago / h)), which says how much of it
               there was and how lately; half-lives of several lengths keep the order of codes
comorbidity    0 or 1 for each group of `index` (protocols.comorbidity), and their weighted sum / most
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocols import comorbidity
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
from protocols.study_records import (
    COUNTED_TABLES,
    UTILIZATION_TABLES,
    Records,
    Window,
    parse_codes,
    parse_concepts,
    parse_range,
    parse_records,
)

PICKS = ("latest", "earliest", "mean", "minimum", "maximum", "spread", "change", "slope")
MAX_KNOTS = 33
MAX_HALF_LIVES = 4
MOST = 1e6
MAX_PRIOR = 100.0  # of a logistic weight on a scale of [-1, 1]: far beyond any that means something
SHORT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature. Values outside `plausible` are not believed.

    A missing value takes `fill` (the midpoint of the range by default); with `missing_flag` a column says so.
    With `exclude_missing`, a person without it is not in the study. Along public `knots` there is a column
    for each interval between two of them: how far the value has come through it, from 0 to 1 (a
    piecewise-linear encoding, Gorishniy et al. 2022), all 0 if it is missing.

    `pick`: of several values the latest, earliest, mean, least or largest; or their standard deviation
    (spread), latest less earliest (change), or least-squares change per day (slope), of two or more.
    `signed` puts the middle of a yes or no at 0, which is what an unknown category counts as: the noise of a
    small budget then falls on weights, not on what all patients share.
    `modality` names the group that is present or missing together. `prior` is the weight that a logistic
    model starts from: public knowledge, such as a textbook's score, which costs no budget.
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
    most: float = 0.0
    half_lives_days: tuple[float, ...] = ()
    index: str = ""
    modality: str = ""
    prior: float = 0.0
    signed: bool = False

    @property
    def levels(self) -> tuple[float, ...]:
        """The categories or codes, one column each."""
        return self.codes or tuple(float(concept) for concept in self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns it becomes."""
        names: tuple[str, ...] = (self.name,)
        if self.kind == "category":
            names = tuple(f"{self.name}={value:.15g}" for value in self.levels)
        elif self.knots:
            names = tuple(f"{self.name}>{low:.15g}" for low in self.knots[:-1])
        elif self.kind == "sequence":
            assert self.records is not None  # the parser gives this kind its records
            concepts = self.records.concept_ids
            names = tuple(f"{self.name}:{c}@{h:.15g}" for c in concepts for h in self.half_lives_days)
        elif self.kind == "comorbidity":
            names = (*(f"{self.name}:{group.name}" for group in comorbidity.groups(self.index)), self.name)
        return (*names, f"{self.name}:missing") if self.missing_flag else names

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.records is not None:
            found |= self.records.to_json()
        if self.kind == "comorbidity":
            del found["table"]  # always conditions
        if self.range is not None:
            found["range"] = list(self.range)
            found["fill"] = self.fill
        if self.kind in ("value", "category"):
            found["pick"] = self.pick
        for key in ("plausible", "categories", "codes", "knots", "half_lives_days"):
            if getattr(self, key):
                found[key] = list(getattr(self, key))
        if self.concept_ids:
            found["concept_id"] = list(self.concept_ids)
        for key in ("most", "index", "modality", "prior"):
            if getattr(self, key):
                found[key] = getattr(self, key)
        found |= {key: True for key in ("missing_flag", "exclude_missing", "signed") if getattr(self, key)}
        return found


def parse_feature(fields: Fields) -> Feature:
    """Return the feature that a table describes. Raises: MalformedStudy."""
    name = checked_text(*fields.take("name"), SHORT_NAME)
    kind = checked_name(*fields.take("kind"), KINDS)
    found = _PARSERS[kind](fields)
    if "modality" in fields:
        found["modality"] = checked_text(*fields.take("modality"), SHORT_NAME)
    if "signed" in fields:
        if kind not in YES_OR_NO:
            raise MalformedStudy(f"{fields.path}.signed", "goes with a yes or no")
        found["signed"] = checked_flag(*fields.take("signed"))
    if "prior" in fields:
        found["prior"] = checked_float(*fields.take("prior"), low=-MAX_PRIOR, high=MAX_PRIOR)
    fields.done()
    return Feature(name, kind, **found)


def _value(fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {"records": parse_records(fields, with_value=True, by_source=True)}
    found |= _picking(fields, PICKS)
    if "plausible" in fields:
        found["plausible"] = parse_range(*fields.take("plausible"))
    return found | _scale(fields)


def _category(fields: Fields) -> dict[str, Any]:
    found = {"records": parse_records(fields, with_value=True, by_source=True)} | _picking(fields, PICKS)
    if found["pick"] not in ("latest", "earliest"):
        raise MalformedStudy(f"{fields.path}.pick", "a category is the latest or the earliest one")
    if "codes" in fields:
        return found | {"codes": parse_codes(*fields.take("codes"))}
    return found | {"categories": parse_concepts(*fields.take("categories"))}


def _picking(fields: Fields, picks: tuple[str, ...]) -> dict[str, Any]:
    return {
        "pick": checked_name(*fields.take("pick", "latest"), picks),
        "missing_flag": checked_flag(*fields.take("missing_flag", False)),
        "exclude_missing": checked_flag(*fields.take("exclude_missing", False)),
    }


def _scale(fields: Fields) -> dict[str, Any]:
    if "knots" in fields:
        return {"knots": _knots(*fields.take("knots"))}
    low, high = parse_range(*fields.take("range"))
    fill = fields.take("fill", (low + high) / 2)
    return {"range": (low, high), "fill": checked_float(*fill, low=low, high=high)}


def _sex(fields: Fields) -> dict[str, Any]:
    return {"concept_ids": parse_concepts(*fields.take("concept_id"))}


def _present(fields: Fields) -> dict[str, Any]:
    return {"records": _counted(fields)}


def _count(fields: Fields) -> dict[str, Any]:
    return {"records": _counted(fields), "most": _most(fields)}


def _stay(fields: Fields) -> dict[str, Any]:
    tables = ("visit_occurrence",)
    records = parse_records(fields, with_value=False, tables=tables, any_concept=tables)
    return {"records": records, "most": _most(fields)}


def _sequence(fields: Fields) -> dict[str, Any]:
    records = parse_records(fields, with_value=False, tables=COUNTED_TABLES)
    value, path = fields.take("half_lives_days")
    lives = checked_list(value, path, at_most=MAX_HALF_LIVES)
    if not lives:
        raise MalformedStudy(path, "needs at least one half-life")
    found = sorted({checked_float(life, path, above=0.0, high=1e5) for life in lives})
    return {"records": records, "half_lives_days": tuple(found)}


def _comorbidity(fields: Fields) -> dict[str, Any]:
    window = Window.parse(*fields.take("window")) if "window" in fields else None
    return {
        "records": Records("condition_occurrence", (), window=window),
        "index": checked_name(*fields.take("index"), comorbidity.INDICES),
        "most": _most(fields),
    }


def _counted(fields: Fields) -> Records:
    return parse_records(
        fields, with_value=False, tables=COUNTED_TABLES, any_concept=UTILIZATION_TABLES, by_source=True
    )


def _most(fields: Fields) -> float:
    return checked_float(*fields.take("most"), above=0.0, high=MOST)


_PARSERS: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "value": _value,
    "present": _present,
    "category": _category,
    "age": _scale,
    "sex": _sex,
    "count": _count,
    "stay": _stay,
    "sequence": _sequence,
    "comorbidity": _comorbidity,
}
KINDS = tuple(_PARSERS)
YES_OR_NO = ("sex", "present", "category")


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
