"""The starter vocabulary: what lets a new node map codes before anyone has loaded a download of Athena.

Guarantee: all of it or nothing; a second time changes nothing; it never takes the place of another
vocabulary, and loading one (node.omop.vocabulary) takes the place of it. Its version goes into the store
and onto every load. It is small, has no hierarchy, and says so: concept sets resolve without descendants.
What may ship, and whose it is, says `starter/NOTICE`.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from node.omop import code_map
from node.omop.errors import VocabularyThere
from node.omop.starter_files import concepts, diagnosis_codes
from node.omop.store import OmopStore
from node.omop.tables import LOCAL_CONCEPTS_ABOVE

VERSION = "fedtwin-starter-2"
PREFIX = "fedtwin-starter-"
_ENGLISH = 4180186  # the language of synonyms


def installed(store: OmopStore) -> str | None:
    """Return the version of the starter vocabulary in the store; None if it holds none, or another one."""
    if not store.has("fedtwin_vocabulary"):
        return None
    row = store.connection.con.execute("SELECT version FROM fedtwin_vocabulary").fetchone()
    return str(row[0]) if row and str(row[0]).startswith(PREFIX) else None


def install(store: OmopStore, *, now: datetime) -> bool:
    """Put the starter vocabulary into a store that has none; return whether anything was changed.

    Raises: VocabularyThere if the store holds a vocabulary that is not a starter one.
    """
    before = installed(store)
    if before == VERSION:
        return False
    if before is None and not _empty(store):
        raise VocabularyThere
    with store.writing() as writer:
        remove(writer, now=now)
        _fill(writer, now=now)
    return True


def ensure(store: OmopStore, *, now: datetime) -> str | None:
    """Install it if the store has no vocabulary; return the version if it was installed."""
    return VERSION if _empty(store) and install(store, now=now) else None


def remove(writer: duckdb.DuckDBPyConnection, *, now: datetime) -> None:
    """Take a starter vocabulary out within the caller's transaction; another one stays as it is."""
    found = writer.execute("SELECT version FROM fedtwin_vocabulary").fetchone()
    if found is None or not str(found[0]).startswith(PREFIX):
        return
    code_map.end(writer, origin=str(found[0]), now=now)
    for table in ("concept", "concept_synonym"):
        writer.execute(f"DELETE FROM {table} WHERE concept_id <= {LOCAL_CONCEPTS_ABOVE}")  # noqa: S608 (our names)
    for table in ("concept_ancestor", "concept_relationship", "vocabulary", "fedtwin_vocabulary"):
        writer.execute(f"DELETE FROM {table}")  # noqa: S608 (our names)


def _empty(store: OmopStore) -> bool:
    row = store.connection.con.execute(
        f"SELECT count(*) FROM concept WHERE concept_id <= {LOCAL_CONCEPTS_ABOVE}"  # noqa: S608 (a number)
    ).fetchone()
    return row is not None and row[0] == 0 and installed(store) is None


def _fill(writer: duckdb.DuckDBPyConnection, *, now: datetime) -> None:
    found = concepts()
    columns = {
        "concept_id": [one.concept_id for one in found],
        "name": [one.name for one in found],
        "domain": [one.domain_id for one in found],
        "vocabulary": [one.vocabulary_id for one in found],
        "class": [one.class_id for one in found],
        "standard": ["S" if one.standard else None for one in found],
        "code": [one.code for one in found],
    }
    writer.register("fedtwin_batch", pa.table(columns))
    writer.execute("INSERT INTO concept SELECT *, '1970-01-01', '2099-12-31', NULL FROM fedtwin_batch")
    writer.execute(
        "INSERT INTO concept_ancestor SELECT concept_id, concept_id, 0, 0 FROM fedtwin_batch WHERE "
        "standard = 'S'"
    )
    pairs = [(one.concept_id, word) for one in found for word in one.synonyms]
    writer.unregister("fedtwin_batch")
    words = {"concept_id": [concept for concept, _ in pairs], "word": [word for _, word in pairs]}
    writer.register("fedtwin_batch", pa.table(words))
    writer.execute(f"INSERT INTO concept_synonym SELECT *, {_ENGLISH} FROM fedtwin_batch")  # noqa: S608 (a number)
    writer.unregister("fedtwin_batch")
    writer.execute(
        "INSERT INTO vocabulary VALUES ('None', 'Starter vocabulary of fedtwin', NULL, ?, 44819096)",
        [VERSION],
    )
    code_map.put(writer, diagnosis_codes(), origin=VERSION, now=now)
    digest = hashlib.sha256(repr((found, diagnosis_codes())).encode()).hexdigest()
    writer.execute(
        "INSERT INTO fedtwin_vocabulary VALUES (?, ?, ?, ?)",
        [VERSION, digest, now.astimezone(UTC).replace(tzinfo=None), len(found)],
    )
    writer.execute("UPDATE cdm_source SET vocabulary_version = ?", [VERSION])
