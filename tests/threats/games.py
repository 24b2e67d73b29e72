"""A membership game: a patient is in the data or not, and an attacker who knows all the rest says which.

An attack's advantage is the share of games in which it says "in" of worlds with the patient, less that of
worlds without: 0 for a coin, 1 for certainty. No attack on (ε, δ)-DP answers has more than
(e^ε − 1 + 2δ)/(e^ε + 1), none on Gaussian noise of total μ² more than 2Φ(μ/2) − 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from numpy.typing import NDArray
from scipy import stats

from privacy import release, sensitivity
from privacy.accountant import Composition, fold
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
from protocols.statistic import Count, Statistic
from tests.node.patients import AF
from tests.privacy.seeded_bits import SeededBits
from tests.privacy.sum_network import SumNetwork

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
DELTA = 1e-6
ERROR = 1e-4  # how often an interval may miss; seeds are fixed, so it misses always or never
COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [AF]}})

Says = NDArray[np.bool_]
Cells = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Advantage:
    """What an attack reached over so many games in each world, with an exact interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, in_when_in: Says, in_when_out: Says) -> Advantage:
        """Return the advantage of what the attacker said in the worlds with and without the patient."""
        right, wrong = _interval(in_when_in), _interval(in_when_out)
        value = float(np.mean(in_when_in)) - float(np.mean(in_when_out))
        return cls(value, right[0] - wrong[1], right[1] - wrong[0])


def _interval(says: Says) -> tuple[float, float]:
    """Clopper-Pearson."""
    found = stats.binomtest(int(np.sum(says)), len(says)).proportion_ci(1.0 - ERROR / 2.0, method="exact")
    return float(found.low), float(found.high)


def report(attack: str, reached: Advantage, *, bound: float, promised: float, without: float) -> None:
    """Print an attack's line (`pytest -s`) and hold it to its bound.

    Args: bound: of the exact trade-off; promised: by (ε, δ) alone; without: its advantage without protection.
    """
    print(
        f"{attack:<62} {reached.value:6.3f} [{reached.low:6.3f}, {reached.high:6.3f}]"
        f"  bound {bound:.3f}  (ε, δ) {promised:.3f}  unprotected {without:.3f}"
    )
    assert bound <= promised + 1e-9, "the exact bound is the sharper one"
    assert reached.low <= bound, f"{attack}: more than the bound"


# ---- bounds ----


def promised(epsilon: float, delta: float) -> float:
    """Return the most that (ε, δ)-DP allows any attack."""
    return (math.expm1(epsilon) + 2.0 * delta) / (math.exp(epsilon) + 1.0)


def gaussian_bound(composed: Composition) -> float:
    """Return the most that Gaussian releases allow: the total variation of N(0, 1) and N(μ, 1)."""
    assert not composed.pure
    return math.erf(math.sqrt(composed.mu_squared) / 2.0 / math.sqrt(2.0))


def bounds(asked: Question, *, releases: int = 1, delta: float = DELTA) -> tuple[float, float]:
    """Return the exact bound and the (ε, `delta`) bound of so many releases of the question's price.

    Exact for discrete Laplace noise is the total variation of the composed privacy loss, by dp_accounting.
    """
    composed = fold([release.price(asked)] * releases)
    if asked.mechanism is Mechanism.GAUSSIAN:
        return gaussian_bound(composed), promised(composed.epsilon(delta=delta), delta)
    moved = sensitivity.of(asked).l1
    noise = privacy_loss_distribution.from_discrete_laplace_mechanism(
        asked.epsilon / moved, sensitivity=round(moved)
    )
    exact = noise.self_compose(releases).get_delta_for_epsilon(0.0)
    if releases == 1:
        return exact, promised(asked.epsilon, 0.0)
    return exact, promised(composed.epsilon(delta=delta), delta)


# ---- the game ----


def question(
    statistic: Statistic = Count(),  # noqa: B008 (frozen and without state)
    *,
    cohort: Cohort = COHORT,
    epsilon: float = 1.0,
    mechanism: Mechanism = Mechanism.GAUSSIAN,
    max_sites_per_patient: int = 2,
) -> Question:
    """Return a question as researchers ask it: DELTA where the mechanism has one."""
    return Question.ask(
        cohort,
        project="threats",
        epsilon=epsilon,
        delta=0.0 if mechanism is Mechanism.LAPLACE else DELTA,
        max_sites_per_patient=max_sites_per_patient,
        now=NOW,
        statistic=statistic,
        mechanism=mechanism,
    )


def contributions(
    asked: Question, vectors: Sequence[Cells], *, games: int, seed: int, tolerance: int = 1
) -> tuple[release.Plan, list[NDArray[np.uint64]]]:
    """Return the plan and what each site sends in `games` independent games, noise share included.

    The games stand one behind the other in one wide vector: same code, same noise, one call.
    """
    plan = release.plan(asked, participants=len(vectors), tolerance=tolerance)
    wide = dataclasses.replace(plan, dimension=plan.dimension * games)
    sent = [
        wide.contribution(np.tile(vector, games), bits=SeededBits(1000 * seed + site))
        for site, vector in enumerate(vectors)
    ]
    return wide, sent


def released(
    asked: Question, vectors: Sequence[Cells], *, games: int, seed: int, tolerance: int = 1
) -> NDArray[np.float64]:
    """Return the totals of `games` games, one row each, as a real secure sum among the sites opens them."""
    plan, sent = contributions(asked, vectors, games=games, seed=seed, tolerance=tolerance)
    network = SumNetwork(len(vectors), colluders=tolerance, seed=seed).open()
    total = plan.decode(network.run(dict(enumerate(sent))))
    return total.reshape(games, len(asked.labels))


def evidence(
    asked: Question, totals: NDArray[np.float64], *, when_in: Cells, when_out: Cells
) -> NDArray[np.float64]:
    """Return how much each row speaks for "in": the log-likelihood ratio, up to a factor above 0.

    Args: when_in, when_out: the exact totals of the two worlds, which the attacker knows.
    """
    if asked.mechanism is Mechanism.LAPLACE:
        found = np.abs(totals - when_out) - np.abs(totals - when_in)
    else:
        found = (totals - (when_in + when_out) / 2.0) * (when_in - when_out)
    weight = 1.0 if asked.mechanism is Mechanism.LAPLACE else 1.0 / sensitivity.of(asked).l2 ** 2
    ratio: NDArray[np.float64] = found.sum(axis=1) * weight
    return ratio
