"""How far one patient can move the answer to a question: derived here, and nowhere else.

One patient's records at one hospital are added or removed (all of them). Membership in a cohort follows from
the patient's own records alone (tests/node/test_vector_sensitivity.py drops patients at random), so at that
hospital only the patient's own contribution to the vector changes:

    count                    one cell by 1
    breakdown, histogram,
    contingency, survival,
    attrition                disjoint cells: the patient is in one of them
    breakdown with total     that cell and the total
    breakdown by site band   the hospital leaves one band for another: two cells by 1
    feasibility              the hospital's answer: one cell by 1
    mean                     (Q, Q·x, Q·x²) with x in [-1, 1]: three cells by Q at most
    incidence                one event (UNIT), and at most floor(UNIT / √P) of person-time in each period

A patient who is known to m hospitals moves m such vectors, by the triangle inequality m times as far in
L1 and in L2. Figures are in the unit of the vector's whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from protocols.question import Question
from protocols.statistic import MEAN_UNIT, UNIT, Breakdown, By, Incidence, Mean, Statistic

MOST_PATIENTS = 2**28  # at one hospital: more than any country's largest insurer


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The largest change of the total in L1 and in L2, and the largest absolute value of one site's cell."""

    l1: float
    l2: float
    largest: int


def of(question: Question) -> Sensitivity:
    """Return the sensitivity of the question's total to one patient at all of their hospitals."""
    l1, squared, one = _at_one_site(question.statistic)
    sites = question.max_sites_per_patient
    return Sensitivity(
        l1=float(sites * l1),
        l2=_root(sites**2 * squared),
        largest=MOST_PATIENTS * one,
    )


def person_time_unit(statistic: Incidence) -> int:
    """Return what a whole period of one patient's person-time counts: UNIT / √P, rounded down.

    With it all periods of a patient together weigh no more than their one event, in L2.
    """
    return math.isqrt(UNIT**2 // len(statistic.periods))


def _at_one_site(statistic: Statistic) -> tuple[int, int, int]:
    """Return L1, L2² and the largest change of one cell, for one patient at one hospital."""
    match statistic:
        case Breakdown(by=By.SITE_COUNT_BAND) | Breakdown(total=True):
            return 2, 2, 1
        case Mean():
            return 3 * MEAN_UNIT, 3 * MEAN_UNIT**2, MEAN_UNIT
        case Incidence():
            periods, whole = len(statistic.periods), person_time_unit(statistic)
            return UNIT + periods * whole, UNIT**2 + periods * whole**2, UNIT
        case _:
            return 1, 1, 1


def _root(square: int) -> float:
    """Return the square root, exact for a square and otherwise rounded up."""
    whole = math.isqrt(square)
    return float(whole) if whole**2 == square else math.nextafter(math.sqrt(square), math.inf)
