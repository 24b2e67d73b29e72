"""Answers to questions whose truth a test knows: real shares of noise on vectors that it chooses."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from privacy import release
from privacy.reading import Answer, read_answer
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
from protocols.statistic import Statistic
from protocols.wire import fedtwin_pb2 as pb
from tests.privacy.seeded_bits import SeededBits

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
COHORT = Cohort.parse(
    {
        "index": {"kind": "condition", "concepts": [201826]},
        "include": [{"kind": "sex", "concepts": [8532]}, {"kind": "age", "min_years": 40}],
    }
)
OUTCOME = Cohort.parse({"index": {"kind": "condition", "concepts": [316139]}})


def question(
    statistic: Statistic,
    *,
    epsilon: float = 1.0,
    mechanism: Mechanism = Mechanism.GAUSSIAN,
    sites: int = 1,
) -> Question:
    return Question.ask(
        COHORT,
        project="demo",
        epsilon=epsilon,
        delta=0.0 if mechanism is Mechanism.LAPLACE else 1e-6,
        max_sites_per_patient=sites,
        now=NOW,
        statistic=statistic,
        mechanism=mechanism,
    )


def answered(
    asked: Question,
    total: Sequence[int],
    *,
    seed: int,
    participants: int = 3,
    tolerance: int = 1,
    releases: int = 1,
    cached: bool = False,
) -> Answer:
    """Return the answer of `participants` sites whose vectors add up to `total`."""
    plan = release.plan(asked, participants=participants, tolerance=tolerance)
    bits = SeededBits(seed)
    vectors = [np.array(total, dtype=np.int64)] + [np.zeros(len(total), dtype=np.int64)] * (participants - 1)
    summed = sum(
        (plan.contribution(vector, bits=bits) for vector in vectors), np.zeros(len(total), dtype=np.uint64)
    )
    return read_answer(
        asked,
        pb.Answer(
            question_id=asked.question_id.raw,
            scaled_totals=[int(cell) for cell in summed.view(np.int64)],
            contributors=participants,
            participants=participants,
            tolerance=tolerance,
            releases=releases,
            answered_at_unix_s=NOW.timestamp(),
            cached=cached,
        ),
    )
