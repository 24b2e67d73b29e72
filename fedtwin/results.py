"""From an answer to the result that its statistic has."""

from __future__ import annotations

from fedtwin.count_results import (
    AttritionResult,
    BreakdownResult,
    CountResult,
    FeasibilityResult,
    HistogramResult,
)
from fedtwin.rate_results import ContingencyResult, MeanResult
from fedtwin.result import Result
from fedtwin.time_results import IncidenceResult, SurvivalResult
from privacy.reading import Answer
from protocols.statistic import (
    Attrition,
    Breakdown,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    Survival,
)


def read(answer: Answer, *, rules: tuple[str, ...] = ()) -> Result:
    """Return the result of an answer. `rules` names the cohort's inclusion rules, for attrition."""
    match answer.question.statistic:
        case Count():
            return CountResult.of(answer)
        case Breakdown():
            return BreakdownResult.of(answer)
        case Histogram():
            return HistogramResult.of(answer)
        case Mean():
            return MeanResult.of(answer)
        case Contingency():
            return ContingencyResult.of(answer)
        case Incidence():
            return IncidenceResult.of(answer)
        case Survival():
            return SurvivalResult.of(answer)
        case Attrition():
            return AttritionResult.of(answer, rules=rules)
        case Feasibility():
            return FeasibilityResult.of(answer)
