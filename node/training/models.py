"""The two kinds of model a study may name, as torch modules that hold a flat parameter vector.

All in float64: the parameters are the coordinator's numbers exactly, and a clipped gradient's norm is right
to about 1e-15, which is what makes the clip a bound.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy import descent
from protocols.study import Study


def build(study: Study, params: NDArray[np.float64]) -> nn.Sequential:
    """Return the study's model holding `params` (the layout of privacy.descent.unpacked)."""
    layers: list[nn.Module] = []
    for weights, biases in descent.unpacked(study, params):
        linear = nn.Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights)))
            linear.bias.copy_(torch.from_numpy(np.ascontiguousarray(biases)))
        layers += [linear, nn.Tanh()]  # bounded, so one patient's activations cannot run away
    return nn.Sequential(*layers[:-1])


def probabilities(study: Study, params: NDArray[np.float64], x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the predicted probability of the outcome for each row. Stays at the node."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits(study, params, x)))  # a sigmoid that never overflows


def logits(study: Study, params: NDArray[np.float64], x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log odds of the outcome for each row. Stays at the node."""
    *inner, (weights, biases) = descent.unpacked(study, params)
    hidden = x.astype(np.float64)
    for inner_weights, inner_biases in inner:
        hidden = np.tanh(hidden @ inner_weights.T + inner_biases)
    found: NDArray[np.float64] = (hidden @ weights.T + biases)[:, 0]
    return found
