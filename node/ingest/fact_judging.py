"""Which facts of a batch give records: by their state, their dates and what they are linked to."""

from __future__ import annotations

import numpy as np

from node.ingest.fact_columns import Columns, lower
from node.ingest.fact_dates import Dates
from node.ingest.fact_rules import FactRules
from node.ingest.facts import Kind

_DATED = (  # kinds of records that need a day
    Kind.VISIT, Kind.CONDITION, Kind.DRUG, Kind.PROCEDURE, Kind.MEASUREMENT, Kind.OBSERVATION, Kind.DEVICE,
    Kind.DEATH, Kind.NOTE, Kind.COVERAGE, Kind.IMAGE,
)  # fmt: skip


def judge(columns: Columns, dates: Dates, rules: FactRules) -> None:
    """Turn away facts whose state does not count, that have no day where one is needed, or no target."""
    asserts = columns.asserts
    dated = np.isin(columns.kind, [kind.value for kind in _DATED])
    columns.drop(asserts & ~_counting(columns, rules), "status", "status")
    columns.drop(asserts & dated & ~dates.has_start, "start", "missing-date")
    columns.drop(asserts & dated & ~dates.plausible, "start", "implausible-date")
    linked = columns.kind == Kind.LINK
    columns.drop(asserts & linked & ~columns.has("other_key"), "other_key", "missing-target")
    dates.note_births(columns)


def _counting(columns: Columns, rules: FactRules) -> np.ndarray:
    """Which facts' kind, state and intent give records."""
    intents = np.full(columns.size, None, dtype=object)
    if columns.detailed:
        intents = lower(columns.detail("intent"))
    seen: dict[tuple[str, str | None, str | None], bool] = {}
    counts = np.empty(columns.size, dtype=bool)
    for place, what in enumerate(zip(columns.kind, columns.status, intents, strict=True)):
        if what not in seen:
            seen[what] = rules.counts(*what)
        counts[place] = seen[what]
    return counts
