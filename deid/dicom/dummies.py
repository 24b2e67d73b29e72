"""Values that say nothing, one for each value representation (action D of PS3.15)."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

TEXT = "REMOVED"
DATE = "19000101"  # a date that no study has, and that every reader of DICOM parses
_VALUES: dict[str, object] = {
    "AE": TEXT, "CS": TEXT, "LO": TEXT, "LT": TEXT, "PN": TEXT, "SH": TEXT, "ST": TEXT, "UC": TEXT,
    "UT": TEXT, "AS": "000Y", "UR": "http://removed.invalid", "UI": "2.25.0",
    "DS": "0", "IS": "0", "DA": DATE, "DT": DATE, "TM": "000000",
    "FD": 0.0, "FL": 0.0, "SL": 0, "SS": 0, "SV": 0, "UL": 0, "US": 0, "UV": 0, "AT": 0,
    "OB": b"\0\0", "OW": b"\0\0", "OF": b"\0" * 4, "OL": b"\0" * 4, "OD": b"\0" * 8, "OV": b"\0" * 8,
    "UN": b"\0\0",
}  # fmt: skip
_FINDING = ("121071", "DCM", "Finding")


def dummy(tag: int, vr: str) -> DataElement | None:
    """Return an element of one dummy value; None for what has none (a sequence)."""
    return DataElement(tag, vr, _VALUES[vr]) if vr in _VALUES else None


def dummy_item(item: Dataset, *, uid: Callable[[str], str]) -> Dataset:
    """Return an item with the elements of `item`, each with a dummy; private ones go.

    Args: uid: what stands for a UID; a reference stays one.
    """
    result = Dataset()
    for tag in item.keys():  # noqa: SIM118 (a Dataset iterates over its elements, parsing each)
        if tag.is_private:
            continue
        element = item[tag]
        if element.VR == "SQ":
            result.add(DataElement(tag, "SQ", [dummy_item(each, uid=uid) for each in element.value or []]))
        elif element.VR == "UI" and element.value:
            result.add(DataElement(tag, "UI", mapped(element.value, uid)))
        elif (made := dummy(tag, element.VR)) is not None:
            result.add(made)
    return result


def dummy_content() -> Sequence:
    """Return the content of a structured report that says nothing."""
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = _FINDING
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "TEXT"
    item.ConceptNameCodeSequence = [name]
    item.TextValue = TEXT
    return Sequence([item])


def mapped(value: object, uid: Callable[[str], str]) -> str | list[str]:
    """Return one UID or several, each replaced."""
    if isinstance(value, str):
        return uid(value.strip())
    return [uid(str(each).strip()) for each in value]  # type: ignore[attr-defined] # pydicom's MultiValue
