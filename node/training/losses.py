"""The loss of each patient, for every kind of outcome."""

from __future__ import annotations

import torch
from torch.nn import functional

from protocols.study_outcome import Outcome


def losses(outcome: Outcome, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return one loss for each entry of `outputs` [patients, views, outputs].

    Args: y: [patients] yes or no, class or amount in [-1, 1]; [patients, 2] for times: how many intervals
        were lived through, and whether the outcome came in the next one (else the patient is censored there).
    """
    views = outputs.shape[1]
    if outcome.task == "survival":
        return _survival(outputs, y[:, None, :].expand(-1, views, -1))
    repeated = y[:, None].expand(-1, views)
    if outcome.task == "multiclass":
        each = functional.cross_entropy(outputs.flatten(0, 1), repeated.flatten().long(), reduction="none")
        return each.view(-1, views)
    if outcome.task == "regression":
        return 0.5 * (outputs[..., 0] - repeated) ** 2
    return functional.binary_cross_entropy_with_logits(outputs[..., 0], repeated, reduction="none")


def _survival(hazards: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of discrete-time survival: a yes or no in each interval at risk."""
    interval = torch.arange(hazards.shape[-1], dtype=y.dtype)
    lived, event = y[..., :1], y[..., 1:]
    came = (interval == lived).to(y.dtype) * event
    at_risk = (interval < lived).to(y.dtype) + came
    each = functional.binary_cross_entropy_with_logits(hazards, came, reduction="none")
    return torch.where(at_risk > 0, each, torch.zeros_like(each)).sum(dim=-1)
