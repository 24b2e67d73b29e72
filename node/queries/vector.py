"""The answer of one hospital to one question: whole numbers, one for each cell, before any noise.

Guarantee: the cells are those of `protocols.statistic.labels`, known from the question alone; a hospital
without a patient to count answers zeros. A patient's records change the vector by no more than
`privacy.sensitivity` says, as no patient's row has a part in what is computed of another's
(tests/node/test_vector_sensitivity.py). The same data give the same numbers in every run.
A concept that the hospital's vocabulary does not know matches no record and is no error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.omop.errors import NoSuchTable, NotTheCdm, NoVocabulary
from node.queries.attrition import attrition
from node.queries.breakdowns import breakdown, contingency, size
from node.queries.engine import CdmEngine
from node.queries.follow_up import incidence, survival
from node.queries.grouped import Grouping
from node.queries.limits import OutOfMemory
from node.queries.values import histogram, mean
from protocols.circe import CirceCohort
from protocols.cohort import Cohort, MalformedCohort
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import (
    Attrition,
    Breakdown,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    MalformedStatistic,
    Mean,
    Statistic,
    Survival,
    check,
    labels,
)


def vector(cohort: Cohort | CirceCohort, statistic: Statistic, engine: CdmEngine) -> NDArray[np.int64]:
    """Return the exact vector of one hospital. Never for anyone outside before noise is added.

    Raises: Refused, with MALFORMED for a statistic that does not fit its cohort or a definition that Circe
        has no meaning for, NO_DATA if the store lacks a table or column, UNKNOWN_CONCEPT if it lacks the
        vocabulary that a Circe definition needs, DEADLINE if time or memory do not suffice.
    """
    try:
        check(statistic, cohort)
        with Grouping(engine) as grouping:
            cells = _cells(cohort, statistic, grouping)
    except (MalformedStatistic, MalformedCohort):
        raise Refused(RefusalCode.MALFORMED) from None
    except NoVocabulary:
        raise Refused(RefusalCode.UNKNOWN_CONCEPT) from None
    except (NoSuchTable, NotTheCdm):
        raise Refused(RefusalCode.NO_DATA) from None
    except OutOfMemory:
        raise Refused(RefusalCode.DEADLINE) from None
    if cells.shape != (len(labels(statistic, cohort)),) or cells.dtype != np.int64:
        raise RuntimeError("the vector is not the one that the question asks for")
    return cells


def _cells(cohort: Cohort | CirceCohort, statistic: Statistic, grouping: Grouping) -> NDArray[np.int64]:
    match statistic:
        case Count():
            return np.array([size(cohort, grouping)], dtype=np.int64)
        case Feasibility(at_least=least):
            return np.array([size(cohort, grouping) >= least], dtype=np.int64)
        case Breakdown():
            return breakdown(cohort, statistic, grouping)
        case Contingency():
            return contingency(cohort, statistic, grouping)
        case Histogram():
            return histogram(cohort, statistic, grouping)
        case Mean():
            return mean(cohort, statistic, grouping)
        case Survival():
            return survival(cohort, statistic, grouping)
        case Incidence():
            return incidence(cohort, statistic, grouping)
        case Attrition():
            return attrition(cohort, statistic, grouping)
