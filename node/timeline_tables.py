"""Which records of the CDM are events of a timeline, and where each keeps its time, concept and value.

Eras and periods are derived from these records and are no events. A note is an event by reference: its text,
and its title, stay in the table. What a record says of two moments (a visit begins and ends) is two events.
A series of images is one event, of its modality; what was measured in it are measurements (image_feature says
of which series). The imaging extension keeps a series' day and not its time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from node.omop.tables import EVENT_TABLES


class EventKind(StrEnum):
    """What an event is. In order: of events at one moment, that of the earlier kind comes first."""

    VISIT_START = "visit-start"
    CONDITION = "condition"
    OBSERVATION = "observation"
    MEASUREMENT = "measurement"
    PROCEDURE = "procedure"
    IMAGE = "image"
    DEVICE = "device"
    DRUG = "drug"
    NOTE = "note"
    VISIT_END = "visit-end"
    DEATH = "death"


ORDER = {kind: place for place, kind in enumerate(EventKind)}


@dataclass(frozen=True, slots=True)
class EventSource:
    """One kind of event in one table, by its columns; `values` maps event fields to columns."""

    kind: EventKind
    table: str
    id: str
    concept: str
    date: str
    end_date: str | None
    type_concept: str | None
    source_value: str
    visit: str | None = "visit_occurrence_id"
    values: dict[str, str] = field(default_factory=dict)

    @property
    def datetime(self) -> str:
        """The column that holds the time of day too."""
        return f"{self.date}time"

    @property
    def end_datetime(self) -> str | None:
        """The column that holds the end with its time of day."""
        return f"{self.end_date}time" if self.end_date else None


_NUMBER = {
    "value_number": "value_as_number",
    "value_concept_id": "value_as_concept_id",
    "unit_concept_id": "unit_concept_id",
    "unit": "unit_source_value",
}
_VALUES = {
    "measurement": _NUMBER | {"value_text": "value_source_value"},
    "observation": _NUMBER | {"value_text": "value_as_string"},
    "drug_exposure": {"value_number": "quantity", "unit": "dose_unit_source_value"},
    "procedure_occurrence": {"value_number": "quantity"},
}


def _clinical(kind: EventKind, table: str) -> EventSource:
    shape = EVENT_TABLES[table]
    return EventSource(
        kind,
        table,
        shape.id,
        shape.concept,
        shape.start,
        shape.end,
        shape.type_concept,
        shape.source_value,
        values=_VALUES.get(table, {}),
    )


def _visit(kind: EventKind, date: str, end: str | None) -> EventSource:
    return EventSource(
        kind,
        "visit_occurrence",
        "visit_occurrence_id",
        "visit_concept_id",
        date,
        end,
        "visit_type_concept_id",
        "visit_source_value",
    )


EVENT_SOURCES: tuple[EventSource, ...] = (
    _visit(EventKind.VISIT_START, "visit_start_date", "visit_end_date"),
    _clinical(EventKind.CONDITION, "condition_occurrence"),
    _clinical(EventKind.OBSERVATION, "observation"),
    _clinical(EventKind.MEASUREMENT, "measurement"),
    _clinical(EventKind.PROCEDURE, "procedure_occurrence"),
    EventSource(
        EventKind.IMAGE,
        "image_occurrence",
        "image_occurrence_id",
        "modality_concept_id",
        "image_occurrence_date",
        None,
        None,
        "modality_source_value",
        values={
            "value_number": "number_of_instances",
            "value_text": "anatomic_site_source_value",
            "value_concept_id": "anatomic_site_concept_id",
        },
    ),
    EventSource(
        EventKind.DEVICE,
        "device_exposure",
        "device_exposure_id",
        "device_concept_id",
        "device_exposure_start_date",
        "device_exposure_end_date",
        "device_type_concept_id",
        "device_source_value",
        values={
            "value_number": "quantity",
            "unit_concept_id": "unit_concept_id",
            "unit": "unit_source_value",
        },
    ),
    _clinical(EventKind.DRUG, "drug_exposure"),
    EventSource(
        EventKind.NOTE,
        "note",
        "note_id",
        "note_class_concept_id",
        "note_date",
        None,
        "note_type_concept_id",
        "note_source_value",
    ),
    _visit(EventKind.VISIT_END, "visit_end_date", None),
    EventSource(
        EventKind.DEATH,
        "death",
        "person_id",
        "cause_concept_id",
        "death_date",
        None,
        "death_type_concept_id",
        "cause_source_value",
        visit=None,
    ),
)
