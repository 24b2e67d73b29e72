"""Who a record belongs to: merges, withdrawals, descriptions of persons, and records that wait for one.

A record keeps the person whom its source named (`fedtwin_provenance.person_id`); the CDM has the one whom
that person is now, and its dates are moved by that one's days.
"""

# ruff: noqa: S608 (statements are put together from names and words of our own)

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from deid.dates import OLDEST_AGE_YEARS
from node.omop.side_tables import DRAWN, PLAN_PARTS, STAGED, WAITING, former, held, id_of, key_name, waiting
from node.omop.stage import Stage
from node.omop.tables import cdm_tables

# tables that follow from the others, one row or more per person
DERIVED = (
    "observation_period",
    "condition_era",
    "drug_era",
    "image_feature",
    "payer_plan_period",
    PLAN_PARTS,
)
UNDESCRIBED = "person_id NOT IN (SELECT person_id FROM person)"  # whoever a relation's rows are of
_LATEST = "row(h.person_id = t.person_id, coalesce(h.version, '-infinity'::TIMESTAMP), h.rank)"

_WHO = """
CREATE OR REPLACE TEMP TABLE canon (person_id BIGINT, into_person_id BIGINT, days BIGINT);
CREATE OR REPLACE TEMP TABLE renamed (person_id BIGINT, into_person_id BIGINT, days BIGINT);
CREATE OR REPLACE TEMP TABLE family (person_id BIGINT);
"""


def places_of(name: str) -> tuple[str, ...]:
    """Return the tables where records lie that provenance has as `name`."""
    if name == "link":
        return ()  # it has no table of its own
    if name in DRAWN:
        return (held(name),)
    return (name, waiting(name))


def withdrawn(cursor: duckdb.DuckDBPyConnection) -> np.ndarray:
    """Return all persons who withdrew, under every name that they had."""
    gone = {row[0] for row in cursor.execute("SELECT person_id FROM fedtwin_withdrawn").fetchall()}
    if not gone:
        return np.empty(0, dtype=np.int64)
    aliases = cursor.execute("SELECT DISTINCT person_id, into_person_id FROM fedtwin_alias").fetchall()
    while True:
        more = {one for pair in aliases if gone.intersection(pair) for one in pair} - gone
        if not more:
            return np.array(sorted(gone), dtype=np.int64)
        gone |= more


def rename(cursor: duckdb.DuckDBPyConnection, stage: Stage, load_id: int) -> bool:
    """Take in what the load says of who is who; return whether stored records have to move.

    Afterwards `canon` has, for each person who is now somebody else, that one and the days between them; and
    `renamed` those for whom this is new, with what it was before; `family` everybody whose records may now
    be versions of each other's, or no longer.
    """
    after = before = canonical(cursor)
    if stage.has("alias"):
        cursor.execute("INSERT INTO fedtwin_alias SELECT DISTINCT *, ? FROM stage_alias", [load_id])
        after = canonical(cursor)
    cursor.execute(_WHO)
    fill(cursor, "canon", [(a, *b) for a, b in after.items()])
    changed = [
        (person, after.get(person, (person, 0)), before.get(person, (person, 0)))
        for person in before.keys() | after.keys()
        if before.get(person) != after.get(person)
    ]
    if not changed:
        return False
    fill(cursor, "renamed", [(person, now[0], now[1] - then[1]) for person, now, then in changed])
    of = {one for person, now, then in changed for one in (person, now[0], then[0])}
    fill(cursor, "touched", [(one,) for one in of])
    kin = of | {person for person, (into, _) in after.items() if into in of}
    fill(cursor, "family", [(one,) for one in kin])
    return True


def fill(cursor: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[int, ...]]) -> None:
    """Put rows of numbers into a table, which has a column for each."""
    if rows:
        columns = [pa.array(column, pa.int64()) for column in zip(*rows, strict=True)]
        cursor.register("filling", pa.table(columns, [f"c{place}" for place in range(len(columns))]))
        cursor.execute(f"INSERT INTO {table} SELECT * FROM filling")
        cursor.unregister("filling")


def canonical(cursor: duckdb.DuckDBPyConnection) -> dict[int, tuple[int, int]]:
    """Return who each renamed person is in the end, and the days from their own shift to that one's."""
    rows = cursor.execute(
        "SELECT person_id, into_person_id, days FROM fedtwin_alias WHERE person_id <> into_person_id"
        " QUALIFY row_number() OVER (PARTITION BY person_id ORDER BY version DESC NULLS LAST, rank DESC) = 1"
    ).fetchall()
    step = {person: (into, days) for person, into, days in rows}
    found: dict[int, tuple[int, int]] = {}
    for person in step:
        at, days, path = person, 0, {person: 0}
        while at in step:
            at, more = step[at]
            days += more
            if at in path:  # a circle: the least of its members is who they all are
                ring = [at]
                while step[ring[-1]][0] != at:
                    ring.append(step[ring[-1]][0])
                at = min(ring)
                days = path.get(at, days)
                break
            path[at] = days
        if at != person:
            found[person] = (at, days)
    return found


def _dates(table: str) -> list[str]:
    name = key_name(table.removeprefix("stage_"))
    return [field.name for field in cdm_tables()[name].fields if field.datatype in ("date", "timestamp")]


def _moved(table: str) -> str:
    """The assignments of an UPDATE that moves a record to `m.into_person_id` by `m.days`."""
    changes = ["person_id = m.into_person_id"]
    for field in _dates(table):
        kind = "DATE" if field.endswith("_date") else "TIMESTAMP"
        changes.append(f"{field} = CAST({field} + to_days(CAST(m.days AS INTEGER)) AS {kind})")
    return ", ".join(changes)


def move_staged(cursor: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """Move records that are about to be stored to whom their persons are now."""
    if not _count(cursor, "canon"):
        return
    move(cursor, [f"stage_{table}" for table in stage.some(WAITING)])
    cursor.execute(
        "UPDATE stage_provenance p SET recorded_at = recorded_at + to_days(CAST(m.days AS INTEGER))"
        " FROM canon m WHERE p.person_id = m.person_id AND p.table_name NOT IN ('person', 'death')"
    )


def move(cursor: duckdb.DuckDBPyConnection, tables: list[str]) -> None:
    """Move records that stand under who somebody no longer is to who that is by `canon`."""
    for table in tables:
        cursor.execute(f"UPDATE {table} t SET {_moved(table)} FROM canon m WHERE t.person_id = m.person_id")


def move_stored(cursor: duckdb.DuckDBPyConnection) -> None:
    """Move stored records of the persons of `renamed`."""
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE moving AS SELECT p.table_name, p.record_id, m.into_person_id, m.days"
        " FROM fedtwin_provenance p JOIN renamed m ON m.person_id = p.person_id"
    )
    for name in WAITING:
        for table in places_of(name):
            cursor.execute(
                f"UPDATE {table} t SET {_moved(table)} FROM moving m"
                f" WHERE m.table_name = '{name}' AND m.record_id = t.{name}_id"
            )
    if _count(cursor, "fedtwin_former_provenance"):
        for name in WAITING:
            cursor.execute(
                f"UPDATE {former(name)} t SET {_moved(former(name))} FROM fedtwin_former_provenance p,"
                f" renamed m WHERE m.person_id = p.person_id AND p.table_name = '{name}'"
                f" AND p.record_id = t.{name}_id AND p.rank = t.rank"
            )
    for side in ("", "former_"):
        cursor.execute(
            f"UPDATE fedtwin_{side}provenance p SET recorded_at = recorded_at"
            " + to_days(CAST(m.days AS INTEGER)) FROM renamed m WHERE p.person_id = m.person_id"
            " AND p.table_name NOT IN ('person', 'death')"
        )


def withdraw(cursor: duckdb.DuckDBPyConnection) -> None:
    """Remove everything of persons who withdrew, if somebody did or two persons turned out to be one."""
    if not _count(cursor, "stage_withdrawn") and not _count(cursor, "fedtwin_withdrawn"):
        return
    cursor.execute(
        "INSERT INTO fedtwin_withdrawn SELECT DISTINCT person_id FROM stage_withdrawn"
        " WHERE person_id NOT IN (SELECT person_id FROM fedtwin_withdrawn)"
    )
    if _count(cursor, "fedtwin_withdrawn") and (
        _count(cursor, "stage_withdrawn") or _count(cursor, "renamed")
    ):
        purge(cursor)


def purge(cursor: duckdb.DuckDBPyConnection) -> None:
    """Remove everything of persons who withdrew."""
    gone = withdrawn(cursor)
    cursor.execute("CREATE OR REPLACE TEMP TABLE gone (person_id BIGINT)")
    if not len(gone):
        return
    fill(cursor, "gone", [(int(person),) for person in gone])
    mine = "(SELECT person_id FROM gone)"
    costs = f"SELECT record_id FROM fedtwin_provenance WHERE table_name = 'cost' AND person_id IN {mine}"
    cursor.execute(
        f"DELETE FROM note_nlp WHERE note_id IN (SELECT note_id FROM note WHERE person_id IN {mine})"
    )
    for name in (*WAITING, "person", "death"):
        key = f"{name}_id" if name != "death" else "person_id"
        cursor.execute(
            f"DELETE FROM fedtwin_provenance WHERE table_name = '{name}'"
            f" AND record_id IN (SELECT {key} FROM {name} WHERE person_id IN {mine})"
        )
    _purge_moved(cursor)
    for table in ("cost", held("cost")):
        cursor.execute(f"DELETE FROM {table} WHERE cost_id IN ({costs})")
    for table in STAGED:
        cursor.execute(
            f"DELETE FROM {former(table)} t USING fedtwin_former_provenance p WHERE p.person_id IN {mine}"
            f" AND p.table_name = '{key_name(table)}' AND p.record_id = t.{id_of(former(table))}"
            " AND p.rank = t.rank"
        )
    tables = [*WAITING, *(waiting(name) for name in WAITING), "person", "death", *DERIVED]
    tables += [held("person"), held("death"), held("payer_plan_period")]
    sides = ("group", "retraction", "last_year", "link", "former_link", "unvisited", "former_provenance")
    tables += [f"fedtwin_{side}" for side in sides]
    for table in tables:
        cursor.execute(f"DELETE FROM {table} WHERE person_id IN {mine}")
    cursor.execute(f"DELETE FROM fedtwin_provenance WHERE person_id IN {mine}")


def _purge_moved(cursor: duckdb.DuckDBPyConnection) -> None:
    """Remove what moved with a visit: to whoever is gone, and what was told of them before it moved away."""
    if not _count(cursor, "fedtwin_moved"):
        return
    these = (
        "(SELECT record_id FROM fedtwin_moved WHERE table_name = '{}' AND rank IS {} NULL AND (told_person_id"
        " IN (SELECT person_id FROM gone) OR into_person_id IN (SELECT person_id FROM gone)))"
    )
    for name in WAITING:
        now, then = these.format(name, ""), these.format(name, "NOT")
        if name == "note":
            cursor.execute(f"DELETE FROM note_nlp WHERE note_id IN {now}")
        for table in places_of(name):
            cursor.execute(f"DELETE FROM {table} WHERE {name}_id IN {now}")
        for side in ("provenance", "unvisited"):
            cursor.execute(f"DELETE FROM fedtwin_{side} WHERE table_name = '{name}' AND record_id IN {now}")
        cursor.execute(f"DELETE FROM fedtwin_link WHERE record_id IN {now}")
        cursor.execute(f"DELETE FROM {former(name)} WHERE {name}_id IN {then}")
        cursor.execute(
            f"DELETE FROM fedtwin_former_provenance WHERE table_name = '{name}' AND record_id IN {then}"
        )
    mine = "(SELECT person_id FROM gone)"
    cursor.execute(f"DELETE FROM fedtwin_moved WHERE told_person_id IN {mine} OR into_person_id IN {mine}")
    cursor.execute(f"DELETE FROM fedtwin_visit_move WHERE person_id IN {mine}")


def draw(cursor: duckdb.DuckDBPyConnection, *, told: bool = True) -> None:
    """Make the rows of `person` and `death` of the touched persons from what was told of them.

    Args: told, whether anything of that may be new; without that only somebody's age may have to be capped.
    """
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE told AS SELECT t.person_id, h.own FROM touched t JOIN ("
        " SELECT person_id AS own, person_id FROM touched"
        " UNION SELECT person_id AS own, into_person_id AS person_id FROM canon) h USING (person_id)"
    )
    capped = _cap(cursor)
    if told or capped:
        _draw_persons(cursor)
        _draw_deaths(cursor)


def _draw_persons(cursor: duckdb.DuckDBPyConnection) -> None:
    def latest(field: str, known: str) -> str:
        return f"arg_max(h.{field}, {_LATEST}) FILTER ({known})"

    fields = [
        latest("year_of_birth", "h.year_of_birth IS NOT NULL") + " AS year_of_birth",
        *(
            f"coalesce({latest(f'{name}_concept_id', f'h.{name}_source_value IS NOT NULL')}, 0)"
            f" AS {name}_concept_id, {latest(f'{name}_source_value', f'h.{name}_source_value IS NOT NULL')}"
            f" AS {name}_source_value"
            for name in ("gender", "race", "ethnicity")
        ),
    ]
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE drawn AS SELECT t.person_id, {', '.join(fields)}"
        f" FROM told t JOIN {held('person')} h ON h.person_id = t.own GROUP BY t.person_id"
    )
    cursor.execute(
        "DELETE FROM person WHERE person_id IN (SELECT person_id FROM touched)"
        " AND (person_id IN (SELECT person_id FROM drawn) OR person_id NOT IN"
        " (SELECT record_id FROM fedtwin_provenance WHERE table_name = 'person'))"
    )
    cursor.execute(
        "INSERT INTO person BY NAME SELECT * FROM drawn WHERE year_of_birth IS NOT NULL"
        " AND person_id NOT IN (SELECT person_id FROM canon)"
    )


def _draw_deaths(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute(
        "DELETE FROM death WHERE person_id IN (SELECT person_id FROM touched) AND person_id NOT IN"
        " (SELECT record_id FROM fedtwin_provenance WHERE table_name = 'death')"
    )
    cursor.execute(
        "INSERT INTO death BY NAME SELECT h.* EXCLUDE (record_id, version, rank) REPLACE ("
        " t.person_id AS person_id,"
        " CAST(h.death_date + to_days(CAST(coalesce(c.days, 0) AS INTEGER)) AS DATE) AS death_date,"
        " h.death_datetime + to_days(CAST(coalesce(c.days, 0) AS INTEGER)) AS death_datetime)"
        f" FROM told t JOIN {held('death')} h ON h.person_id = t.own"
        " LEFT JOIN canon c ON c.person_id = h.person_id"
        " WHERE t.person_id IN (SELECT person_id FROM person)"
        " AND t.person_id NOT IN (SELECT person_id FROM death)"
        " QUALIFY row_number() OVER (PARTITION BY t.person_id ORDER BY h.version DESC NULLS LAST,"
        " h.rank DESC) = 1"
    )


def _cap(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Nobody is older than 90 in the last year that anything was said of them, for good.

    Returns whether somebody would have been.
    """
    row = cursor.execute(
        f"UPDATE {held('person')} h SET year_of_birth = y.year - {OLDEST_AGE_YEARS} FROM ("
        " SELECT a.own, max(l.year) AS year FROM told a JOIN told b USING (person_id)"
        " JOIN fedtwin_last_year l ON l.person_id = b.own GROUP BY a.own) y"
        f" WHERE y.own = h.person_id AND h.year_of_birth < y.year - {OLDEST_AGE_YEARS}"
    ).fetchone()
    return bool(row and row[0])


def wait(cursor: duckdb.DuckDBPyConnection, *, undescribed: bool) -> None:
    """Let records wait whose person nobody describes, and no longer those whose person somebody does.

    Args: undescribed, whether one of the touched persons may be such.
    """
    theirs = f"person_id IN (SELECT person_id FROM touched) AND {UNDESCRIBED}"
    for name in WAITING if undescribed else ():
        if _count(cursor, f"{name} WHERE {theirs}"):
            cursor.execute(f"INSERT INTO {waiting(name)} SELECT * FROM {name} WHERE {theirs}")
            cursor.execute(f"DELETE FROM {name} WHERE {theirs}")
    release(cursor)


def release(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring in the records that waited for persons who are described by now."""
    described = "person_id IN (SELECT person_id FROM person)"
    for name in WAITING:
        there = cursor.execute(f"SELECT 1 FROM {waiting(name)} LIMIT 1").fetchone()
        if there is not None and _count(cursor, f"{waiting(name)} WHERE {described}"):
            cursor.execute(f"INSERT INTO {name} SELECT * FROM {waiting(name)} WHERE {described}")
            cursor.execute(f"DELETE FROM {waiting(name)} WHERE {described}")


def _count(cursor: duckdb.DuckDBPyConnection, what: str) -> int:
    row = cursor.execute(f"SELECT count(*) FROM {what}").fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0])
