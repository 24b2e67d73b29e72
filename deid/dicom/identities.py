"""Who and what a DICOM object is of, as pseudonyms: everything comes from the hospital's own vault and key.

Without key and vault no pseudonym, UID or shift can be made or undone; there is no other way to make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydicom._uid_dict import UID_dictionary

from deid.vault import Vault

DEFAULT_NAMESPACE = "mrn"  # of patients' ids without an issuer, as for the other sources of a hospital
_REMEMBERED = 100_000  # UIDs: some 20 MB


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """What stands for a patient: the id that the node's records have for them too, and their secret shift."""

    id: str
    shift_days: int

    def __repr__(self) -> str:
        return f"Pseudonym({self.id}, <hidden>)"


class Identities:
    """Pseudonyms of patients and UIDs. The same input leads to the same output in every file and run."""

    def __init__(self, vault: Vault, *, project: str = "") -> None:
        """project: whose export it is; empty for the hospital's own store (deid.vault)."""
        self._vault = vault
        self._project = project
        self._mapped = lru_cache(_REMEMBERED)(self._made)

    def patient(self, patient_id: str, *, issuer: str = "") -> Pseudonym:
        """Return the pseudonym of a patient. Args: issuer: who gave the id (0010,0021)."""
        found = self._vault.pseudonyms(
            [patient_id], namespace=issuer or DEFAULT_NAMESPACE, project=self._project
        )
        return Pseudonym(str(int(found.ids[0])), int(found.shift_days[0]))

    def uid(self, uid: str) -> str:
        """Return the UID that stands for a hospital's, derived from a keyed UUID (PS3.5 B.2).

        UIDs of the standard itself stay: they name kinds of things, not things.
        """
        return uid if uid in UID_dictionary else self._mapped(uid)

    def _made(self, uid: str) -> str:
        return self._vault.dicom_uid(uid, project=self._project)
