"""A stratum's part of a Cox model: score, information and log of the partial likelihood of one site's people.

Each site is a stratum, with a baseline hazard of its own, so the parts of all sites add up to those of the
stratified model, and no day on which anything happened to anybody leaves a site. Of people whose events share
a day, Efron's approximation (1977) or Breslow's (1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one stratum adds."""

    score: Vector
    information: Matrix
    log_likelihood: float


def part(x: Matrix, days: Vector, came: Vector, coefficients: Vector, *, ties: str) -> Part:
    """Return the part of people with covariates `x`, followed for `days`, until the outcome came or not.

    Args: came, 1 or 0 each; ties, "efron" or "breslow".
    """
    size = len(coefficients)
    score, information, value = np.zeros(size), np.zeros((size, size)), 0.0
    if not len(x):
        return Part(score, information, value)
    order = np.argsort(-days, kind="stable")
    x, days, event = x[order], days[order], came[order] > 0.5
    eta = x @ coefficients
    top = float(eta.max())
    weight = np.exp(eta - top)
    starts = np.flatnonzero(np.diff(days, prepend=np.inf))
    at_risk = _Sums.zeros(size)
    for start, end in zip(starts, np.append(starts[1:], len(days)), strict=True):
        at_risk = at_risk.plus(_Sums.of(x[start:end], weight[start:end]))
        happened = event[start:end]
        deaths = int(happened.sum())
        if not deaths:
            continue
        there = x[start:end][happened]
        tied = _Sums.of(there, weight[start:end][happened])
        gone = np.arange(deaths) / deaths if ties == "efron" else np.zeros(deaths)
        total = at_risk.weight - gone * tied.weight
        mean = (at_risk.first[None] - gone[:, None] * tied.first[None]) / total[:, None]
        score += there.sum(axis=0) - mean.sum(axis=0)
        information += at_risk.second * (1.0 / total).sum() - tied.second * (gone / total).sum()
        information -= mean.T @ mean
        value += float((eta[start:end][happened] - top).sum() - np.log(total).sum())
    return Part(score, information, value)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Weights, weighted covariates, and their weighted products, of the people at risk."""

    weight: float
    first: Vector
    second: Matrix

    @classmethod
    def zeros(cls, size: int) -> _Sums:
        return cls(0.0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, x: Matrix, weight: Vector) -> _Sums:
        weighted = x * weight[:, None]
        return cls(float(weight.sum()), weighted.sum(axis=0), weighted.T @ x)

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(self.weight + other.weight, self.first + other.first, self.second + other.second)
