"""An answer as its reader sees it: the noisy total of each cell of the statistic, with its error."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from privacy import release
from privacy.post_processing import CellNoise
from protocols.ids import QuestionId
from protocols.question import MAX_ATTEMPTS, Mechanism, Question
from protocols.wire import fedtwin_pb2 as pb

LEVEL = 0.95  # of every interval
_WORDS = {
    Mechanism.GAUSSIAN: "discrete Gaussian shares under secure sum",
    Mechanism.LAPLACE: "discrete Laplace (Pólya) shares under secure sum",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The noisy totals. Each is unbiased and may be negative; rounding and clamping are the reader's.

    `releases` is how often the sites were charged (epsilon, delta) for it: 1, or 2 after a retry. With
    `cached` the same release had been given before, and nothing was charged this time. `noise` is that of
    each cell, and knows how wide a 95 % interval is.
    """

    question_id: QuestionId
    labels: tuple[str, ...]
    estimates: tuple[float, ...]
    standard_deviation: float
    epsilon: float
    delta: float
    max_sites_per_patient: int
    contributors: int
    participants: int
    tolerance: int
    releases: int
    mechanism: str
    answered_at: datetime
    cached: bool
    question: Question = field(repr=False)
    noise: CellNoise = field(repr=False)

    @property
    def estimate(self) -> float:
        """The first cell."""
        return self.estimates[0]

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the first cell. It covers the noise only."""
        half = self.noise.half_width()
        return self.estimate - half, self.estimate + half

    @property
    def unit_of_privacy(self) -> str:
        """What the (epsilon, delta) protects, in words."""
        sites = self.max_sites_per_patient
        where = "one hospital" if sites == 1 else f"at most {sites} hospitals"
        return f"one patient: all of their records, in {where}"

    def to_json(self) -> dict[str, Any]:
        """Return the answer for a machine to read."""
        return {
            "question_id": str(self.question_id),
            "estimate": self.estimate,
            "ci95": list(self.ci95),
            "cells": dict(zip(self.labels, self.estimates, strict=True)),
            "standard_deviation": self.standard_deviation,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "unit_of_privacy": self.unit_of_privacy,
            "mechanism": self.mechanism,
            "contributors": self.contributors,
            "participants": self.participants,
            "tolerance": self.tolerance,
            "releases": self.releases,
            "answered_at": self.answered_at.isoformat(),
            "cached": self.cached,
        }


def read_answer(question: Question, wire: pb.Answer) -> Answer:
    """Return the estimates and their error from the noisy totals on the lattice.

    Raises: ValueError if the coordinator's figures contradict each other or name another question.
    """
    most = MAX_ATTEMPTS if wire.cached else question.attempts  # the first to ask may have signed for more
    if wire.question_id != question.question_id.raw or not 1 <= wire.releases <= most:
        raise ValueError("an answer to something else")
    shares = release.plan(question, participants=wire.participants, tolerance=wire.tolerance)
    totals = shares.decode(np.array(wire.scaled_totals, dtype=np.int64).view(np.uint64))
    noise = CellNoise.of(shares, contributors=wire.contributors, level=LEVEL)
    return Answer(
        question_id=question.question_id,
        labels=question.labels,
        estimates=tuple(float(total) for total in totals),
        standard_deviation=noise.deviation,
        epsilon=question.epsilon,
        delta=question.delta,
        max_sites_per_patient=question.max_sites_per_patient,
        contributors=wire.contributors,
        participants=wire.participants,
        tolerance=wire.tolerance,
        releases=wire.releases,
        mechanism=_WORDS[question.mechanism],
        answered_at=datetime.fromtimestamp(wire.answered_at_unix_s, UTC),
        cached=wire.cached,
        question=question,
        noise=noise,
    )
