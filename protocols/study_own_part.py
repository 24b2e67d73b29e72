"""How each site comes by its own part of a model, and when it keeps it.

    [own_part]              goes with study.local = "intercept" or "head"; may be left out
    trained = "along"       "along": with the shared part, on noisy sums; "after": only once that is finished
    kept = "always"         "always", or "earned": only as strong as the site's own training patients show
                            need of, and not at all while the shared model is as good within a standard error

Nothing of it changes what leaves a site, or what it costs: what is fitted at the end stays there either way.
"Along" lets the shared part be one that needs own parts; "after" makes it a model that stands by itself, and
whose gradients have the clip norm to themselves. So "earned" goes best with "after": what a site falls back
on was trained to be used as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, checked_name

TRAINED = ("along", "after")
KEPT = ("always", "earned")


@dataclass(frozen=True, slots=True)
class OwnPartPlan:
    """When a site's own part of the model is trained, and by which rule it stays."""

    trained: str = "along"
    kept: str = "always"

    def to_json(self) -> dict[str, Any]:
        """Return what is not as usual, so that a plan without the section keeps its hash."""
        usual = type(self)()
        return {
            name: value
            for name in ("trained", "kept")
            if (value := getattr(self, name)) != getattr(usual, name)
        }


USUAL_OWN_PART = OwnPartPlan()


def parse_own_part(fields: Fields) -> OwnPartPlan:
    """Return the plan that a table describes. Raises: MalformedStudy."""
    found = OwnPartPlan(
        trained=checked_name(*fields.take("trained", "along"), TRAINED),
        kept=checked_name(*fields.take("kept", "always"), KEPT),
    )
    fields.done()
    return found
