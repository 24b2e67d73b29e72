"""How a model puts the modalities of a patient together, some of which are missing for some patients.

    [fusion]
    kind = "early"            one network over all columns, those of missing modalities blank
    kind = "intermediate"     a token per modality, all tokens side by side into one network
    kind = "late"             a model per modality; the logits of those present add up
    kind = "attention"        tokens attend to each other, missing ones masked, and are pooled
    width = 16                numbers per token; not for "early"
    modality_dropout = 0.15   chance that a present modality is hidden from one step's gradient
    views = 1                 drawings of hidden modalities that a patient's gradient is the mean of

In every kind the model is told which modalities are present. At least one stays: a patient of whom all would
be hidden is seen as is. Hiding follows from the person id and the step's public parameters, not from others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, MalformedStudy, checked_float, checked_int, checked_name

KINDS = ("early", "intermediate", "late", "attention")
LOCAL_PARTS = ("none", "intercept", "head")
MAX_WIDTH = 256
MAX_VIEWS = 8  # the time of a step grows with them
MAX_MODALITIES = 32


@dataclass(frozen=True, slots=True)
class Fusion:
    """How modalities are put together, and how training gets used to missing ones."""

    kind: str
    width: int = 0
    modality_dropout: float = 0.0
    views: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.width:
            found["width"] = self.width
        if self.modality_dropout:
            found["modality_dropout"] = self.modality_dropout
        if self.views != 1:
            found["views"] = self.views
        return found


@dataclass(frozen=True, slots=True)
class Modality:
    """One kind of data of a patient: which columns it has, and which of them tell that it is there."""

    name: str
    columns: tuple[int, ...]
    observed_by: tuple[int, ...]


def parse_fusion(fields: Fields) -> Fusion:
    """Return the fusion that a table describes. Raises: MalformedStudy."""
    kind = checked_name(*fields.take("kind"), KINDS)
    width = 0 if kind == "early" else checked_int(*fields.take("width"), low=1, high=MAX_WIDTH)
    dropout = checked_float(*fields.take("modality_dropout", 0.0), low=0.0, high=0.95)
    views = checked_int(*fields.take("views", 1), low=1, high=MAX_VIEWS)
    if views > 1 and not dropout:
        raise MalformedStudy(
            f"{fields.path}.views", "several views are the same one without modality_dropout"
        )
    fields.done()
    return Fusion(kind, width, dropout, views)
