"""The node's own tables beside the CDM: what was loaded, where records came from, what was turned away.

For as-of reads and for the question where a value comes from, these two are the ones to know.

`fedtwin_load`: one row per file (or batch of messages) that was taken in.

    load_id             the name that the other tables use
    source_name         the file's name; source_sha256: of its bytes (of a wearable's: and of whose they are)
    mapping_name        the mapping or the reader; mapping_sha256: of it, or of the reader's version
    loaded_at           UTC
    rows                records in the file
    quarantined         values and records turned away; records_quarantined: the latter alone
    events              CDM records stored
    reader              null for delimited files under a mapping; reader_version
    vocabulary_version  what the codes were mapped by; null: by the mapping alone
    format              of the source: "fhir", "delimited", ...
    seconds             that the load took

`fedtwin_provenance`: one row per record of the CDM.

    load_id             -> fedtwin_load
    table_name          record_id: -> the CDM
    source_row          number of the record in its file, from 1
    place               inside that record: "component[1]", "OBX-3"; null for delimited files
    recorded_at         when the source recorded it, UTC, moved by the patient's days like every date;
                        null: it does not say, and then the record's own date has to do
    utc_offset_min      what the local clock showed. Datetimes of the CDM are local: UTC = datetime - offset;
                        null: they are UTC, or nobody knows
    precision           of the start: year, month, day, second; null: a second if there is a datetime
    transformations     words with blanks between: shifted year-only mapped unmapped routed (the concept's
                        domain chose another table than the source's) unit-converted value-mapped redacted
                        text-withheld
    person_id           whose record the source said it is: differs from the CDM's after a merge; null for
                        records that an earlier version took in by a mapping
    group_id            what is replaced and retracted together -> fedtwin_group; null: never

A person's row in the CDM is drawn from all descriptions of them (`fedtwin_held_person`), a death from all
that were told of (`fedtwin_held_death`); for both, `record_id` here is that of the description where a reader
gave it, and the person's id where a mapping did. A period of cover is drawn from the parts that were told
(`fedtwin_held_payer_plan_period`): `fedtwin_plan_part` says of which.
"""

from __future__ import annotations

from functools import cache

from node.omop.tables import cdm_tables

_LOAD = """
CREATE TABLE IF NOT EXISTS fedtwin_load (
  load_id BIGINT NOT NULL,
  source_name VARCHAR NOT NULL,
  source_sha256 VARCHAR NOT NULL,
  mapping_name VARCHAR NOT NULL,
  mapping_sha256 VARCHAR NOT NULL,
  loaded_at TIMESTAMP NOT NULL,
  rows BIGINT NOT NULL,
  quarantined BIGINT NOT NULL,
  events BIGINT NOT NULL,
  reader VARCHAR,
  reader_version VARCHAR,
  vocabulary_version VARCHAR,
  format VARCHAR,
  seconds DOUBLE,
  records_quarantined BIGINT)
"""

# `source_row`: 1 is the first row of data, headers not counted.
_PROVENANCE_COLUMNS = """
  load_id BIGINT NOT NULL,
  table_name VARCHAR NOT NULL,
  record_id BIGINT NOT NULL,
  source_row BIGINT NOT NULL,
  place VARCHAR,
  recorded_at TIMESTAMP,
  utc_offset_min SMALLINT,
  precision VARCHAR,
  transformations VARCHAR,
  person_id BIGINT,
  group_id BIGINT"""
_PROVENANCE = f"CREATE TABLE IF NOT EXISTS fedtwin_provenance ({_PROVENANCE_COLUMNS})"

# One row per value or row that was turned away: where it stands and why, never what it says.
_QUARANTINE = """
CREATE TABLE IF NOT EXISTS fedtwin_quarantine (
  load_id BIGINT NOT NULL,
  source_name VARCHAR NOT NULL,
  source_row BIGINT NOT NULL,
  field VARCHAR NOT NULL,
  reason VARCHAR NOT NULL,
  whole_row BOOLEAN NOT NULL)
"""

# How many rows of an event table were in order of concept when it was last sorted.
_LAYOUT = """
CREATE TABLE IF NOT EXISTS fedtwin_layout (
  table_name VARCHAR NOT NULL,
  sorted_rows BIGINT NOT NULL)
"""

# One row, once a vocabulary was loaded. Lines of it that were turned away stand in the quarantine under
# `VOCABULARY_LOAD`, which is no load of records.
_VOCABULARY = """
CREATE TABLE IF NOT EXISTS fedtwin_vocabulary (
  version VARCHAR NOT NULL,
  source_sha256 VARCHAR NOT NULL,
  loaded_at TIMESTAMP NOT NULL,
  concepts BIGINT NOT NULL)
"""
VOCABULARY_LOAD = 0

# Every version of what a source names by a key of its own. `version` is moved by the patient's days;
# -infinity (and null, of stores of an earlier version): the source does not say. Of two versions the later
# one holds; of the same version the greater `rank`, which file and record decide.
#   group_id     of the person, the kind and the key
#   key_id       of the key; base_key_id: of the thing that this is a part of, else of the key too
#   thing_id     of the kind and the key, whoever's: what two persons have of one thing, who turn out to be
#                one, are versions of it
#   whole_id     of what is told as a whole: parts that a later version of it leaves out hold no longer. 0: of
#                nothing
#   visit_id     of the visit that its source names, for what moves with a visit
#   partial      of a visit whose source says not when it began: 1 its end is known, 2 it has none. Such a
#                version has the start of the one before it, and holds only if there is one
#   holds        whether the records of this version are those of the CDM (or wait); those of others are
#                kept in the tables `former`
_GROUP = """
CREATE TABLE IF NOT EXISTS fedtwin_group (
  group_id BIGINT NOT NULL,
  key_id BIGINT NOT NULL,
  base_key_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL,
  version TIMESTAMP,
  rank BIGINT NOT NULL,
  load_id BIGINT NOT NULL,
  thing_id BIGINT,
  whole_id BIGINT,
  holds BOOLEAN,
  visit_id BIGINT,
  partial TINYINT)
"""

# Provenance of records that hold no longer, or never did because a later version came first.
#   until         when the next version was recorded, or the retraction: the record was known before it.
#                 -infinity: at no moment
#   gone_load_id  the load that put another in its place
_FORMER_PROVENANCE = f"""
CREATE TABLE IF NOT EXISTS fedtwin_former_provenance ({_PROVENANCE_COLUMNS},
  version TIMESTAMP NOT NULL,
  rank BIGINT NOT NULL,
  until TIMESTAMP NOT NULL,
  gone_load_id BIGINT NOT NULL)
"""

# Records whose visit is not there: the visit that their source names. As soon as it comes, or turns out to be
# there under another person's name (thing_id), the record gets it.
_UNVISITED = """
CREATE TABLE IF NOT EXISTS fedtwin_unvisited (
  table_name VARCHAR NOT NULL,
  record_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL,
  visit_id BIGINT NOT NULL,
  thing_id BIGINT)
"""

# Keys that were retracted: what has the key goes, in versions up to this one. No person: whoever's it is.
# No version: for good.
_RETRACTION = """
CREATE TABLE IF NOT EXISTS fedtwin_retraction (
  key_id BIGINT NOT NULL,
  person_id BIGINT,
  version TIMESTAMP,
  load_id BIGINT NOT NULL,
  visit_id BIGINT)
"""

# Persons who turned out to be somebody else; `days` moves dates from the one's shift to the other's.
_ALIAS = """
CREATE TABLE IF NOT EXISTS fedtwin_alias (
  person_id BIGINT NOT NULL,
  into_person_id BIGINT NOT NULL,
  days BIGINT NOT NULL,
  version TIMESTAMP,
  rank BIGINT NOT NULL,
  load_id BIGINT NOT NULL)
"""

# Visits that turned out to be another patient's (or have another number), told under the one of `person_id`;
# `days` moves dates from the one's shift to the other's.
_VISIT_MOVE = """
CREATE TABLE IF NOT EXISTS fedtwin_visit_move (
  visit_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL,
  into_visit_id BIGINT NOT NULL,
  into_person_id BIGINT NOT NULL,
  days BIGINT NOT NULL,
  version TIMESTAMP,
  rank BIGINT NOT NULL,
  load_id BIGINT NOT NULL)
"""

# Records that moved with their visit (node.omop.fact_moves): where they would stand without that.
#   rank         of a version that holds no longer; null: of the record in the CDM, or that waits
_MOVED = """
CREATE TABLE IF NOT EXISTS fedtwin_moved (
  table_name VARCHAR NOT NULL,
  record_id BIGINT NOT NULL,
  rank BIGINT,
  told_person_id BIGINT NOT NULL,
  from_person_id BIGINT NOT NULL,
  from_visit_id BIGINT,
  into_person_id BIGINT NOT NULL,
  days BIGINT NOT NULL)
"""

# Persons who withdrew. Nothing takes a row from here.
_WITHDRAWN = "CREATE TABLE IF NOT EXISTS fedtwin_withdrawn (person_id BIGINT NOT NULL)"

# The last year (moved) in which anything was ever said of a person: ages are capped by it, for good.
_LAST_YEAR = """
CREATE TABLE IF NOT EXISTS fedtwin_last_year (
  person_id BIGINT NOT NULL,
  year BIGINT NOT NULL)
"""

# Persons whose periods and eras are to be derived anew.
_DIRTY = "CREATE TABLE IF NOT EXISTS fedtwin_dirty (person_id BIGINT NOT NULL)"

# What a record says of another, by the other's key: a cost of what it is for, a result of its order.
_LINK = """
CREATE TABLE IF NOT EXISTS fedtwin_link (
  record_id BIGINT NOT NULL,
  key_id BIGINT,
  other_key_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL,
  relationship_concept_id BIGINT NOT NULL)
"""

# What records that hold no longer say of others.
_FORMER_LINK = """
CREATE TABLE IF NOT EXISTS fedtwin_former_link (
  record_id BIGINT NOT NULL,
  key_id BIGINT,
  other_key_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL,
  relationship_concept_id BIGINT NOT NULL,
  rank BIGINT NOT NULL)
"""

# Which of the parts that sources told a period of payer_plan_period was joined of (node.omop.plan_periods).
PLAN_PARTS = "fedtwin_plan_part"
_PLAN_PARTS = f"""
CREATE TABLE IF NOT EXISTS {PLAN_PARTS} (
  payer_plan_period_id BIGINT NOT NULL,
  record_id BIGINT NOT NULL,
  person_id BIGINT NOT NULL)
"""

# Several descriptions of one person, several words of one death: the CDM's row is drawn from them. So is a
# cost's, once what it is for is there, and a period of cover from all its parts.
DRAWN = ("person", "death", "cost", "payer_plan_period")
# Records of patients whom nobody has described yet: they wait here for it.
WAITING = (
    "visit_occurrence",
    "condition_occurrence",
    "drug_exposure",
    "procedure_occurrence",
    "device_exposure",
    "measurement",
    "observation",
    "note",
    "image_occurrence",
)
# Those of them that name a visit
VISITED = tuple(name for name in WAITING if name != "visit_occurrence")
# What lies in the stage of a load, and, once it holds no longer, beside the CDM
STAGED = (*WAITING, *(f"fedtwin_held_{name}" for name in DRAWN))
_ADDED = {  # columns that stores of an earlier version lack
    "fedtwin_load": (
        "reader VARCHAR",
        "reader_version VARCHAR",
        "vocabulary_version VARCHAR",
        "format VARCHAR",
        "seconds DOUBLE",
        "records_quarantined BIGINT",
    ),
    "fedtwin_group": (
        "thing_id BIGINT",
        "whole_id BIGINT",
        "holds BOOLEAN",
        "visit_id BIGINT",
        "partial TINYINT",
    ),
    "fedtwin_retraction": ("visit_id BIGINT",),
    "fedtwin_provenance": (
        "place VARCHAR",
        "recorded_at TIMESTAMP",
        "utc_offset_min SMALLINT",
        "precision VARCHAR",
        "transformations VARCHAR",
        "person_id BIGINT",
        "group_id BIGINT",
    ),
}


def waiting(table: str) -> str:
    """Return the name of the table where records of undescribed patients wait."""
    return f"fedtwin_waiting_{table}"


def held(table: str) -> str:
    """Return the name of the table that holds what a CDM row is drawn from."""
    return f"fedtwin_held_{table}"


def former(table: str) -> str:
    """Return the name of the table of records of `table` (one of STAGED) that hold no longer."""
    return f"fedtwin_former_{key_name(table)}"


def key_name(table: str) -> str:
    """Return the CDM table's name that provenance has for records of `table`."""
    return (
        table.removeprefix("fedtwin_held_").removeprefix("fedtwin_waiting_").removeprefix("fedtwin_former_")
    )


def id_of(table: str) -> str:
    """Return the column that names a record of a CDM table or of one of the tables beside it."""
    if table.startswith("fedtwin_held_") or table in [former(held(name)) for name in DRAWN]:
        return "record_id"
    return f"{key_name(table)}_id"


@cache
def columns_of(table: str) -> tuple[str, ...]:
    """Return the columns of a table of STAGED."""
    added = ("record_id", "version", "rank") if table.startswith("fedtwin_held_") else ()
    return (*cdm_tables()[key_name(table)].columns, *added)


@cache
def staged_ddl(name: str, table: str) -> tuple[str, ...]:
    """Return the statements that make the table `name` with the columns of `table` (one of STAGED), and which
    version of what each record is of. Nothing is required there: costs get what they are for later.
    """
    made = cdm_tables()[key_name(table)].ddl(name).replace(" NOT NULL", "")
    added = ["group_id BIGINT", "version TIMESTAMP", "rank BIGINT"]
    if table.startswith("fedtwin_held_"):
        added.append("record_id BIGINT")
    return (made, *(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column}" for column in added))


@cache
def side_tables() -> tuple[str, ...]:
    """Return the statements that make all of them, and bring those of older stores up to date."""
    made = [_LOAD, _PROVENANCE, _QUARANTINE, _LAYOUT, _VOCABULARY, _GROUP, _RETRACTION, _ALIAS]
    made += [_WITHDRAWN, _LAST_YEAR, _DIRTY, _LINK, _FORMER_PROVENANCE, _UNVISITED, _FORMER_LINK, _PLAN_PARTS]
    made += [_VISIT_MOVE, _MOVED]
    made += [statement for table in STAGED for statement in staged_ddl(former(table), table)]
    cdm = cdm_tables()
    made += [cdm[name].ddl(waiting(name)) for name in WAITING]
    for name in DRAWN:
        made.append(cdm[name].ddl(held(name)))
        added = ("record_id BIGINT", "version TIMESTAMP", "rank BIGINT")
        made += [f"ALTER TABLE {held(name)} ADD COLUMN IF NOT EXISTS {column}" for column in added]
    made.append(f"ALTER TABLE {held('person')} ALTER COLUMN year_of_birth DROP NOT NULL")
    made += [
        f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column}"
        for name, columns in _ADDED.items()
        for column in columns
    ]
    return tuple(made)
