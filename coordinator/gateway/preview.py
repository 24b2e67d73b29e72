"""What a question would cost and how exact its answer would be, from public figures only: free to ask."""

from __future__ import annotations

import math
from typing import Any

from privacy import release
from privacy.post_processing import CellNoise
from privacy.reading import LEVEL
from protocols import canonical
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb


def event_of(question: Question) -> str:
    """Return what one release of the question costs, as the coordinator's mirror reads it.

    Raises: Refused(MALFORMED) if no noise reaches this epsilon and delta.
    """
    try:
        return canonical.encode(release.price(question).to_json()).decode()
    except ValueError:
        raise Refused(RefusalCode.MALFORMED) from None


def preview(question: Question, consortium: pb.DescribeReply, budget: pb.BudgetReply) -> dict[str, Any]:
    """Return cost and expected error if the hospitals that are connected now all take part.

    Nothing is sent to a hospital, so this says nothing about whether their policies and budgets allow it.
    Raises: Refused(MALFORMED) if no noise reaches this epsilon and delta.
    """
    sites, tolerance = consortium.connected, consortium.tolerance
    found: dict[str, Any] = {
        "cost": {
            "epsilon": question.epsilon,
            "delta": question.delta,
            "releases_at_most": question.attempts,
            "charged_to": question.project,
        },
        "mechanism": question.mechanism.value,
        "cells": list(question.labels),
        "sites": sites,
        "minimum_sites": consortium.minimum_sites,
        "enough_sites": sites >= consortium.minimum_sites,
        "expected_error": None,
        "project": {"epsilon": finite(budget.epsilon), "epsilon_after": finite(budget.epsilon_with_next)},
    }
    try:
        if sites >= consortium.minimum_sites:
            plan = release.plan(question, participants=sites, tolerance=tolerance)
            noise = CellNoise.of(plan, contributors=sites, level=LEVEL)
            found["expected_error"] = {
                "standard_deviation": noise.deviation,
                "half_width_95": noise.half_width(),
                "tolerance": tolerance,
            }
    except ValueError:
        raise Refused(RefusalCode.MALFORMED) from None
    return found


def finite(value: float) -> float | None:
    """Return a number that JSON can hold; None for an epsilon that no delta bounds."""
    return value if math.isfinite(value) else None
