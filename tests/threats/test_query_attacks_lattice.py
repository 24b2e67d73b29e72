"""Floating-point leakage: which numbers an answer can be must not depend on what is counted.

Three attacks find the patient in naive floating-point noise, and nothing in ours: which floats are attainable
(Mironov 2012), how fine an answer's last bits are (Haney, Desfontaines, Hartman, Shrestha, Hay 2022), and
what a sum of values is modulo the unit of a patient, where noise comes in whole units. The totals here went
through a real secure sum; all of them are whole numbers on one lattice, with no gaps.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from privacy import release
from privacy.lattice import NoisePlan
from protocols.question import Mechanism, Question
from protocols.statistic import MEAN_UNIT, Count, Incidence, Mean, OneValue, Statistic
from tests.node.patients import SBP
from tests.privacy.seeded_bits import SeededBits
from tests.threats.games import COHORT, Advantage, bounds, question, released, report

ACCEPT, REJECT = 1e-4, 1e-9
UNIT = 2.0**-53  # of a uniform float in [0, 1)
EPSILON, SCALE = 0.1, 10.0  # 1/ε
SITES, GAMES = 3, 60_000
VALUES = OneValue(SBP)

Floats = np.ndarray


def naive(count: int, size: int, *, seed: int) -> Floats:
    """Return `count` plus textbook Laplace noise: an inverted uniform, in floats."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, 2**53, size)
    return count + rng.choice([-1.0, 1.0], size) * (SCALE * np.log(steps * UNIT))


def ours(count: int, size: int, *, seed: int, mechanism: Mechanism = Mechanism.LAPLACE) -> Floats:
    """Return the totals of three hospitals that find `count` patients together."""
    asked = question(epsilon=EPSILON, mechanism=mechanism, max_sites_per_patient=1)
    vectors = [np.array([count]), *[np.array([0])] * (SITES - 1)]
    return released(asked, vectors, games=size, seed=seed)[:, 0]


# ---- attacks on "1 or 2 patients" and "none or 1" ----


def attainable(answers: Floats, count: int) -> np.ndarray:
    """Return which answers textbook noise can make of `count`: tries the uniforms next to the inverse."""
    noise = answers - count
    near = np.rint(np.exp(-np.abs(noise) / SCALE) / UNIT)
    found = np.zeros(len(answers), dtype=bool)
    for step in range(-8, 9):
        steps = np.clip(near + step, 1, 2**53 - 1)
        found |= count + np.sign(noise) * -(SCALE * np.log(steps * UNIT)) == answers
    return found


def by_gaps(answers: Floats) -> np.ndarray:
    """Say "2" for what 1 cannot become, "1" for what 2 cannot become, and what is likelier otherwise."""
    one, two = attainable(answers[:, 0], 1), attainable(answers[:, 0], 2)
    return np.where(one == two, answers[:, 0] > 1.5, two)


def by_last_bits(answers: Floats) -> np.ndarray:
    """Say "none" if an answer is finer than floats near 1: noise alone is. Otherwise what is likelier."""
    finer = answers / UNIT != np.rint(answers / UNIT)
    likelier = (np.abs(answers) - np.abs(answers - 1.0)).sum(axis=1) > 0
    return ~finer.any(axis=1) & likelier


@pytest.mark.parametrize(
    ("name", "attack", "counts", "releases"),
    [("gaps between floats", by_gaps, (1, 2), 1), ("last bits of floats", by_last_bits, (0, 1), 40)],
    ids=["gaps", "last bits"],
)
def test_no_float_tells_what_was_counted(
    name: str, attack: Callable[[Floats], np.ndarray], counts: tuple[int, int], releases: int
) -> None:
    """And the same attack finds the patient in textbook noise of the same ε."""
    asked = question(epsilon=EPSILON, mechanism=Mechanism.LAPLACE, max_sites_per_patient=1)

    def played(make: Callable[..., Floats]) -> Advantage:
        worlds = [make(count, GAMES, seed=count).reshape(-1, releases) for count in reversed(counts)]
        return Advantage.of(*(attack(answers) for answers in worlds))

    reached, leak = played(ours), played(naive)
    exact, allowed = bounds(asked, releases=releases)
    title = f"{name}, laplace, {releases} × ε {EPSILON:g}"
    report(title, reached, bound=exact, promised=allowed, without=leak.value)
    assert leak.low > 1.2 * exact, "the control: floats break the promise"


# ---- the lattice ----


def vectors_of(asked: Question, first_value: int) -> list[np.ndarray]:
    """Return three hospitals' vectors, of which one has `first_value` in every cell."""
    cells = len(asked.labels)
    return [np.full(cells, first_value), np.zeros(cells, dtype=int), np.zeros(cells, dtype=int)]


STATISTICS: list[Statistic] = [Count(), Mean(VALUES, 80.0, 200.0), Incidence(COHORT, 2020, 2021)]


def lattice_of(asked: Question) -> int:
    """Return how many lattice steps make 1."""
    plan = release.plan(asked, participants=SITES, tolerance=1)
    return int(plan.scale) if isinstance(plan, NoisePlan) else 1


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda statistic: statistic.kind)
def test_every_total_is_a_whole_number_and_all_residues_are_as_likely(
    statistic: Statistic, mechanism: Mechanism
) -> None:
    """Whatever the true value: modulo 2, 3, the lattice, and the unit in which values are counted."""
    asked = question(statistic, mechanism=mechanism)
    lattice = lattice_of(asked)
    for value in (0, 1, 12_345):
        totals = released(asked, vectors_of(asked, value), games=GAMES, seed=7)[:, 0] * lattice
        assert np.array_equal(totals, np.rint(totals))
        whole = totals.astype(np.int64)
        for modulus in {2, 3, lattice} - {1}:
            assert even(whole, modulus) > ACCEPT
        if statistic.kind != "count":
            assert even(whole // 64, MEAN_UNIT // 64) > ACCEPT


def even(whole: np.ndarray, modulus: int) -> float:
    """Return the p-value of residues being equally likely."""
    if modulus <= 3 and np.std(whole) < 10:  # discrete noise of a few steps is not quite even
        return 1.0
    return float(stats.chisquare(np.bincount(whole % modulus, minlength=modulus)).pvalue)


@pytest.mark.parametrize("mechanism", Mechanism)
def test_the_numbers_that_can_be_answered_are_the_same_with_and_without_the_patient(
    mechanism: Mechanism,
) -> None:
    """Each point of the lattice near the centre is hit in both worlds: no gap tells them apart."""
    asked = question(epsilon=0.5, mechanism=mechanism)
    lattice = lattice_of(asked)
    seen = []
    for count in (50, 52):
        totals = released(asked, vectors_of(asked, count), games=400_000, seed=count)[:, 0]
        seen.append(set((totals * lattice).astype(np.int64).tolist()))
    spread = int(
        1.5 * release.plan(asked, participants=SITES, tolerance=1).standard_deviation(contributors=3)
    )
    centre = set(range((51 - spread) * lattice, (51 + spread) * lattice + 1))
    print(
        f"{f'points of the lattice near the centre, {mechanism}':<62} {len(centre)}, all hit in both worlds"
    )
    assert centre <= seen[0] & seen[1]


@pytest.mark.parametrize("mechanism", Mechanism)
def test_the_residue_of_a_mean_says_nothing_of_a_patient(mechanism: Mechanism) -> None:
    """Where noise came in whole units of a patient, the residue would be that of the exact sum."""
    asked = question(Mean(VALUES, 80.0, 200.0), mechanism=mechanism)
    without, patient = 20 * MEAN_UNIT, 1_234  # twenty patients at the upper end, and one between
    games = {}
    for target in (True, False):
        exact = without + patient * target
        games[target] = released(asked, vectors_of(asked, exact), games=GAMES, seed=9)[:, 1]
    says = [residue(games[target], patient) for target in (True, False)]
    reached = Advantage.of(*says)
    coarse = MEAN_UNIT * release.plan(question(mechanism=mechanism), participants=1, tolerance=0).noise(
        bits=SeededBits(4)
    ).view(np.int64)
    leaky = [residue(np.array([without + patient * target + coarse[0]]), patient) for target in (1, 0)]
    exact_bound, allowed = bounds(asked)
    report(
        f"residue of a mean, {mechanism}, ε 1",
        reached,
        bound=exact_bound,
        promised=allowed,
        without=float(leaky[0][0]) - float(leaky[1][0]),
    )
    assert abs(reached.value) < 0.02
    assert leaky[0][0]
    assert not leaky[1][0]


def residue(sums: np.ndarray, patient: int) -> np.ndarray:
    """Say "in" where the residue is nearer to the patient's than to 0."""
    found = sums.astype(np.int64) % MEAN_UNIT
    return (found > patient / 2) & (found < (patient + MEAN_UNIT) / 2)
