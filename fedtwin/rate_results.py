"""Results that are ratios of noisy cells at one moment: means and odds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fedtwin.count_results import COUNTS, patients
from fedtwin.estimates import Estimate, Interval, odds_ratio
from fedtwin.result import Result, Row, interval_text, interval_words
from privacy import moments, post_processing
from privacy.reading import Answer
from protocols.statistic import MEAN_UNIT, Mean


@dataclass(frozen=True, repr=False)
class MeanResult(Result):
    """Mean, variance and standard deviation of one value per patient, each clipped to the given bounds."""

    UNIT: ClassVar[int] = MEAN_UNIT
    COUNTED: ClassVar[str] = "patients, and as much in the sums of scaled values"

    patients: Estimate
    mean: Estimate
    variance: Estimate
    sd: Estimate

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Mean`."""
        statistic = answer.question.statistic
        assert isinstance(statistic, Mean)
        found = moments.mean_and_variance(
            np.array(answer.estimates),
            unit=MEAN_UNIT,
            lower=statistic.lower,
            upper=statistic.upper,
            noise=answer.noise,
        )
        half = answer.noise.half_width() / MEAN_UNIT
        variance = found.variance_interval
        return cls(
            answer,
            patients("patients with a value", found.patients, (found.patients - half, found.patients + half)),
            Estimate.around("mean", found.mean, found.mean_interval, population=found.population_interval),
            Estimate.around("variance", found.variance, variance),
            Estimate.around(
                "standard deviation",
                None if found.variance is None else math.sqrt(found.variance),
                (math.sqrt(variance[0]), math.sqrt(variance[1])),
            ),
        )

    @property
    def estimate(self) -> float | None:
        """The mean; None where the noise hides how many patients have a value."""
        return self.mean.value

    @property
    def ci95(self) -> Interval:
        """95 % interval of the mean over these patients."""
        return self.mean.ci95

    @property
    def headline(self) -> str:
        """The result in one line."""
        return "mean " + interval_text(self.mean)

    def table(self) -> list[Row]:
        """Return one row for each figure."""
        return [
            {
                "figure": figure.name,
                **figure.columns(),
                "population_low": figure.population[0] if figure.population else "",
                "population_high": figure.population[1] if figure.population else "",
            }
            for figure in (self.patients, self.mean, self.variance, self.sd)
        ]

    def figures(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "estimate": self.estimate,
            "ci95": list(self.ci95),
            "patients": self.patients.to_json(),
            "mean": self.mean.to_json(),
            "variance": self.variance.to_json(),
            "sd": self.sd.to_json(),
        }


@dataclass(frozen=True, repr=False)
class ContingencyResult(Result):
    """How many patients are in the cohort, in the other one, in both, in neither; and the odds ratio."""

    WHOLE: ClassVar[frozenset[str]] = COUNTS

    cells: tuple[Estimate, ...]
    odds_ratio: Estimate

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer to `Contingency`. The odds ratio is that of the unbiased cells."""
        both, only, other, neither = answer.estimates
        half = answer.noise.half_width()
        made = post_processing.onto_own_sum(np.array(answer.estimates))
        return cls(
            answer,
            tuple(
                patients(name, value, (raw - half, raw + half))
                for name, value, raw in zip(answer.labels, made.tolist(), answer.estimates, strict=True)
            ),
            odds_ratio((both, only, other, neither), noise=answer.noise),
        )

    @property
    def headline(self) -> str:
        """The result in one line."""
        wide = interval_words(self.odds_ratio.population or self.odds_ratio.ci95)
        return f"odds ratio {interval_text(self.odds_ratio)}; as a sample of more patients {wide}"

    def table(self) -> list[Row]:
        """Return the four cells."""
        return [
            {"in": cell.name, "patients": cell.value, "low": cell.low, "high": cell.high}
            for cell in self.cells
        ]

    def figures(self) -> dict[str, Any]:
        """Return the cells and the odds ratio."""
        return {
            "consistent": {cell.name: cell.to_json() for cell in self.cells},
            "odds_ratio": self.odds_ratio.to_json(),
        }
