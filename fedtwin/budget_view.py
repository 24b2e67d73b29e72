"""What a project has cost, as the coordinator saw it: each hospital charges and refuses by its own ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from fedtwin.estimates import finite
from fedtwin.view import View
from protocols.wire import fedtwin_pb2 as pb


@dataclass(frozen=True, slots=True)
class Spent:
    """What one kind of question cost, composed at the budget's delta."""

    kind: str
    releases: int
    epsilon: float
    cached: int


@dataclass(frozen=True, slots=True, repr=False)
class ProjectBudget:
    """What all releases of a project cost together, for one patient, at `delta`.

    A mirror: a hospital that took part in all of them has charged this much, others less. What a hospital
    still allows, only its own ledger and policy know. `cached` answers were given again, free of charge.
    """

    project: str
    delta: float
    epsilon: float
    releases: int
    cached: int
    by_kind: tuple[Spent, ...]

    @classmethod
    def of(cls, reply: pb.BudgetReply) -> Self:
        """Read the coordinator's reply."""
        lines = (Spent(line.kind, line.releases, line.epsilon, line.cached) for line in reply.lines)
        return cls(
            reply.project, reply.delta, reply.epsilon, int(reply.releases), int(reply.cached), tuple(lines)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read; an epsilon that no figure bounds is null."""
        return {
            "project": self.project,
            "delta": self.delta,
            "epsilon": finite(self.epsilon),
            "releases": self.releases,
            "cached": self.cached,
            "by_kind": {
                spent.kind: {
                    "releases": spent.releases,
                    "epsilon": finite(spent.epsilon),
                    "cached": spent.cached,
                }
                for spent in self.by_kind
            },
        }

    def view(self) -> View:
        """Return what a console or a notebook shows."""
        rows = [
            [spent.kind, str(spent.releases), f"{spent.epsilon:.3g}", str(spent.cached)]
            for spent in self.by_kind
        ]
        return View(
            f"{self.project}: epsilon {self.epsilon:.3g} at delta {self.delta:g} in {self.releases} releases",
            ["question", "releases", "epsilon alone", "given again, free"],
            rows,
            {
                "as seen by": "the coordinator; each hospital charges and refuses by its own ledger",
                "composed": "all together, which costs less than the sum of the rows",
            },
        )

    def __repr__(self) -> str:
        return self.view().text()

    def _repr_html_(self) -> str:
        return self.view().html()
