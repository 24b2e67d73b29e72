"""What is asked about a cohort: each statistic is one vector of whole numbers per hospital, added by one sum.

The question alone says how many cells the vector has and what each of them means (`labels`); what one patient
can change in it is derived in `privacy.sensitivity`, how a hospital fills it in `node.queries.vector`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar

from protocols.circe import CirceCohort
from protocols.cohort import MAX_AGE_YEARS, MAX_CONCEPT_ID, MAX_MAGNITUDE, Cohort, Window

MAX_CELLS = 4_096  # a vector of 32 kB; a question with more is several questions
MAX_HORIZON_DAYS = 36_525  # a century
YEARS = range(1900, 2201)  # what a calendar year can be
UNIT = 1_024  # of events and person-time (incidence): 1/1024 of a period is a third of a day in a year
MEAN_UNIT = 4_096  # of x and x² (mean): steps of 1/4096 of half the clipping range

MALE, FEMALE = 8507, 8532  # OMOP's standard concepts of sex


class MalformedStatistic(ValueError):
    """The statistic breaks a rule. `field` names the key, never a value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class By(StrEnum):
    """What a breakdown splits a cohort by."""

    SEX = "sex"
    AGE_BAND = "age_band"
    YEAR = "year"
    SITE_COUNT_BAND = "site_count_band"


class Which(StrEnum):
    """Which of a patient's matching records gives the patient's one value."""

    FIRST = "first"
    LAST = "last"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"


class Step(StrEnum):
    """The length of one calendar period."""

    YEAR = "year"
    QUARTER = "quarter"
    MONTH = "month"

    @property
    def months(self) -> int:
        """How many months it has."""
        return {"year": 12, "quarter": 3, "month": 1}[self.value]


@dataclass(frozen=True, slots=True)
class Count:
    """How many patients are in the cohort: [n]."""

    kind: ClassVar[str] = "count"

    def to_json(self) -> dict[str, Any]:
        """Return the form."""
        return {"kind": self.kind}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The cohort split into disjoint cells, or (by site_count_band) the hospitals split by cohort size.

    By sex: [male, female, other or unknown], of `gender_concept_id`. By age_band: [below the first edge, ..,
    last edge and over], of the age in years at the index date (its year less `year_of_birth`). By year of the
    index date: [first, .., last, other years]. By site_count_band: 1 in the band that the hospital's count
    lies in. With `total` one more cell in front.

    Args:
        edges: ascending lower bounds of bands: ages in years, or patients at one site. Only for bands.
        first_year, last_year: of the index date, both counted. Only by year.
        total: whether the size of the cohort is measured as well, in a cell of its own in front. It costs
            more noise and lets the cells be reconciled with it.
    """

    kind: ClassVar[str] = "breakdown"
    by: By
    edges: tuple[int, ...] = ()
    first_year: int | None = None
    last_year: int | None = None
    total: bool = False

    def __post_init__(self) -> None:
        banded = self.by in (By.AGE_BAND, By.SITE_COUNT_BAND)
        if banded != bool(self.edges):
            raise MalformedStatistic("edges", "given for bands, and for nothing else")
        _ascending("edges", self.edges)
        top = MAX_AGE_YEARS if self.by is By.AGE_BAND else MAX_CONCEPT_ID
        if self.edges and not 1 <= self.edges[0] <= self.edges[-1] <= top:
            raise MalformedStatistic("edges", f"1 to {top}")
        years = (self.first_year, self.last_year)
        if (self.by is By.YEAR) != all(year is not None for year in years) or (
            self.by is not By.YEAR and any(year is not None for year in years)
        ):
            raise MalformedStatistic("first_year", "first_year and last_year are for a breakdown by year")
        if self.first_year is not None and self.last_year is not None:
            if self.first_year not in YEARS or self.last_year not in YEARS:
                raise MalformedStatistic("first_year", f"{YEARS[0]} to {YEARS[-1]}")
            if self.first_year > self.last_year:
                raise MalformedStatistic("last_year", "not before first_year")
        if self.total and self.by is By.SITE_COUNT_BAND:
            raise MalformedStatistic("total", "the number of hospitals is known")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        found: dict[str, Any] = {"kind": self.kind, "by": self.by.value}
        if self.edges:
            found["edges"] = list(self.edges)
        if self.first_year is not None:
            found |= {"first_year": self.first_year, "last_year": self.last_year}
        if self.total:
            found["total"] = True
        return found


@dataclass(frozen=True, slots=True)
class OneValue:
    """How a patient gets one number: from the records of a measurement around the index date.

    Of several values on the first (last) day the smallest (largest) counts; nothing is converted between
    units. In terms of the CDM's columns: node.queries.values.

    Args:
        concept: of the measurement; descendants: whether those below it count too.
        unit: OMOP concept of the unit that a record must have, or None for any.
        which: which of the records that match.
        window: days around the index date; None for all of the patient's records.
    """

    concept: int
    descendants: bool = True
    unit: int | None = None
    which: Which = Which.LAST
    window: Window | None = None

    def __post_init__(self) -> None:
        for name in ("concept", "unit"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_CONCEPT_ID:
                raise MalformedStatistic(name, f"a concept id, 1 to {MAX_CONCEPT_ID}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"concept": self.concept}
        if not self.descendants:
            found["descendants"] = False
        if self.unit is not None:
            found["unit"] = self.unit
        if self.which is not Which.LAST:
            found["which"] = self.which.value
        if self.window is not None:
            found["window"] = {"from_days": self.window.from_days, "to_days": self.window.to_days}
        return found


@dataclass(frozen=True, slots=True)
class Histogram:
    """How one value per patient is distributed over bins with the ascending `edges`.

    [below, bin 1, .., bin k, last edge and over, no value]; an edge belongs to the bin above it.
    """

    kind: ClassVar[str] = "histogram"
    value: OneValue
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) < 2:
            raise MalformedStatistic("edges", "at least two")
        _ascending("edges", self.edges)
        if not all(math.isfinite(edge) and abs(edge) <= MAX_MAGNITUDE for edge in self.edges):
            raise MalformedStatistic("edges", f"finite, at most {MAX_MAGNITUDE:g}")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        return {"kind": self.kind, **self.value.to_json(), "edges": list(self.edges)}


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean and variance of one value per patient, each clipped to lower..upper.

    [Q, Q·x, Q·x²] summed over the patients with a value, each number rounded: x is the clipped value mapped
    to [-1, 1] linearly, Q is MEAN_UNIT.
    """

    kind: ClassVar[str] = "mean"
    value: OneValue
    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(end) and abs(end) <= MAX_MAGNITUDE for end in (self.lower, self.upper)):
            raise MalformedStatistic("lower", f"lower and upper are finite, at most {MAX_MAGNITUDE:g}")
        if not self.lower < self.upper:
            raise MalformedStatistic("upper", "above lower")

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        return {"kind": self.kind, **self.value.to_json(), "lower": self.lower, "upper": self.upper}


@dataclass(frozen=True, slots=True)
class Contingency:
    """Two cohorts crossed: [both, cohort only, other only, neither], of all persons ever observed.

    These are the persons with an observation period; a member of a cohort without one is in no cell.
    """

    kind: ClassVar[str] = "contingency"
    other: Cohort | CirceCohort

    def to_json(self) -> dict[str, Any]:
        """Return the form."""
        return {"kind": self.kind, "other": self.other.to_json()}


@dataclass(frozen=True, slots=True)
class Incidence:
    """New outcomes and person-time at risk in each calendar period from first_year to last_year.

    A patient is at risk from the index date until the day of the first `outcome` or the end of the
    observation period that holds the index date, both days counted; not at all if that outcome is before the
    index date (prevalent) or no observation period holds it. OHDSI's CohortIncidence counts the same with a
    time at risk from day 0 and a clean window without end. [events 1..P, person-time 1..P]: an event counts
    UNIT, and of each period a patient counts floor(w · days at risk / days of the period), w = UNIT / √P
    rounded down (`privacy.sensitivity.person_time_unit`).
    """

    kind: ClassVar[str] = "incidence"
    outcome: Cohort | CirceCohort
    first_year: int
    last_year: int
    step: Step = Step.YEAR

    def __post_init__(self) -> None:
        if self.first_year not in YEARS or self.last_year not in YEARS:
            raise MalformedStatistic("first_year", f"{YEARS[0]} to {YEARS[-1]}")
        if self.first_year > self.last_year:
            raise MalformedStatistic("last_year", "not before first_year")

    @property
    def periods(self) -> tuple[date, ...]:
        """The first day of each period, in order."""
        months = range(1, 13, self.step.months)
        return tuple(
            date(year, month, 1) for year in range(self.first_year, self.last_year + 1) for month in months
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "outcome": self.outcome.to_json(),
            "first_year": self.first_year,
            "last_year": self.last_year,
        }
        if self.step is not Step.YEAR:
            found["step"] = self.step.value
        return found


@dataclass(frozen=True, slots=True)
class Survival:
    """Time from the index date to the `outcome` in intervals of days, for a Kaplan-Meier curve.

    Who is followed, and until when, is as in `Incidence`: an outcome on the index day is an event on day 0,
    one before it leaves the patient out. [events 1..K, censored 1..K, beyond]: interval j holds the days
    (j-1)·interval_days to j·interval_days - 1 after the index date; a patient whose event or end of
    observation is on day horizon_days or later is beyond. Event and end on one day are an event.
    """

    kind: ClassVar[str] = "survival"
    outcome: Cohort | CirceCohort
    horizon_days: int
    interval_days: int

    def __post_init__(self) -> None:
        if not 1 <= self.interval_days <= self.horizon_days <= MAX_HORIZON_DAYS:
            raise MalformedStatistic(
                "horizon_days", f"interval_days, at least 1, up to horizon_days, up to {MAX_HORIZON_DAYS}"
            )

    @property
    def intervals(self) -> int:
        """How many intervals reach the horizon; the last one may be shorter."""
        return math.ceil(self.horizon_days / self.interval_days)

    def to_json(self) -> dict[str, Any]:
        """Return the form."""
        return {
            "kind": self.kind,
            "outcome": self.outcome.to_json(),
            "horizon_days": self.horizon_days,
            "interval_days": self.interval_days,
        }


@dataclass(frozen=True, slots=True)
class Attrition:
    """How many patients come how far along the inclusion rules: [passed exactly 0, 1, .., all of them].

    Patients without index event are in no cell. With Circe a patient counts with the event of theirs that
    passes most rules in a row.

    Args:
        order: for our own cohort form the order in which its criteria are applied: places in the cohort's
            `include` followed by its `exclude`. Empty: that order itself. Circe's rules have theirs.
    """

    kind: ClassVar[str] = "attrition"
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise MalformedStatistic("order", "each place once, from 0")
        if list(self.order) == list(range(len(self.order))):
            object.__setattr__(self, "order", ())

    def to_json(self) -> dict[str, Any]:
        """Return the form with defaults left out."""
        return {"kind": self.kind, "order": list(self.order)} if self.order else {"kind": self.kind}


@dataclass(frozen=True, slots=True)
class Feasibility:
    """How many hospitals have at least `at_least` patients of the cohort: [1] or [0] from each."""

    kind: ClassVar[str] = "feasibility"
    at_least: int

    def __post_init__(self) -> None:
        if not 1 <= self.at_least <= MAX_CONCEPT_ID:
            raise MalformedStatistic("at_least", "1 or more patients")

    def to_json(self) -> dict[str, Any]:
        """Return the form."""
        return {"kind": self.kind, "at_least": self.at_least}


Statistic = (
    Count | Breakdown | Histogram | Mean | Contingency | Incidence | Survival | Attrition | Feasibility
)
KINDS = tuple(
    kind.kind
    for kind in (
        Count,
        Breakdown,
        Histogram,
        Mean,
        Contingency,
        Incidence,
        Survival,
        Attrition,
        Feasibility,
    )
)


def rules(cohort: Cohort | CirceCohort) -> int:
    """Return how many inclusion rules a cohort has."""
    if isinstance(cohort, Cohort):
        return len(cohort.include) + len(cohort.exclude)
    return len(cohort.to_json().get("InclusionRules", []))


def cohorts(cohort: Cohort | CirceCohort, statistic: Statistic) -> tuple[Cohort | CirceCohort, ...]:
    """Return every cohort that answering reads: the question's own first."""
    if isinstance(statistic, Contingency):
        return cohort, statistic.other
    if isinstance(statistic, Incidence | Survival):
        return cohort, statistic.outcome
    return (cohort,)


def labels(statistic: Statistic, cohort: Cohort | CirceCohort) -> tuple[str, ...]:
    """Return what each cell of the vector means, in order. Their number is the vector's dimension.

    >>> labels(Breakdown(By.AGE_BAND, edges=(18, 65)), Cohort.parse({"include": [{"kind": "sex",
    ...     "concepts": [8532]}]}))
    ('below 18', '18 to 64', '65 and over')
    """
    match statistic:
        case Count():
            return ("patients",)
        case Breakdown():
            return (("total",) if statistic.total else ()) + _breakdown_labels(statistic)
        case Histogram(edges=edges):
            bins = tuple(f"{low:g} to below {high:g}" for low, high in pairwise(edges))
            return (f"below {edges[0]:g}", *bins, f"{edges[-1]:g} and over", "no value")
        case Mean():
            return ("patients", "sum of x", "sum of x²")
        case Contingency():
            return ("both", "cohort only", "other only", "neither")
        case Incidence():
            names = [_period_label(first, statistic.step) for first in statistic.periods]
            return tuple(f"{what} {name}" for what in ("events", "person-time") for name in names)
        case Survival():
            steps = range(statistic.intervals)
            return (*(f"{what} {j + 1}" for what in ("events", "censored") for j in steps), "beyond")
        case Attrition():
            return tuple(f"passed {k} rules" for k in range(rules(cohort) + 1))
        case Feasibility(at_least=least):
            return (f"hospitals with at least {least}",)


def check(statistic: Statistic, cohort: Cohort | CirceCohort) -> None:
    """Refuse a statistic that does not fit its cohort. Raises: MalformedStatistic."""
    if isinstance(statistic, Attrition) and statistic.order:
        if not isinstance(cohort, Cohort):
            raise MalformedStatistic("order", "the rules of a Circe definition have their order")
        if len(statistic.order) != rules(cohort):
            raise MalformedStatistic("order", "names each criterion once")
    if isinstance(statistic, Incidence):
        cells = 2 * len(statistic.periods)
    elif isinstance(statistic, Survival):
        cells = 2 * statistic.intervals + 1
    else:
        cells = len(labels(statistic, cohort))
    if cells > MAX_CELLS:
        raise MalformedStatistic("$", f"at most {MAX_CELLS} cells")


def _ascending(name: str, edges: tuple[int, ...] | tuple[float, ...]) -> None:
    if any(not low < high for low, high in pairwise(edges)):
        raise MalformedStatistic(name, "ascending, each once")


def _breakdown_labels(statistic: Breakdown) -> tuple[str, ...]:
    if statistic.by is By.SEX:
        return ("male", "female", "other or unknown")
    if statistic.first_year is not None and statistic.last_year is not None:
        return (*map(str, range(statistic.first_year, statistic.last_year + 1)), "other years")
    edges = statistic.edges
    inner = tuple(f"{low} to {high - 1}" for low, high in pairwise(edges))
    return (f"below {edges[0]}", *inner, f"{edges[-1]} and over")


def _period_label(first: date, step: Step) -> str:
    if step is Step.YEAR:
        return f"{first.year}"
    if step is Step.QUARTER:
        return f"{first.year}-Q{(first.month + 2) // 3}"
    return f"{first.year}-{first.month:02}"
