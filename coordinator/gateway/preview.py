"""What a question would cost and how exact its answer would be, from public figures only: free to ask."""

from __future__ import annotations

from typing import Any

from privacy import release
from privacy.post_processing import CellNoise
from privacy.reading import LEVEL
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb


def preview(question: Question, consortium: pb.DescribeReply) -> dict[str, Any]:
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
    }
    try:
        release.price(question)
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
