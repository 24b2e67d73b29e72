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

import duckdb

from node.omop import fact_ends
from node.omop.fact_persons import places_of
from node.omop.side_tables import DRAWN, STAGED, columns_of, former, held, id_of, key_name

_NEVER = "'-infinity'::TIMESTAMP"  # before everything: of a version that the source does not say
_COLUMNS = "group_id, key_id, base_key_id, thing_id, whole_id, person_id, version, rank, visit_id, partial"
# rows of stores that an earlier version made
_OLD = f"thing_id IS NULL OR version IS NULL OR version = {_NEVER}"
_STORED = (
    "SELECT group_id, key_id, base_key_id, coalesce(thing_id, group_id) AS thing_id,"
    f" coalesce(whole_id, 0) AS whole_id, person_id, coalesce(version, {_NEVER}) AS version, rank,"
    " coalesce(holds, true) AS holds, visit_id, partial FROM fedtwin_group"
)
_SEEN = f"""
CREATE TABLE stage_seen AS
SELECT group_id, coalesce(version, {_NEVER}) AS version, max(rank) AS rank, arg_max(key_id, rank) AS key_id,
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


def settle(cursor: duckdb.DuckDBPyConnection, load_id: int) -> None:
    """Judge the staged versions and the stored ones that they concern.

    Afterwards `stage_loses` has the versions that do not hold (group_id, rank, until, erase), `stage_leaving`
    those of them that held, `stage_coming` those that hold again, `stage_dropped` the staged ones that are
    nothing new. Nothing of records has moved.
    """
    cursor.execute(_SEEN)
    _adopt(cursor)
    _drop_the_same(cursor)
    _judge(cursor)
    _lose(cursor)
    cursor.execute(
        "CREATE TABLE stage_leaving AS SELECT j.group_id, j.rank, j.version, l.until, l.erase"
        " FROM stage_judged j JOIN stage_loses l USING (group_id, rank) WHERE NOT j.fresh AND j.holds"
    )
    cursor.execute(
        "CREATE TABLE stage_coming AS SELECT j.group_id, j.rank FROM stage_judged j ANTI JOIN stage_loses l"
        " USING (group_id, rank) WHERE NOT j.fresh AND NOT j.holds"
    )
    for name, holds in (("stage_leaving", "false"), ("stage_coming", "true")):
        if some(cursor, name):
            cursor.execute(
                f"UPDATE fedtwin_group g SET holds = {holds} FROM {name} s"
                " WHERE g.group_id = s.group_id AND g.rank = s.rank"
            )
    cursor.execute(
        f"INSERT INTO fedtwin_group BY NAME SELECT {_COLUMNS}, l.group_id IS NULL AS holds, ? AS load_id"
        " FROM stage_seen s LEFT JOIN stage_loses l USING (group_id, rank)",
        [load_id],
    )


def _adopt(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring rows of stores that an earlier version made up to date, where they are spoken of."""
    if some(cursor, "fedtwin_group WHERE thing_id IS NULL"):
        cursor.execute(
            "UPDATE fedtwin_group g SET thing_id = s.thing_id, whole_id = s.whole_id, holds = true"
            " FROM stage_seen s WHERE g.thing_id IS NULL AND s.group_id = g.group_id"
        )


def _drop_the_same(cursor: duckdb.DuckDBPyConnection) -> None:
    """Keep of one version the record of the greatest rank; of what is said of a person, the last version.

    What is described alone (`thing_id` is `group_id`: descriptions of persons) never comes back.
    """
    cursor.execute(
        "DELETE FROM stage_seen s USING (SELECT group_id, max(version) AS version FROM stage_seen"
        " WHERE thing_id = group_id GROUP BY group_id HAVING count(*) > 1) m"
        " WHERE s.group_id = m.group_id AND s.version < m.version"
    )
    cursor.execute("CREATE TABLE stage_replaced (group_id BIGINT, rank BIGINT, held BOOLEAN)")
    if some(cursor, "fedtwin_group"):
        later = "row(s.version, s.rank) > row(g.version, g.rank)"
        cursor.execute(
            f"CREATE OR REPLACE TABLE stage_clash AS SELECT g.group_id, g.rank AS stored, g.holds, s.rank,"
            f" {later} AS wins FROM ({_STORED}) g JOIN stage_seen s ON g.group_id = s.group_id"
            " AND (s.version = g.version OR s.thing_id = s.group_id)"
        )
        cursor.execute(
            "DELETE FROM stage_seen s USING stage_clash c"
            " WHERE NOT c.wins AND s.group_id = c.group_id AND s.rank = c.rank"
        )
        cursor.execute(
            "INSERT INTO stage_replaced SELECT group_id, stored, holds FROM stage_clash WHERE wins"
        )
        cursor.execute(
            "DELETE FROM fedtwin_group g USING stage_replaced s"
            " WHERE g.group_id = s.group_id AND g.rank = s.rank"
        )
        cursor.execute("DROP TABLE stage_clash")
    row = cursor.execute(
        "SELECT (SELECT count(*) FROM stage_group) <> (SELECT count(*) FROM stage_seen)"
    ).fetchone()
    cursor.execute("CREATE TABLE stage_dropped (group_id BIGINT, rank BIGINT)")
    if row and row[0]:
        cursor.execute(
            "INSERT INTO stage_dropped SELECT DISTINCT group_id, rank FROM stage_group"
            " ANTI JOIN stage_seen USING (group_id, rank)"
        )


def _judge(cursor: duckdb.DuckDBPyConnection) -> None:
    """`stage_judged`: the staged versions and those stored ones that may hold now or no longer."""
    cursor.execute(
        f"CREATE TABLE stage_judged AS {_CANON.format('FROM stage_seen')}".replace(
            "g.*", "g.*, true AS fresh, false AS holds"
        )
    )
    if some(cursor, "fedtwin_group"):
        things = "SELECT thing_id FROM stage_seen UNION ALL SELECT thing_id FROM stage_concern"
        wholes = "SELECT whole_id FROM stage_seen UNION ALL SELECT whole_id FROM stage_concern"
        keys = "SELECT key_id FROM stage_retraction"
        cursor.execute(
            "INSERT INTO stage_judged BY NAME "
            + _CANON.format(
                f"SELECT *, false AS fresh FROM ({_STORED}) WHERE thing_id IN ({things})"
                f" OR (whole_id <> 0 AND whole_id IN ({wholes})) OR key_id IN ({keys})"
                f" OR base_key_id IN ({keys}) OR person_id IN (SELECT person_id FROM family)"
                " OR visit_id IN (SELECT visit_id FROM moved_visits)"
            )
        )


def _lose(cursor: duckdb.DuckDBPyConnection) -> None:
    """`stage_loses`: which of the judged versions do not hold, and until when they were known."""
    context = "stage_judged"
    if some(cursor, "stage_judged WHERE NOT fresh"):
        context = "stage_context"
        cursor.execute(
            "CREATE TABLE stage_context AS "
            + _CANON.format(
                f"SELECT * FROM ({_STORED}) WHERE thing_id IN (SELECT thing_id FROM stage_judged)"
                " OR (whole_id <> 0 AND whole_id IN (SELECT whole_id FROM stage_judged))"
            )
            + " UNION ALL BY NAME SELECT * FROM stage_judged WHERE fresh"
        )
    cursor.execute(
        "CREATE TABLE stage_rivals AS SELECT c.who, c.thing_id, c.moment, c.rank, c.group_id FROM"
        f" {context} c SEMI JOIN (SELECT who, thing_id FROM {context} GROUP BY ALL HAVING count(*) > 1) t"
        " USING (who, thing_id)"
    )
    cursor.execute(
        f"CREATE TABLE stage_told AS SELECT DISTINCT c.who, c.whole_id, c.moment FROM {context} c SEMI JOIN"
        f" (SELECT who, whole_id FROM {context} WHERE whole_id <> 0 GROUP BY who, whole_id"
        " HAVING min(moment) < max(moment)) t USING (who, whole_id)"
    )
    first = "min(r.moment) FILTER (r.moment > j.moment)"
    person = "(r.person_id IS NULL OR r.who = j.who)"
    hits = (
        f"SELECT j.group_id, j.rank, coalesce(r.moment, {_NEVER}) AS until,"
        " r.moment IS NULL AND (r.person_id IS NULL OR r.person_id = j.person_id) AS erase"
        f" FROM stage_judged j JOIN taken_back r ON {{}} = r.key_id AND {person}"
        " AND (r.moment IS NULL OR j.moment <= r.moment)"
    )
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE taken_back AS "
        + _CANON.format("SELECT key_id, person_id, version, visit_id FROM fedtwin_retraction")
    )
    fact_ends.choose(cursor, context)
    cursor.execute(
        "CREATE TABLE stage_loses AS SELECT group_id, rank, min(until) AS until, bool_or(erase) AS erase"
        " FROM ("
        f" SELECT j.group_id, j.rank, coalesce({first}, {_NEVER}) AS until, false AS erase"
        " FROM stage_judged j JOIN stage_rivals r USING (who, thing_id)"
        " GROUP BY j.group_id, j.rank, j.moment HAVING max(row(r.moment, r.rank, r.group_id))"
        " > row(j.moment, j.rank, j.group_id)"
        f" UNION ALL SELECT j.group_id, j.rank, {first}, false FROM stage_judged j"
        " JOIN stage_told r ON r.who = j.who AND r.whole_id = j.whole_id AND r.moment > j.moment"
        " GROUP BY j.group_id, j.rank, j.moment"
        f" UNION ALL SELECT group_id, rank, {_NEVER}, false FROM stage_judged ANTI JOIN stage_filled"
        " USING (group_id, rank) WHERE partial IS NOT NULL"
        f" UNION ALL {hits.format('j.key_id')} UNION ALL {hits.format('j.base_key_id')}"
        ") GROUP BY group_id, rank"
    )


def leave(cursor: duckdb.DuckDBPyConnection, load_id: int) -> None:
    """Move stored records whose version holds no longer beside the CDM, and note them in `doomed`."""
    if some(cursor, "stage_replaced"):
        for table in [*(former(name) for name in STAGED), "fedtwin_former_provenance"]:
            cursor.execute(
                f"DELETE FROM {table} t USING stage_replaced s WHERE t.group_id = s.group_id"
                " AND t.rank = s.rank"
            )
        cursor.execute(
            "INSERT INTO doomed SELECT table_name, record_id FROM fedtwin_provenance"
            " WHERE group_id IN (SELECT group_id FROM stage_replaced WHERE held)"
        )
    if some(cursor, "stage_loses WHERE erase"):
        for table in [*(former(name) for name in STAGED), "fedtwin_former_provenance"]:
            cursor.execute(
                f"DELETE FROM {table} t USING stage_loses s WHERE s.erase AND t.group_id = s.group_id"
                " AND t.rank = s.rank"
            )
    if some(cursor, "stage_loses") and some(cursor, "fedtwin_former_provenance"):
        cursor.execute(
            "UPDATE fedtwin_former_provenance p SET until = s.until FROM stage_loses s"
            " WHERE p.group_id = s.group_id AND p.rank = s.rank AND p.until <> s.until"
        )
    if not some(cursor, "stage_leaving"):
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


def put_aside(cursor: duckdb.DuckDBPyConnection, load_id: int) -> int:
    """Take out of the stage what does not hold, and keep it beside the CDM; return how many records."""
    cursor.execute(
        "CREATE TABLE stage_aside AS SELECT group_id, rank, NULL::TIMESTAMP AS until, true AS erase"
        " FROM stage_dropped UNION ALL BY NAME SELECT group_id, rank, until, erase FROM stage_loses"
    )
    if not some(cursor, "stage_aside"):
        return 0
    kept = "JOIN stage_aside a ON a.group_id = s.group_id AND a.rank = s.rank AND NOT a.erase"
    unsaid = f"coalesce(s.version, {_NEVER}) AS version"
    cursor.execute(
        f"INSERT INTO fedtwin_former_provenance BY NAME SELECT s.* REPLACE ({unsaid}), a.until,"
        f" ? AS load_id, ? AS gone_load_id FROM stage_provenance s {kept}",
        [load_id, load_id],
    )
    gone = "USING stage_aside a WHERE a.group_id = s.group_id AND a.rank = s.rank"
    for table in STAGED:
        if some(cursor, f"stage_{table}"):
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
    if not some(cursor, "stage_coming"):
        return
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
