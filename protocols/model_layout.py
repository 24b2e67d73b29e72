"""What a model's flat parameter vector is made of: a row of linear layers, each weights then biases.

Every parameter of every kind of model lies in a linear layer, used once or on several tokens: no batch
normalisation (it mixes patients), no recurrent cells. So one rule gives each patient's gradient and its norm
(node.training.gradient), and the coordinator can hold and step a model without knowing what it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from protocols.study_fusion import Fusion, Modality


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer from `inputs` to `outputs` numbers. One with no inputs is a row of biases."""

    name: str
    inputs: int
    outputs: int
    starts_at_zero: bool = False

    @property
    def weights(self) -> int:
        """How many weights it has; row-major, one row per output."""
        return self.inputs * self.outputs

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return self.weights + self.outputs


Layout = tuple[Linear, ...]


def size(layout: Layout) -> int:
    """Return how many parameters a model of this layout has."""
    return sum(layer.size for layer in layout)


def chain(inputs: int, hidden: tuple[int, ...], outputs: int) -> Layout:
    """Return the layers of a plain network: `hidden.0`, ..., `out`. Without hidden ones it starts at zero."""
    return (*_hidden(inputs, hidden), Linear("out", (inputs, *hidden)[-1], outputs, not hidden))


def fused(
    fusion: Fusion, modalities: tuple[Modality, ...], hidden: tuple[int, ...], outputs: int
) -> tuple[Layout, int]:
    """Return the layers of a fusion model, and how many numbers go into its last one (0: it has no such).

    The layer that gives the logits starts at zero, so that all start from even odds.
    """
    present = len(modalities)
    if fusion.kind == "early":
        inputs = sum(len(m.columns) for m in modalities) + present
        return _headed((), inputs, hidden, outputs)
    tokens = tuple(Linear(f"token.{m.name}", len(m.columns), fusion.width) for m in modalities)
    if fusion.kind == "intermediate":
        return _headed(tokens, fusion.width * present + present, hidden, outputs)
    if fusion.kind == "late":
        votes = tuple(Linear(f"logits.{m.name}", fusion.width, outputs, True) for m in modalities)
        return (*tokens, *votes, Linear("out", present, outputs, True)), 0
    width = fusion.width
    mixing = (*(Linear(f"attention.{role}", width, width) for role in ("query", "key", "value")),)
    mixing += (Linear("attention.out", width, width, True),)  # at first each token stands for itself
    return _headed((*tokens, *mixing), fusion.width + present, hidden, outputs)


def _headed(before: Layout, inputs: int, hidden: tuple[int, ...], outputs: int) -> tuple[Layout, int]:
    last = (inputs, *hidden)[-1]
    return (*before, *_hidden(inputs, hidden), Linear("out", last, outputs, True)), last


def _hidden(inputs: int, hidden: tuple[int, ...]) -> Layout:
    widths = (inputs, *hidden)
    return tuple(
        Linear(f"hidden.{place}", before, after) for place, (before, after) in enumerate(pairwise(widths))
    )


def local(kind: str, last: int, outputs: int) -> Layout:
    """Return the layers of a site's own part, which is added to the shared model's output."""
    if kind == "none":
        return ()
    return (Linear("local", last if kind == "head" else 0, outputs, True),)
