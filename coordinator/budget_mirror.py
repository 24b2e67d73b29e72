"""What a project has cost, as the coordinator saw it: a mirror, for researchers to plan by.

It decides nothing. Each hospital charges its own ledger and refuses by it; one that took part in every
release has charged what stands here, the others less. An attempt counts as soon as inputs may have left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from coordinator.question_book import Seen
from privacy.accountant import Composition, Event
from protocols.wire import fedtwin_pb2 as pb


def budget(
    project: str, history: Iterable[Seen], *, delta: float, thought_of: Event | None = None
) -> pb.BudgetReply:
    """Return what the project's releases cost together at `delta`, and each kind of them alone.

    Args: thought_of, a further release: the reply says what all of them would cost with it.
    Raises: ValueError for a delta outside (0, 1).
    """
    whole = Composition()
    by_kind: dict[str, Composition] = defaultdict(Composition)
    cached: dict[str, int] = defaultdict(int)
    for seen in history:
        cached[seen.kind] += seen.cached
        if seen.event is not None:
            whole = whole.plus(seen.event)
            by_kind[seen.kind] = by_kind[seen.kind].plus(seen.event)
    lines = [
        pb.BudgetLine(
            kind=kind,
            releases=by_kind[kind].releases,
            epsilon=by_kind[kind].epsilon(delta=delta),
            cached=cached[kind],
        )
        for kind in sorted(cached)
    ]
    return pb.BudgetReply(
        project=project,
        delta=delta,
        epsilon=whole.epsilon(delta=delta),
        releases=whole.releases,
        cached=sum(cached.values()),
        lines=lines,
        epsilon_with_next=(whole if thought_of is None else whole.plus(thought_of)).epsilon(delta=delta),
    )
