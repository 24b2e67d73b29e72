"""Items of structured content that exist to say who: they go as a whole.

Of what stays, texts are cleaned, dates moved and UIDs mapped as everywhere (deid.dicom.engine).
"""

from __future__ import annotations

from pydicom.dataset import Dataset

# Concept names of the DICOM controlled terminology (PS3.16 annex D)
_IDENTITY = frozenset(
    (
        "113870", "113871", "113872",  # person: name, id, issuer of the id
        "113873", "121009",  # organizations of persons
        "113880", "121013", "121016", "121017",  # devices: serial number, name, where it stands
        "121193", "121196", "121197", "121148", "121000", "110119",
        "121008", "128774", "128775",  # observers: name, login, identifier in their role
        "121020", "121021", "121022", "121040",  # numbers of orders, accessions, specimens
        "121041", "111700", "111705", "121043",
        "121029", "121030", "121031", "121036",  # subject: name, id, birth date; mother of the fetus
        "121114", "121152", "121435",  # performing physician, who administered, who performed
    )
)  # fmt: skip


def is_identity(item: Dataset) -> bool:
    """Return whether a content item is a person's name or is named as an identifier.

    Items that are no content items (without a ValueType) never are.
    """
    kind = item.get("ValueType")
    if not isinstance(kind, str):
        return False
    if kind.strip() == "PNAME":
        return True
    names = item.get("ConceptNameCodeSequence") or []
    return any(
        str(name.get("CodeValue", "")).strip() in _IDENTITY
        and str(name.get("CodingSchemeDesignator", "")).strip() == "DCM"
        for name in names
    )
