"""Tables, column by column: CSV and Parquet in, the same out with what may pass.

A column that neither the rules nor the table name is left out and reported; a value that cannot be made fit
is left empty and counted by column and reason. What a row's dropped columns say of its patient (name, number,
telephone) is looked for in the row's texts.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deid.errors import MalformedRules
from deid.spans import Category, Known
from deid.structured import Action, Source, TableRules
from deid.structured_values import Cleaner, Tally, Unfit

BATCH_ROWS = 5_000  # bounds the memory of a Parquet file's rows
LARGEST_FIELD = 10_000_000  # characters; a note with its whole history
_KNOWN = {  # words in the name of a column that say what it holds
    "name": Category.NAME, "mrn": Category.MRN, "ssn": Category.SSN, "phone": Category.PHONE,
    "email": Category.EMAIL, "street": Category.ADDRESS, "address": Category.ADDRESS,
    "account": Category.ACCOUNT,
}  # fmt: skip


def clean_csv(
    source: Path,
    target: Path,
    rules: TableRules,
    cleaner: Cleaner,
    *,
    named: Source = Source.TABLE,
    done: Callable[[int], None] = lambda rows: None,
) -> Tally:
    """Write `source` without identity to `target` (0600, not there before); return what happened.

    Raises: MalformedRules, OSError; csv.Error for what is no CSV.
    """
    csv.field_size_limit(LARGEST_FIELD)
    tally = Tally()
    with source.open(encoding="utf-8-sig", newline="") as file, created(target) as out:
        reader = csv.DictReader(file)
        if not reader.fieldnames:
            raise MalformedRules("header", "the file names no columns")
        actions = rules.of(reader.fieldnames, named)
        writer = csv.DictWriter(out, [name for name in actions if _passes(actions[name])])
        writer.writeheader()
        for number, row in enumerate(_whole(reader), 1):
            writer.writerow(clean_row(row, actions, rules, cleaner, tally))
            if number % 1_000 == 0:
                done(number)
    return tally


def clean_parquet(
    source: Path,
    target: Path,
    rules: TableRules,
    cleaner: Cleaner,
    *,
    named: Source = Source.TABLE,
    done: Callable[[int], None] = lambda rows: None,
) -> Tally:
    """Write a Parquet file without identity. Columns that are kept keep their type, others become text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tally, rows_done = Tally(), 0
    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        actions = rules.of(schema.names, named)
        kept = [name for name in actions if _passes(actions[name])]
        fields = [
            schema.field(name).with_metadata(None)
            if actions[name] is Action.KEEP
            else pa.field(name, pa.string())
            for name in kept
        ]
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with pq.ParquetWriter(target, pa.schema(fields)) as writer:
            for batch in file.iter_batches(BATCH_ROWS):
                raw = {name: [_text(value) for value in batch[name].to_pylist()] for name in actions}
                rows = [
                    clean_row({name: raw[name][at] for name in actions}, actions, rules, cleaner, tally)
                    for at in range(batch.num_rows)
                ]
                columns = [
                    batch[field.name]
                    if actions[field.name] is Action.KEEP
                    else pa.array([row.get(field.name) or None for row in rows], pa.string())
                    for field in fields
                ]
                writer.write_batch(pa.record_batch(columns, schema=pa.schema(fields)))
                rows_done += batch.num_rows
                done(rows_done)
    return tally


def clean_row(
    row: Mapping[str, str],
    actions: Mapping[str, Action | None],
    rules: TableRules,
    cleaner: Cleaner,
    tally: Tally,
) -> dict[str, str]:
    """Return what may pass of one row."""
    owner = rules.patient or next((n for n, one in actions.items() if one is Action.PSEUDONYM), None)
    patient = cleaner.patient(row[owner]) if owner and row.get(owner) else None
    known = known_of(row, actions)
    passed: dict[str, str] = {}
    for name, action in actions.items():
        raw = row[name]
        if action is None:
            tally.unknown[name] += 1
        elif action is Action.DROP:
            tally.dropped[name, "by-rule"] += 1
        elif raw:
            try:
                passed[name] = cleaner.value(action, raw, patient, known=known)
                tally.passed[name] += 1
            except Unfit as unfit:
                passed[name] = ""
                tally.dropped[name, unfit.reason] += 1
        else:
            passed[name] = ""
    return passed


def known_of(row: Mapping[str, str], actions: Mapping[str, Action | None]) -> list[Known]:
    """Return what the columns that do not pass as they are say of the patient."""
    found = []
    for name, action in actions.items():
        if action in (Action.DROP, Action.PSEUDONYM, None) and row[name]:
            kind = next((kind for word, kind in _KNOWN.items() if word in name.lower()), None)
            if kind is not None or action is Action.PSEUDONYM:
                found.append(Known(kind or Category.MRN, row[name]))
    return found


def _passes(action: Action | None) -> bool:
    return action not in (None, Action.DROP)


def _whole(rows: Iterable[dict[Any, Any]]) -> Iterator[dict[str, str]]:
    """Rows with a text in each column. Raises: MalformedRules for one of more cells than columns."""
    for number, row in enumerate(rows, 1):
        if None in row:
            raise MalformedRules(f"row {number}", "more cells than columns")
        yield {name: value or "" for name, value in row.items()}


def _text(value: Any) -> str:
    """A value as text; of dates and moments, ISO 8601."""
    if value is None:
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def created(path: Path) -> Any:
    """A new file for its owner only. Raises: FileExistsError."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8", newline="")


def report_of(tally: Tally) -> dict[str, Any]:
    """Return a tally as plain values. It holds names of fields and counts, and no value."""
    dropped: dict[str, dict[str, int]] = {}
    for (name, reason), count in sorted(tally.dropped.items()):
        dropped.setdefault(name, {})[reason] = count
    return {
        "passed": dict(sorted(tally.passed.items())),
        "dropped": dropped,
        "unknown": dict(sorted(tally.unknown.items())),
    }
