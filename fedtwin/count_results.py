"""Results whose cells are numbers of patients or of hospitals: counts, breakdowns, histograms, attrition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fedtwin.estimates import Estimate, Interval
from fedtwin.result import Result, Row, interval_text, json_rows
from privacy import post_processing
from privacy.post_processing import Reals
from privacy.reading import Answer
from protocols.statistic import Breakdown, By, Feasibility

COUNTS = frozenset({"patients", "low", "high"})
WORDS_OF = {By.SEX: "sex", By.AGE_BAND: "age", By.YEAR: "year", By.SITE_COUNT_BAND: "patients at a hospital"}


@dataclass(frozen=True, repr=False)
class CountResult(Result):
    """How many patients are in the cohort."""

    WHOLE: ClassVar[frozenset[str]] = COUNTS

    patients: Estimate

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Count`."""
        return cls(answer, patients("patients", answer.estimate, answer.ci95))

    @property
    def estimate(self) -> float:
        """The number of patients, not below 0. Not rounded; `raw.estimate` is the unbiased one."""
        return self.patients.value or 0.0

    @property
    def ci95(self) -> Interval:
        """95 % interval of the number of patients. It covers the noise, which is all that is uncertain."""
        return self.patients.ci95

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.patients, "patients", whole=True)

    def table(self) -> list[Row]:
        """Return one row."""
        return [_row("", "cohort", self.patients)]

    def figures(self) -> dict[str, Any]:
        """Return estimate and ci95."""
        return {"estimate": self.estimate, "ci95": list(self.ci95)}


@dataclass(frozen=True, repr=False)
class CellsResult(Result):
    """Patients (or, for site_count_band, hospitals) in disjoint cells, and their total; they add up."""

    WHOLE: ClassVar[frozenset[str]] = COUNTS | {"hospitals"}

    cells: tuple[Estimate, ...]
    total: Estimate

    @property
    def what(self) -> str:
        """What the cells count."""
        return "patients"

    @property
    def split(self) -> str:
        """What the cells are of."""
        return "cell"

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.total, self.what, whole=True) + f", by {self.split}"

    def table(self) -> list[Row]:
        """Return one row for each cell, and the total."""
        return [_row(self.split, cell.name, cell, self.what) for cell in (*self.cells, self.total)]

    def figures(self) -> dict[str, Any]:
        """Return the consistent cells and the total."""
        return {
            "consistent": {cell.name: cell.to_json() for cell in self.cells},
            "total": self.total.to_json(),
        }


@dataclass(frozen=True, repr=False)
class BreakdownResult(CellsResult):
    """The cohort split by sex, age or year; or the hospitals by the size of the cohort there."""

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Breakdown`: by least squares with the total, if that was measured too."""
        statistic = answer.question.statistic
        assert isinstance(statistic, Breakdown)
        if statistic.by is By.SITE_COUNT_BAND:
            return cls(answer, *_of_known_total(answer))
        return cls(answer, *(_with_total(answer) if statistic.total else _disjoint(answer)))

    @property
    def what(self) -> str:
        """What the cells count."""
        return "hospitals" if self._by is By.SITE_COUNT_BAND else "patients"

    @property
    def split(self) -> str:
        """What the cells are of."""
        return WORDS_OF[self._by]

    @property
    def _by(self) -> By:
        statistic = self.raw.question.statistic
        assert isinstance(statistic, Breakdown)
        return statistic.by


@dataclass(frozen=True, repr=False)
class HistogramResult(CellsResult):
    """How one value per patient is distributed: below the bins, in each, above them, and no value."""

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Histogram`."""
        return cls(answer, *_disjoint(answer))

    @property
    def split(self) -> str:
        """What the cells are of."""
        return "value"


@dataclass(frozen=True, repr=False)
class AttritionResult(Result):
    """How many patients are left after each inclusion rule: never more than before it."""

    WHOLE: ClassVar[frozenset[str]] = COUNTS

    remaining: tuple[Estimate, ...]

    @classmethod
    def of(cls, answer: Answer, *, rules: tuple[str, ...] = ()) -> Self:
        """Read an answer to `Attrition`. `rules` names the rules in the order in which they are applied."""
        count = len(answer.labels) - 1
        names = rules if len(rules) == count else tuple(f"rule {number + 1}" for number in range(count))
        found = post_processing.attrition(np.array(answer.estimates), noise=answer.noise)
        return cls(
            answer,
            tuple(
                patients(name, left, (raw - half, raw + half))
                for name, left, raw, half in zip(
                    ("before any rule", *names),
                    found.remaining.tolist(),
                    found.raw.tolist(),
                    found.half_width.tolist(),
                    strict=True,
                )
            ),
        )

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.remaining[-1], "patients after all rules", whole=True)

    def table(self) -> list[Row]:
        """Return one row for each rule."""
        first = self.remaining[0].value or 0.0
        return [
            {**_row("after", left.name, left), "left": f"{(left.value or 0.0) / first:.0%}" if first else ""}
            for left in self.remaining
        ]

    def figures(self) -> dict[str, Any]:
        """Return the monotone table."""
        return {"remaining": [{"after": left.name, **left.to_json()} for left in self.remaining]}


@dataclass(frozen=True, repr=False)
class FeasibilityResult(Result):
    """How many hospitals have at least so many patients of the cohort."""

    COUNTED: ClassVar[str] = "hospitals"

    hospitals: Estimate

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Feasibility`."""
        statistic = answer.question.statistic
        assert isinstance(statistic, Feasibility)
        most = float(answer.contributors)
        value = min(max(answer.estimate, 0.0), most)
        name = f"at least {statistic.at_least} patients"
        return cls(answer, Estimate.around(name, value, answer.ci95, lowest=0.0, highest=most))

    @property
    def estimate(self) -> float:
        """The number of hospitals, from 0 to all that answered."""
        return self.hospitals.value or 0.0

    @property
    def ci95(self) -> Interval:
        """95 % interval of the number of hospitals."""
        return self.hospitals.ci95

    @property
    def headline(self) -> str:
        """The result in one line."""
        return interval_text(self.hospitals, f"of {self.sites} hospitals have {self.hospitals.name}")

    def table(self) -> list[Row]:
        """Return one row."""
        return [_row("hospitals with", self.hospitals.name, self.hospitals, "hospitals")]

    def figures(self) -> dict[str, Any]:
        """Return estimate and ci95."""
        return {"estimate": self.estimate, "ci95": list(self.ci95), "rows": json_rows(self.table())}


def patients(name: str, value: float, interval: Interval) -> Estimate:
    """Return a number of patients: not below 0."""
    return Estimate.around(name, max(value, 0.0), interval, lowest=0.0)


def _row(column: str, name: str, figure: Estimate, what: str = "patients") -> Row:
    return {column: name, what: figure.value, "low": figure.low, "high": figure.high}


def _disjoint(answer: Answer) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return cells not below 0 that keep the sum that was measured, which is unbiased."""
    raw = np.array(answer.estimates)
    total = float(raw.sum())
    half, of_total = answer.noise.half_width(), answer.noise.half_width(cells=raw.size)
    cells = _estimates(answer.labels, post_processing.onto_own_sum(raw), raw, np.full(raw.size, half))
    return cells, patients("total", total, (total - of_total, total + of_total))


def _with_total(answer: Answer) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return cells reconciled with the total that was measured beside them."""
    noise = answer.noise
    found = post_processing.with_total(
        np.array(answer.estimates[1:]),
        answer.estimates[0],
        cell_variance=noise.deviation**2,
        total_variance=noise.deviation**2,
    )
    halves = noise.factor * np.sqrt(found.cell_variance)
    cells = _estimates(answer.labels[1:], post_processing.onto_own_sum(found.cells), found.cells, halves)
    half = noise.factor * math.sqrt(found.total_variance)
    return cells, patients("total", found.total, (found.total - half, found.total + half))


def _of_known_total(answer: Answer) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return numbers of hospitals: their sum is known without noise, each hospital is in one cell."""
    raw, known = np.array(answer.estimates), float(answer.contributors)
    centred = raw + (known - raw.sum()) / raw.size
    half = answer.noise.half_width() * math.sqrt(1.0 - 1.0 / raw.size)
    cells = _estimates(
        answer.labels, post_processing.onto_sum(centred, known), centred, np.full(raw.size, half), known
    )
    return cells, Estimate("total", known, known, known)


def _estimates(
    names: tuple[str, ...], values: Reals, centres: Reals, halves: Reals, highest: float = math.inf
) -> tuple[Estimate, ...]:
    return tuple(
        Estimate.around(name, value, (centre - half, centre + half), lowest=0.0, highest=highest)
        for name, value, centre, half in zip(
            names, values.tolist(), centres.tolist(), halves.tolist(), strict=True
        )
    )
