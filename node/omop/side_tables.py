"""The node's own tables beside the CDM: what was loaded, where records came from, what was turned away."""

from __future__ import annotations

# One row per file that was taken in. `loaded_at` is UTC; `events` counts the records over all tables.
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
  events BIGINT NOT NULL)
"""

# One row per record: which load, and which row of its file (1 is the first row of data, headers not counted).
_PROVENANCE = """
CREATE TABLE IF NOT EXISTS fedtwin_provenance (
  load_id BIGINT NOT NULL,
  table_name VARCHAR NOT NULL,
  record_id BIGINT NOT NULL,
  source_row BIGINT NOT NULL)
"""

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

SIDE_TABLES = (_LOAD, _PROVENANCE, _QUARANTINE, _LAYOUT, _VOCABULARY)
