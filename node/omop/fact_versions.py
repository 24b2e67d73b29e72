"""Which version of what a source names by a key holds, and what becomes of those that hold no longer.

A version holds if

* none of the same thing is later: of the same key and kind, and the same patient, under whatever number they
  were known when it was said;
* nothing that is told as a whole was told anew without it (a resource with fewer components, a claim that
  replaces another);
* no retraction of its key, up to its version, was said;
* of a visit, it says when that began, or an earlier version does (fact_ends).

Guarantee: this depends on what was said and when, not on the order of loads. Records of versions that hold no
longer are kept beside the CDM with the moment until which they were known, and come back if what put them
there turns out to be of somebody else. Only what a retraction takes back without saying when it was wrong
is removed for good.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from node.omop import fact_ends
from node.omop.fact_persons import places_of
from node.omop.side_tables import DRAWN, STAGED, columns_of, former, held, id_of, key_name
from node.omop.stage import Stage

_NEVER = "'-infinity'::TIMESTAMP"  # before everything: of a version that the source does not say
_COLUMNS = "group_id, key_id, base_key_id, thing_id, whole_id, person_id, version, rank, visit_id, partial"
# rows of stores that an earlier version made
_OLD = f"thing_id IS NULL OR version IS NULL OR version = {_NEVER}"
_STORED = (
    "SELECT group_id, key_id, base_key_id, coalesce(thing_id, group_id) AS thing_id,"
    f" coalesce(whole_id, 0) AS whole_id, person_id, coalesce(version, {_NEVER}) AS version, rank,"
    " coalesce(holds, true) AS holds, visit_id, partial FROM fedtwin_group"
)
_SEEN = """
CREATE TABLE stage_seen AS
SELECT group_id, version, max(rank) AS rank, arg_max(key_id, rank) AS key_id,
  arg_max(base_key_id, rank) AS base_key_id, arg_max(thing_id, rank) AS thing_id,
  arg_max(whole_id, rank) AS whole_id, any_value(person_id) AS person_id,
  arg_max(visit_id, rank) AS visit_id, arg_max(partial, rank) AS partial
FROM stage_group GROUP BY ALL
"""
_CANON = """
SELECT g.*, coalesce(v.into_person_id, c.into_person_id, g.person_id) AS who,
  CASE WHEN coalesce(v.days, c.days) IS NULL OR isinf(g.version) THEN g.version
    ELSE g.version + to_days(CAST(coalesce(v.days, c.days) AS INTEGER)) END AS moment
FROM ({}) g LEFT JOIN canon c ON c.person_id = g.person_id
LEFT JOIN visit_canon v ON v.visit_id = g.visit_id
"""
_DROPPED = "CREATE TABLE stage_dropped (group_id BIGINT, rank BIGINT)"
_HOLDING = (("stage_leaving", "false"), ("stage_coming", "true"))
_FIRST_AFTER = "min(r.moment) FILTER (r.moment > j.moment)"
_AS_SAID = "SELECT g.*, g.person_id AS who, g.version AS moment FROM ({}) g"  # the same if nobody is renamed


@dataclass(frozen=True, slots=True)
class Settled:
    """What `settle` found: whether stored versions were judged, some do not hold, leave or come back."""

    stored: bool = False
    replaced: bool = False
    dropped: bool = False
    losing: bool = False
    leaving: bool = False
    coming: bool = False

    @property
    def aside(self) -> bool:
        """Whether staged records may have to go."""
        return self.losing or self.dropped


def settle(cursor: duckdb.DuckDBPyConnection, stage: Stage, load_id: int) -> Settled:
    """Judge the staged versions and the stored ones that they concern.

    Afterwards `stage_loses` has the versions that do not hold (group_id, rank, until, erase), `stage_leaving`
    those of them that held, `stage_coming` those that hold again, `stage_dropped` the staged ones that are
    nothing new, `stage_replaced` the stored ones in whose place staged ones stand; each where `Settled` says
    so. Nothing of records has moved.
    """
    stored = some(cursor, "fedtwin_group")
    dropped = _see(cursor)
    if stored:
        _adopt(cursor)
    replaced = False
    if stored and stage.has("group"):
        replaced, more = _drop_the_same(cursor)
        dropped |= more
    moved = some(cursor, "canon") or some(cursor, "visit_canon")
    judged = _judge(cursor, stage, _CANON if moved else _AS_SAID, stored=stored)
    losing = _lose(cursor, _CANON if moved else _AS_SAID, stored=judged)
    leaving = coming = False
    if judged:
        cursor.execute(
            "CREATE TABLE stage_leaving AS SELECT j.group_id, j.rank, j.version, l.until, l.erase"
            " FROM stage_judged j JOIN stage_loses l USING (group_id, rank) WHERE NOT j.fresh AND j.holds"
        )
        cursor.execute(
            "CREATE TABLE stage_coming AS SELECT j.group_id, j.rank FROM stage_judged j"
            " ANTI JOIN stage_loses l USING (group_id, rank) WHERE NOT j.fresh AND NOT j.holds"
        )
        leaving, coming = (_hold(cursor, name, word) for name, word in _HOLDING)
    if stage.has("group"):
        holds, joined = "true", ""
        if losing:
            holds, joined = "l.group_id IS NULL", " LEFT JOIN stage_loses l USING (group_id, rank)"
        cursor.execute(
            f"INSERT INTO fedtwin_group BY NAME SELECT {_COLUMNS}, {holds} AS holds, ? AS load_id"
            f" FROM stage_seen s{joined}",
            [load_id],
        )
    return Settled(judged, replaced, dropped, losing, leaving, coming)


def _hold(cursor: duckdb.DuckDBPyConnection, name: str, holds: str) -> bool:
    """Note of stored versions whether they hold; return whether there are any."""
    if not some(cursor, name):
        return False
    cursor.execute(
        f"UPDATE fedtwin_group g SET holds = {holds} FROM {name} s"
        " WHERE g.group_id = s.group_id AND g.rank = s.rank"
    )
    return True


def _adopt(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring rows of stores that an earlier version made up to date, where they are spoken of."""
    if some(cursor, "fedtwin_group WHERE thing_id IS NULL"):
        cursor.execute(
            "UPDATE fedtwin_group g SET thing_id = s.thing_id, whole_id = s.whole_id, holds = true"
            " FROM stage_seen s WHERE g.thing_id IS NULL AND s.group_id = g.group_id"
        )


def _see(cursor: duckdb.DuckDBPyConnection) -> bool:
    """`stage_seen`: of each staged version the record of the greatest rank; of what is said of a person, the
    last version.

    What is described alone (`thing_id` is `group_id`: descriptions of persons) never comes back. Returns
    whether something was dropped, into `stage_dropped`.
    """
    row = cursor.execute("SELECT count(*) = count(DISTINCT group_id) FROM stage_group").fetchone()
    if row and row[0]:  # as nearly always: each thing once
        cursor.execute("ALTER TABLE stage_group RENAME TO stage_seen")
        cursor.execute(_DROPPED)
        return False
    cursor.execute(_SEEN)
    cursor.execute(
        "DELETE FROM stage_seen s USING (SELECT group_id, max(version) AS version FROM stage_seen"
        " WHERE thing_id = group_id GROUP BY group_id HAVING count(*) > 1) m"
        " WHERE s.group_id = m.group_id AND s.version < m.version"
    )
    cursor.execute(
        "CREATE TABLE stage_dropped AS SELECT DISTINCT group_id, rank FROM stage_group"
        " ANTI JOIN stage_seen USING (group_id, rank)"
    )
    return some(cursor, "stage_dropped")


def _drop_the_same(cursor: duckdb.DuckDBPyConnection) -> tuple[bool, bool]:
    """Keep of one version that is stored and staged the one of the greatest rank; of what is said of a
    person, the last version.

    Returns whether stored ones went (`stage_replaced`), and staged ones (`stage_dropped`).
    """
    later = "row(s.version, s.rank) > row(g.version, g.rank)"
    cursor.execute(
        f"CREATE TABLE stage_clash AS SELECT g.group_id, g.rank AS stored, g.holds, s.rank,"
        f" {later} AS wins FROM ({_STORED}) g JOIN stage_seen s ON g.group_id = s.group_id"
        " AND (s.version = g.version OR s.thing_id = s.group_id)"
    )
    cursor.execute(
        "CREATE TABLE stage_replaced AS SELECT group_id, stored AS rank, holds AS held FROM stage_clash"
        " WHERE wins"
    )
    if not some(cursor, "stage_clash"):
        return False, False
    cursor.execute(
        "DELETE FROM stage_seen s USING stage_clash c"
        " WHERE NOT c.wins AND s.group_id = c.group_id AND s.rank = c.rank"
    )
    cursor.execute(
        "INSERT INTO stage_dropped SELECT DISTINCT group_id, rank FROM stage_clash"
        " ANTI JOIN stage_seen USING (group_id, rank) WHERE NOT wins"
    )
    cursor.execute(
        "DELETE FROM fedtwin_group g USING stage_replaced s WHERE g.group_id = s.group_id AND g.rank = s.rank"
    )
    return some(cursor, "stage_replaced"), some(cursor, "stage_clash WHERE NOT wins")


def _judge(cursor: duckdb.DuckDBPyConnection, stage: Stage, who: str, *, stored: bool) -> bool:
    """`stage_judged`: the staged versions and those stored ones that may hold now or no longer.

    Returns whether there are stored ones. `who`: _CANON, or what comes to the same.
    """
    fresh = who.format("FROM stage_seen").replace("g.*", "g.*, true AS fresh, false AS holds")
    asked = _concerned(cursor, stage) if stored else []
    if asked:
        cursor.execute(
            "CREATE TABLE stage_met AS "
            + who.format(f"SELECT *, false AS fresh FROM ({_STORED}) WHERE {' OR '.join(asked)}")
        )
    if not asked or not some(cursor, "stage_met"):
        kind = "VIEW" if who == _AS_SAID else "TABLE"
        cursor.execute(f"CREATE {kind} stage_judged AS {fresh}")
        return False
    cursor.execute(f"CREATE TABLE stage_judged AS {fresh} UNION ALL BY NAME FROM stage_met")
    return True


def _concerned(cursor: duckdb.DuckDBPyConnection, stage: Stage) -> list[str]:
    """Which stored versions the load may be about, in conditions of which one is enough."""
    asked = []
    if stage.has("group"):
        asked += [
            "thing_id IN (SELECT thing_id FROM stage_seen)",
            "(whole_id <> 0 AND whole_id IN (SELECT whole_id FROM stage_seen))",
        ]
    if some(cursor, "stage_concern"):
        asked += [
            "thing_id IN (SELECT thing_id FROM stage_concern)",
            "(whole_id <> 0 AND whole_id IN (SELECT whole_id FROM stage_concern))",
        ]
    if stage.has("retraction"):
        asked += [f"{key} IN (SELECT key_id FROM stage_retraction)" for key in ("key_id", "base_key_id")]
    for key, name in (("person_id", "family"), ("visit_id", "moved_visits")):
        if some(cursor, name):
            asked.append(f"{key} IN (SELECT {key} FROM {name})")
    return asked


def _lose(cursor: duckdb.DuckDBPyConnection, who: str, *, stored: bool) -> bool:
    """`stage_loses`: which of the judged versions do not hold, and until when they were known.

    Returns whether there are any.
    """
    context = "stage_judged"
    if stored:
        context = "stage_context"
        cursor.execute(
            "CREATE TABLE stage_context AS "
            + who.format(
                f"SELECT * FROM ({_STORED}) WHERE thing_id IN (SELECT thing_id FROM stage_judged)"
                " OR (whole_id <> 0 AND whole_id IN (SELECT whole_id FROM stage_judged))"
            )
            + " UNION ALL BY NAME SELECT * FROM stage_judged WHERE fresh"
        )
    lost = [_lost_to_rivals(cursor, context), _lost_to_wholes(cursor, context), _lost_to_retractions(cursor)]
    if some(cursor, f"{context} WHERE partial IS NOT NULL"):
        fact_ends.choose(cursor, context)
        lost.append(
            f"SELECT group_id, rank, {_NEVER} AS until, false AS erase FROM stage_judged"
            " ANTI JOIN stage_filled USING (group_id, rank) WHERE partial IS NOT NULL"
        )
    queries = [query for query in lost if query]
    if not queries:
        cursor.execute(
            "CREATE TABLE stage_loses (group_id BIGINT, rank BIGINT, until TIMESTAMP, erase BOOLEAN)"
        )
        return False
    cursor.execute(
        "CREATE TABLE stage_loses AS SELECT group_id, rank, min(until) AS until, bool_or(erase) AS erase"
        f" FROM ({' UNION ALL '.join(queries)}) GROUP BY group_id, rank"
    )
    return some(cursor, "stage_loses")


def _lost_to_rivals(cursor: duckdb.DuckDBPyConnection, context: str) -> str | None:
    """Versions of which another of the same thing is later."""
    cursor.execute(
        f"CREATE TABLE stage_several AS SELECT who, thing_id FROM {context} GROUP BY ALL HAVING count(*) > 1"
    )
    if not some(cursor, "stage_several"):
        return None
    cursor.execute(
        "CREATE TABLE stage_rivals AS SELECT c.who, c.thing_id, c.moment, c.rank, c.group_id FROM"
        f" {context} c SEMI JOIN stage_several USING (who, thing_id)"
    )
    return (
        f"SELECT j.group_id, j.rank, coalesce({_FIRST_AFTER}, {_NEVER}) AS until, false AS erase"
        " FROM stage_judged j JOIN stage_rivals r USING (who, thing_id)"
        " GROUP BY j.group_id, j.rank, j.moment HAVING max(row(r.moment, r.rank, r.group_id))"
        " > row(j.moment, j.rank, j.group_id)"
    )


def _lost_to_wholes(cursor: duckdb.DuckDBPyConnection, context: str) -> str | None:
    """Parts that a later version of their whole leaves out."""
    cursor.execute(
        f"CREATE TABLE stage_wholes AS SELECT who, whole_id FROM {context} WHERE whole_id <> 0"
        " GROUP BY who, whole_id HAVING min(moment) < max(moment)"
    )
    if not some(cursor, "stage_wholes"):
        return None
    cursor.execute(
        f"CREATE TABLE stage_told AS SELECT DISTINCT c.who, c.whole_id, c.moment FROM {context} c"
        " SEMI JOIN stage_wholes USING (who, whole_id)"
    )
    return (
        f"SELECT j.group_id, j.rank, {_FIRST_AFTER} AS until, false AS erase FROM stage_judged j"
        " JOIN stage_told r ON r.who = j.who AND r.whole_id = j.whole_id AND r.moment > j.moment"
        " GROUP BY j.group_id, j.rank, j.moment"
    )


def _lost_to_retractions(cursor: duckdb.DuckDBPyConnection) -> str | None:
    """Versions up to a retraction of their key, or of what they are a part of."""
    if not some(cursor, "fedtwin_retraction"):
        return None
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE taken_back AS "
        + _CANON.format("SELECT key_id, person_id, version, visit_id FROM fedtwin_retraction")
    )
    hits = (
        f"SELECT j.group_id, j.rank, coalesce(r.moment, {_NEVER}) AS until,"
        " r.moment IS NULL AND (r.person_id IS NULL OR r.person_id = j.person_id) AS erase"
        " FROM stage_judged j JOIN taken_back r ON {} = r.key_id AND (r.person_id IS NULL OR r.who = j.who)"
        " AND (r.moment IS NULL OR j.moment <= r.moment)"
    )
    return f"{hits.format('j.key_id')} UNION ALL {hits.format('j.base_key_id')}"


def leave(cursor: duckdb.DuckDBPyConnection, settled: Settled, load_id: int) -> None:
    """Move stored records whose version holds no longer beside the CDM, and note them in `doomed`."""
    if settled.replaced:
        for table in [*(former(name) for name in STAGED), "fedtwin_former_provenance"]:
            cursor.execute(
                f"DELETE FROM {table} t USING stage_replaced s WHERE t.group_id = s.group_id"
                " AND t.rank = s.rank"
            )
        cursor.execute(
            "INSERT INTO doomed SELECT table_name, record_id FROM fedtwin_provenance"
            " WHERE group_id IN (SELECT group_id FROM stage_replaced WHERE held)"
        )
    if settled.losing and some(cursor, "stage_loses WHERE erase"):
        for table in [*(former(name) for name in STAGED), "fedtwin_former_provenance"]:
            cursor.execute(
                f"DELETE FROM {table} t USING stage_loses s WHERE s.erase AND t.group_id = s.group_id"
                " AND t.rank = s.rank"
            )
    if settled.losing and some(cursor, "fedtwin_former_provenance"):
        cursor.execute(
            "UPDATE fedtwin_former_provenance p SET until = s.until FROM stage_loses s"
            " WHERE p.group_id = s.group_id AND p.rank = s.rank AND p.until <> s.until"
        )
    if not settled.leaving:
        return
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE going AS SELECT p.table_name, p.record_id, l.*"
        " FROM fedtwin_provenance p JOIN stage_leaving l USING (group_id)"
    )
    cursor.execute("INSERT INTO doomed SELECT table_name, record_id FROM going")
    cursor.execute("DELETE FROM going WHERE erase")
    for table in STAGED:
        name = key_name(table)
        if not some(cursor, f"going WHERE table_name = '{name}'"):
            continue
        columns = columns_of(table)
        version = "" if "version" in columns else ", g.version, g.rank"
        own = ", ".join(
            "coalesce(u.visit_id, t.visit_occurrence_id) AS visit_occurrence_id"
            if column == "visit_occurrence_id" and name != "visit_occurrence"
            else f"t.{column}"
            for column in columns
        )
        for place in places_of(name):
            cursor.execute(
                f"INSERT INTO {former(table)} BY NAME SELECT {own}, g.group_id{version} FROM {place} t"
                f" JOIN going g ON g.table_name = '{name}' AND g.record_id = t.{id_of(table)}"
                f" LEFT JOIN fedtwin_unvisited u ON u.table_name = '{name}' AND u.record_id = g.record_id"
            )
    cursor.execute(
        "INSERT INTO fedtwin_former_provenance BY NAME SELECT p.*, g.version, g.rank, g.until,"
        " ? AS gone_load_id FROM fedtwin_provenance p JOIN going g USING (table_name, record_id)",
        [load_id],
    )
    cursor.execute(
        "INSERT INTO fedtwin_former_link SELECT l.*, g.rank FROM fedtwin_link l JOIN"
        " (SELECT DISTINCT record_id, rank FROM going) g USING (record_id)"
    )


def put_aside(cursor: duckdb.DuckDBPyConnection, stage: Stage, settled: Settled, load_id: int) -> int:
    """Take out of the stage what does not hold, and keep it beside the CDM; return how many records."""
    if not settled.aside:
        return 0
    cursor.execute(
        "CREATE TABLE stage_aside AS SELECT group_id, rank, NULL::TIMESTAMP AS until, true AS erase"
        " FROM stage_dropped UNION ALL BY NAME SELECT group_id, rank, until, erase FROM stage_loses"
    )
    kept = "JOIN stage_aside a ON a.group_id = s.group_id AND a.rank = s.rank AND NOT a.erase"
    unsaid = f"coalesce(s.version, {_NEVER}) AS version"
    cursor.execute(
        f"INSERT INTO fedtwin_former_provenance BY NAME SELECT s.* REPLACE ({unsaid}), a.until,"
        f" ? AS load_id, ? AS gone_load_id FROM stage_provenance s {kept}",
        [load_id, load_id],
    )
    gone = "USING stage_aside a WHERE a.group_id = s.group_id AND a.rank = s.rank"
    for table in stage.some(STAGED):
        said = "s.*" if "version" in columns_of(table) else f"s.* REPLACE ({unsaid})"
        cursor.execute(f"INSERT INTO {former(table)} BY NAME SELECT {said} FROM stage_{table} s {kept}")
        cursor.execute(f"DELETE FROM stage_{table} s {gone}")
    cursor.execute(
        "INSERT INTO fedtwin_former_link BY NAME SELECT DISTINCT s.* EXCLUDE (group_id) FROM stage_link s "
        + kept
    )
    cursor.execute(f"DELETE FROM stage_link s {gone}")
    before = count(cursor, "stage_provenance")
    cursor.execute(f"DELETE FROM stage_provenance s {gone}")
    return before - count(cursor, "stage_provenance")


def come_back(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring records back whose version holds again: into `back_...`, to be placed with the staged ones."""
    these = "JOIN stage_coming c ON c.group_id = t.group_id AND c.rank = t.rank"
    these_gone = "USING stage_coming c WHERE c.group_id = t.group_id AND c.rank = t.rank"
    cursor.execute(
        "INSERT INTO fedtwin_link SELECT l.* EXCLUDE (rank) FROM fedtwin_former_link l JOIN"
        f" (SELECT DISTINCT t.record_id, t.rank FROM fedtwin_former_provenance t {these}) g"
        " USING (record_id, rank)"
    )
    cursor.execute(
        "DELETE FROM fedtwin_former_link l USING (SELECT DISTINCT t.record_id, t.rank"
        f" FROM fedtwin_former_provenance t {these}) g WHERE g.record_id = l.record_id AND g.rank = l.rank"
    )
    cursor.execute(
        "INSERT INTO fedtwin_provenance BY NAME SELECT t.* EXCLUDE (version, rank, until, gone_load_id)"
        f" FROM fedtwin_former_provenance t {these}"
    )
    cursor.execute(f"INSERT INTO touched SELECT DISTINCT person_id FROM fedtwin_former_provenance t {these}")
    cursor.execute(f"DELETE FROM fedtwin_former_provenance t {these_gone}")
    for table in STAGED:
        if table in [held(name) for name in DRAWN]:
            columns = ", ".join(f"t.{column}" for column in columns_of(table))
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM {former(table)} t {these}")
        else:
            cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE back_{table} AS SELECT t.* FROM {former(table)} t {these}"
            )
        cursor.execute(f"DELETE FROM {former(table)} t {these_gone}")


def some(cursor: duckdb.DuckDBPyConnection, what: str) -> bool:
    """Return whether a relation has a row."""
    return cursor.execute(f"SELECT 1 FROM {what} LIMIT 1").fetchone() is not None


def count(cursor: duckdb.DuckDBPyConnection, what: str) -> int:
    """Return how many rows a relation has."""
    row = cursor.execute(f"SELECT count(*) FROM {what}").fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0])
