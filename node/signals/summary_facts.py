"""Summaries as facts: measurements with a key per patient, signal, statistic and window.

An hour's mean of a level, and a day's total, carry the signal's LOINC code; all carry a local one,
`local:signals` `heart_rate.sd.hour`. Facts have true dates: the harmonizer moves them, as it does all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from node.ingest.facts import CODING, SCHEMA, UTC, Action, Kind, Precision
from node.signals.kinds import SIGNALS, Form
from node.signals.summaries import NO_OFFSET, Summary, Window

SYSTEM = "local:signals"
LOINC = "http://loinc.org"
ALGORITHM = 32880  # OMOP type concept "Standard algorithm": computed, not said by anybody
DAY_US = 86_400_000_000
_WORDS = {
    "sd": "standard deviation",
    "tir": "time in range 70-180 mg/dL",
    "below_70": "time below 70 mg/dL",
    "below_54": "time below 54 mg/dL",
    "above_180": "time above 180 mg/dL",
    "above_250": "time above 250 mg/dL",
    "cv": "coefficient of variation",
    "resting": "lowest half hour",
}


@dataclass(frozen=True, slots=True)
class PersonDay:
    """Whose samples a group of a summary's rows are, and by how many days they were moved."""

    patient: str
    namespace: str
    shift_days: int


def facts_of(summary: Summary, groups: Sequence[PersonDay]) -> pa.Table:
    """Return one fact for each row of a summary."""
    rows = len(summary.value)
    shift = np.array([group.shift_days for group in groups], dtype=np.int64)[summary.group] * DAY_US
    daily = summary.window is Window.DAY
    # A day is a date: its midnight stands for it, and whoever reads it must not move it by an offset.
    start = summary.local if daily else summary.start
    offset = pa.array(summary.offset, mask=(summary.offset == NO_OFFSET) | daily).cast(pa.int16())
    place = f"{summary.signal}.{summary.statistic}.{summary.window}"
    columns = {
        "record": pa.array(summary.record),
        "place": _same(place, rows),
        "key": pa.array(_keys(summary, place, shift), pa.string()),
        "version": _moments(summary.version - shift),
        "action": _same(Action.ASSERT.value, rows),
        "kind": _same(Kind.MEASUREMENT.value, rows),
        "patient": pa.array([groups[group].patient for group in summary.group.tolist()], pa.string()),
        "patient_namespace": pa.array(
            [groups[group].namespace for group in summary.group.tolist()], pa.string()
        ),
        "start": _moments(start - shift),
        "end": pa.nulls(rows, UTC) if daily else _moments(summary.end - shift),
        "precision": _same((Precision.DAY if daily else Precision.SECOND).value, rows),
        "utc_offset_min": offset,
        "codes": pa.array([_codes(summary)], pa.list_(CODING)).take(pa.array(np.zeros(rows, dtype=np.int64))),
        "type_concept_id": pa.array(np.full(rows, ALGORITHM, dtype=np.int32)),
        "status": _same("final", rows),
        "value_number": pa.array(np.round(summary.value, 6)),
        "unit": _same(summary.unit, rows),
    }
    return pa.Table.from_arrays(
        [columns.get(field.name, pa.nulls(rows, field.type)) for field in SCHEMA], schema=SCHEMA
    )


def _codes(summary: Summary) -> list[dict[str, str]]:
    signal = SIGNALS[summary.signal]
    word = _WORDS.get(summary.statistic, summary.statistic)
    name = summary.signal.replace("_", " ")
    code = f"{summary.signal}.{summary.statistic}.{summary.window}"
    own = {"system": SYSTEM, "code": code, "display": f"{name}, {word} of the {summary.window}"}
    main = (
        (summary.statistic == "mean" and (summary.window is Window.HOUR or not signal.hourly))
        or (summary.statistic == "total" and summary.window is Window.DAY)
    ) and signal.form is not Form.BEATS
    if main and signal.loinc is not None:
        return [{"system": LOINC, "code": signal.loinc, "display": name}, own]
    return [own]


def _keys(summary: Summary, place: str, shift: np.ndarray) -> list[str]:
    """A key names the window by the local clock; the two passes of an hour differ by their offset."""
    clock = (summary.local - shift).astype("datetime64[us]")
    if summary.window is Window.DAY:
        return [f"signals/{place}/{text}" for text in np.datetime_as_string(clock, unit="D").tolist()]
    texts = np.datetime_as_string(clock, unit="h").tolist()
    return [
        f"signals/{place}/{text}{'' if offset == NO_OFFSET else f'{offset:+d}'}"
        for text, offset in zip(texts, summary.offset.tolist(), strict=True)
    ]


def _same(text: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def _moments(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers).cast(pa.timestamp("us")).cast(UTC)
