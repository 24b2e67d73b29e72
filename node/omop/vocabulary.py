"""The OHDSI vocabulary: an Athena download, loaded into a store in one transaction.

Guarantee: all of a download or nothing of it. The same download a second time changes nothing; another one
replaces what was there, except a site's own concepts (above two billion). A line that cannot be right goes
into quarantine by its number and the reason; with more than 1 in 100 lines of a file like that,
nothing is loaded.

Athena's files are tab-separated without quotes, one header line, dates as YYYYMMDD, UTF-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from node.omop import starter
from node.omop.errors import MalformedVocabulary
from node.omop.side_tables import VOCABULARY_LOAD
from node.omop.store import OmopStore
from node.omop.tables import LOCAL_CONCEPTS_ABOVE, cdm_tables

BAD_LINES = 0.01  # the share of a file's lines above which it is some other kind of file
UNKNOWN_VERSION = "unknown"
_LINES = 500_000  # per batch: some hundred megabytes of text at most
_LONGEST_LINE = 1_000_000  # bytes; Athena's longest are below 10,000
# by what the files are sorted, so that a concept set reads few row groups
_FILES = {
    "CONCEPT": ("concept_id",),
    "CONCEPT_ANCESTOR": ("ancestor_concept_id", "descendant_concept_id"),
    "CONCEPT_RELATIONSHIP": ("relationship_id", "concept_id_2", "concept_id_1"),
    "VOCABULARY": ("vocabulary_id",),
}
_NEEDED = ("CONCEPT", "CONCEPT_ANCESTOR")
_ALLOWED = {"standard_concept": ("S", "C"), "invalid_reason": ("D", "U")}

Watcher = Callable[[str, int, int], None]  # file, bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class VocabularyReport:
    """What a load came to: rows and quarantined lines by table; whether it was there already."""

    version: str
    rows: dict[str, int]
    quarantined: dict[str, int]
    unchanged: bool


@dataclass(frozen=True, slots=True)
class LoadedVocabulary:
    """What a store holds."""

    version: str
    source_sha256: str
    loaded_at: datetime
    concepts: int


def loaded(store: OmopStore) -> LoadedVocabulary | None:
    """Return which vocabulary the store holds; None without one that `load` has brought in."""
    if not store.has("fedtwin_vocabulary"):
        return None
    row = store.connection.con.execute(
        "SELECT version, source_sha256, loaded_at, concepts FROM fedtwin_vocabulary"
    ).fetchone()
    return None if row is None else LoadedVocabulary(row[0], row[1], row[2].replace(tzinfo=UTC), row[3])


def load(
    folder: Path, store: OmopStore, *, now: datetime, watch: Watcher = lambda *_: None
) -> VocabularyReport:
    """Load the Athena download in `folder`.

    CONCEPT.csv and CONCEPT_ANCESTOR.csv must be there; CONCEPT_RELATIONSHIP.csv and VOCABULARY.csv are loaded
    if they are; other files are left alone.

    Raises: MalformedVocabulary: a file is missing, lacks a column, is no UTF-8 text, or is mostly wrong.
    """
    files = _found(folder)
    digest = _digest(files)
    before = loaded(store)
    if before is not None and before.source_sha256 == digest:
        rows = {name.lower(): store.counts()[name.lower()] for name in files}
        return VocabularyReport(before.version, rows, dict.fromkeys(rows, 0), unchanged=True)
    rows, quarantined = {}, {}
    with store.writing() as writer:
        writer.execute("DELETE FROM fedtwin_quarantine WHERE load_id = ?", [VOCABULARY_LOAD])
        starter.remove(writer, now=now)
        for name, path in files.items():
            table = name.lower()
            rows[table], quarantined[table] = _replace(writer, table, path, watch)
        found = writer.execute(
            "SELECT vocabulary_version FROM vocabulary WHERE vocabulary_id = 'None'"
        ).fetchone()
        version = str(found[0]) if found and found[0] else UNKNOWN_VERSION
        writer.execute("DELETE FROM fedtwin_vocabulary")
        writer.execute(
            "INSERT INTO fedtwin_vocabulary VALUES (?, ?, ?, ?)",
            [version, digest, now.astimezone(UTC).replace(tzinfo=None), rows["concept"]],
        )
        writer.execute("UPDATE cdm_source SET vocabulary_version = ?", [version])
    return VocabularyReport(version, rows, quarantined, unchanged=False)


def _found(folder: Path) -> dict[str, Path]:
    """The files of the folder by name; Athena writes them in capitals."""
    there = {path.name.upper(): path for path in sorted(folder.iterdir()) if path.is_file()}
    files = {name: there[f"{name}.CSV"] for name in _FILES if f"{name}.CSV" in there}
    for name in _NEEDED:
        if name not in files:
            raise MalformedVocabulary(f"{name}.csv", "is not in the folder")
    return files


def _digest(files: dict[str, Path]) -> str:
    whole = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            whole.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _replace(writer: duckdb.DuckDBPyConnection, table: str, path: Path, watch: Watcher) -> tuple[int, int]:
    """Put the file's rows in place of the table's; return how many, and how many went into quarantine."""
    fields = cdm_tables()[table].fields
    made = cdm_tables()[table].ddl("fedtwin_incoming").replace("CREATE TABLE", "CREATE TEMP TABLE", 1)
    writer.execute(made)
    lines = bad = 0
    for batch in _read(path, table, watch):
        refused = batch.filter(batch["reason"].is_valid())
        lines, bad = lines + batch.num_rows, bad + refused.num_rows
        good = batch.filter(batch["reason"].is_null()).select([field.name for field in fields])
        writer.register("fedtwin_batch", good)
        writer.execute("INSERT INTO fedtwin_incoming SELECT * FROM fedtwin_batch")
        writer.unregister("fedtwin_batch")
        _quarantine(writer, path.name, refused)
    if bad > BAD_LINES * lines or not lines:
        raise MalformedVocabulary(path.name, f"{bad} of {lines} lines cannot be right")
    if table == "concept" and _scalar(writer, "count(*) - count(DISTINCT concept_id)"):
        raise MalformedVocabulary(path.name, "describes a concept twice")
    own = f" WHERE concept_id <= {LOCAL_CONCEPTS_ABOVE}" if table == "concept" else ""
    writer.execute(f"DELETE FROM {table}{own}")  # noqa: S608 (our names, as below)
    order = ", ".join(_FILES[table.upper()])
    kept = writer.execute(
        f"INSERT INTO {table} SELECT * FROM fedtwin_incoming ORDER BY {order}"  # noqa: S608
    ).fetchone()
    writer.execute("DROP TABLE fedtwin_incoming")
    assert kept is not None, "an INSERT returns how many"
    return int(kept[0]), bad


def _scalar(writer: duckdb.DuckDBPyConnection, what: str) -> int:
    row = writer.execute(f"SELECT {what} FROM fedtwin_incoming").fetchone()  # noqa: S608 (our words)
    assert row is not None, "an aggregate returns one row"
    return int(row[0])


def _quarantine(writer: duckdb.DuckDBPyConnection, name: str, refused: pa.Table) -> None:
    if not refused.num_rows:
        return
    writer.register("fedtwin_batch", refused.select(["number", "field", "reason"]))
    writer.execute(
        "INSERT INTO fedtwin_quarantine SELECT ?, ?, number, field, reason, true FROM fedtwin_batch",
        [VOCABULARY_LOAD, name],
    )
    writer.unregister("fedtwin_batch")


def _read(path: Path, table: str, watch: Watcher) -> Iterator[pa.Table]:
    """Yield the file's lines as typed columns with `number`, `field` and `reason`: the latter null if good.

    A connection of its own reads, as that of the store cannot reach files.
    """
    columns = _header(path)
    missing = [field.name for field in cdm_tables()[table].fields if field.name not in columns]
    if missing:
        raise MalformedVocabulary(path.name, f"has no column '{missing[0]}'")
    size = path.stat().st_size
    done = 0
    with closing(duckdb.connect(config={"autoinstall_known_extensions": False})) as reader:
        try:
            batches = reader.execute(_typed(table, columns), [str(path)]).to_arrow_reader(_LINES)
            for batch in batches:
                found = pa.Table.from_batches([batch])
                done += int(pc.sum(found["bytes"]).as_py() or 0)
                watch(path.name, min(done, size), size)
                yield found
        except duckdb.Error:
            raise MalformedVocabulary(path.name, "is no UTF-8 text of lines") from None


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        first = file.readline(_LONGEST_LINE)
    return first.decode("utf-8-sig", errors="replace").rstrip("\r\n").lower().split("\t")


def _typed(table: str, columns: list[str]) -> str:
    """The SQL that splits lines and types their parts, and says what is wrong with the first wrong part."""
    typed, checks = [], [(f"len(parts) <> {len(columns)}", "line", "number of columns")]
    for field in cdm_tables()[table].fields:
        text = f"nullif(trim(parts[{columns.index(field.name) + 1}]), '')"
        value, reason = text, "not a text"
        if field.datatype == "integer":
            whole = f"regexp_full_match({text}, '-?[0-9]{{1,18}}')"  # a cast alone would round 1.5
            value, reason = f"CASE WHEN {whole} THEN TRY_CAST({text} AS BIGINT) END", "not a whole number"
        elif field.datatype == "date":
            strict = f"regexp_replace({text}, '^(\\d{{4}})(\\d{{2}})(\\d{{2}})$', '\\1-\\2-\\3')"
            value, reason = f"TRY_CAST({strict} AS DATE)", "not a date"
        typed.append(f"{value} AS {field.name}")
        checks.append((f"{text} IS NOT NULL AND {value} IS NULL", field.name, reason))
        if field.required:
            checks.append((f"{text} IS NULL", field.name, "missing"))
        if field.name in _ALLOWED:
            listed = ", ".join(f"'{word}'" for word in _ALLOWED[field.name])
            checks.append((f"{text} NOT IN ({listed})", field.name, "not a word of the list"))
    wrong = " ".join(
        f"WHEN {check} THEN {{'field': '{field}', 'reason': '{why}'}}" for check, field, why in checks
    )
    return f"""
        WITH lines AS (
          SELECT number, strlen(line) + 1 AS bytes, string_split(line, chr(9)) AS parts
          FROM (SELECT row_number() OVER () AS number, rtrim(line, chr(13)) AS line
                FROM read_csv(?, columns = {{'line': 'VARCHAR'}}, header = false, skip = 1,
                              delim = chr(1), quote = '', escape = '', auto_detect = false,
                              strict_mode = false, max_line_size = {_LONGEST_LINE})) raw
          WHERE line <> ''),
        judged AS (SELECT number, bytes, CASE {wrong} END AS wrong, {", ".join(typed)} FROM lines)
        SELECT * EXCLUDE (wrong), wrong.field AS field, wrong.reason AS reason FROM judged"""  # noqa: S608 (our names)
