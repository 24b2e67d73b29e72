"""What a FHIR reference means: a patient's id, another record's key, a drug.

Ids of FHIR servers are told apart from a hospital's other ids by their namespace, "fhir" unless the reader
was told otherwise; a patient who is named by a business identifier has its system as namespace, except inside
a bundle that holds the Patient with it. The server's address is not part of an id: `Patient/1` and
`https://here/fhir/Patient/1` are one, since exports of one server write either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

import msgspec

from node.ingest.facts import unmarked
from node.ingest.readers.fhir_elements import CodeableConcept, Identifier, Reference

NAMESPACE = "fhir"
CACHED = 1 << 16  # references; records of one patient mostly stand together
MISSING = ""  # no key is empty
S = TypeVar("S", bound=msgspec.Struct)


class PatientId(NamedTuple):
    """A patient's id and whose ids these are."""

    id: str
    namespace: str


class Stub(msgspec.Struct):
    """What must be known of a resource so that others can point to it."""

    resourceType: str
    id: str | None = None


class PatientStub(msgspec.Struct):
    """A Patient's business identifiers."""

    identifier: tuple[Identifier, ...] = ()


class Medication(msgspec.Struct):
    """A drug that others point to."""

    resourceType: str = ""
    id: str | None = None
    code: CodeableConcept | None = None


def _no_medications() -> dict[str, CodeableConcept]:
    return {}


class References:
    """Resolves the references of one file."""

    def __init__(
        self,
        *,
        namespace: str = NAMESPACE,
        medications: Callable[[], dict[str, CodeableConcept]] = _no_medications,
    ) -> None:
        self.namespace = namespace
        self._find_medications = medications
        self._medications: dict[str, CodeableConcept] | None = None
        self._inside: dict[str, tuple[str, str]] = {}  # fullUrl -> type and id
        self._identified: dict[tuple[str | None, str], str] = {}  # business identifier -> Patient's id
        self._drugs_inside: dict[str, CodeableConcept] = {}
        self._patients: dict[str | None, PatientId] = {}  # what was resolved lately
        self._keys: dict[tuple[str, str], str | None] = {}

    def learn(self, full_url: str | None, raw: msgspec.Raw) -> str | None:
        """Note one entry of a bundle; return the id it has if the resource itself gives none.

        Raises: what msgspec raises for a damaged resource.
        """
        self._patients.clear()
        self._keys.clear()
        stub = msgspec.json.decode(raw, type=Stub)
        found = stub.id or (full_url and (_urn(full_url) or (_split(full_url) or ("", ""))[1])) or None
        if found is None:
            return None
        if full_url:
            self._inside[full_url] = (stub.resourceType, found)
        if stub.resourceType == "Patient":
            for identifier in msgspec.json.decode(raw, type=PatientStub).identifier:
                if identifier.value:
                    self._identified[identifier.system, identifier.value] = found
        elif stub.resourceType == "Medication":
            drug = msgspec.json.decode(raw, type=Medication)
            if drug.code is not None:
                self._drugs_inside[found] = drug.code
        return found

    def patient(self, reference: Reference | None) -> PatientId | None:
        """Return whom a reference means, or None if it does not mean one patient."""
        if reference is None:
            return None
        if (known := self._patients.get(reference.reference)) is not None:
            return known
        if reference.reference:
            if found := self._target(reference.reference, "Patient"):
                if len(self._patients) >= CACHED:
                    self._patients.clear()
                return self._patients.setdefault(reference.reference, PatientId(found, self.namespace))
            if "?" in reference.reference:
                return self._identified_patient(_conditional(reference.reference, "Patient"))
        identifier = reference.identifier
        if identifier is None or reference.type not in (None, "Patient"):
            return None
        return self._identified_patient(identifier)

    def _identified_patient(self, identifier: Identifier | None) -> PatientId | None:
        if identifier is None or not identifier.value:
            return None
        if found := self._identified.get((identifier.system, identifier.value)):
            return PatientId(found, self.namespace)
        return PatientId(identifier.value, identifier.system or self.namespace)

    def key(self, reference: Reference | None, kind: str) -> str | None:
        """Return the key of the resource of type `kind` that is meant: "Encounter/1"; None for any other."""
        if reference is None or not reference.reference:
            return None
        if (known := self._keys.get((reference.reference, kind), MISSING)) is not MISSING:
            return known
        found = self._target(reference.reference, kind)
        if len(self._keys) >= CACHED:
            self._keys.clear()
        return self._keys.setdefault(
            (reference.reference, kind), f"{kind}/{unmarked(found)}" if found else None
        )

    def patients(self, references: Iterable[Reference | None]) -> list[str | None]:
        """Return the ids of patients who are named by an address; None for all others."""
        found: list[str | None] = []
        known = self._patients
        for reference in references:
            address = None if reference is None else reference.reference
            patient = known.get(address)
            if patient is None and address:
                self.patient(reference)
                patient = known.get(address)
            found.append(None if patient is None else patient.id)
        return found

    def keys(self, references: Iterable[Reference | None], kind: str) -> list[str | None]:
        """Return what `key` does of each."""
        return [
            None
            if reference is None
            else key
            if (key := self._keys.get((reference.reference or "", kind))) is not None
            else self.key(reference, kind)
            for reference in references
        ]

    def drug(
        self, reference: Reference | None, contained: tuple[msgspec.Raw, ...]
    ) -> tuple[CodeableConcept | None, str | None]:
        """Return the drug that is meant, and its key if it is not inside the record itself."""
        if reference is None or not reference.reference:
            return None, None
        if reference.reference.startswith("#"):
            return inside(contained, reference.reference, Medication).code, None
        found = self._target(reference.reference, "Medication")
        if not found:
            return None, None
        if found in self._drugs_inside:
            return self._drugs_inside[found], f"Medication/{unmarked(found)}"
        if self._medications is None:
            self._medications = self._find_medications()
        return self._medications.get(found), f"Medication/{unmarked(found)}"

    def _target(self, reference: str, kind: str) -> str | None:
        """Return the id of the resource of this type that an address means."""
        if reference in self._inside:
            found_kind, found = self._inside[reference]
            return found if found_kind == kind else None
        if urn := _urn(reference):
            return urn  # not in this file: servers that keep ids make it the id
        parts = _split(reference)
        return parts[1] if parts is not None and parts[0] == kind else None


class _Named(msgspec.Struct):
    id: str | None = None


def inside(contained: tuple[msgspec.Raw, ...], reference: str, kind: type[S]) -> S:
    """Return the resource inside a record that "#id" means, an empty one if it is not there."""
    for raw in contained:
        if msgspec.json.decode(raw, type=_Named).id == reference[1:]:
            return msgspec.json.decode(raw, type=kind)
    return kind()


def _urn(reference: str) -> str | None:
    if not reference.startswith("urn:"):
        return None
    for prefix in ("urn:uuid:", "urn:oid:"):
        if reference.startswith(prefix):
            return reference[len(prefix) :] or None
    return None


@lru_cache(maxsize=1 << 16)
def _split(reference: str) -> tuple[str, str] | None:
    """Return type and id of `Patient/1`, `https://here/fhir/Patient/1` or `Patient/1/_history/2`."""
    if reference.startswith("#") or "?" in reference:
        return None
    kind, slash, found = reference.partition("/_history/")[0].rpartition("/")
    return (kind.rpartition("/")[2], found) if slash and found else None


def _conditional(reference: str, kind: str) -> Identifier | None:
    """Return the identifier of `Patient?identifier=system|value`."""
    path, _, query = reference.partition("?")
    name, _, value = query.partition("=")
    if path.rpartition("/")[2] != kind or name != "identifier" or "&" in value:
        return None
    system, bar, value = value.rpartition("|")
    return Identifier(system=system or None, value=value) if value and (bar or not system) else None
