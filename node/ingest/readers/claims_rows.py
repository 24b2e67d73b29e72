"""Facts of claims on their way into Arrow: one tuple per fact, turned into columns per batch.

Money of a COST: `charged` is what was asked, `paid` what the payer paid. Everything else stands in `details`
under the names of the CDM's cost table: `paid_patient_deductible`, `paid_patient_coinsurance`,
`paid_patient_copay`, `paid_by_patient`, `paid_by_primary`, `amount_allowed`, `total_cost`. `other_key` is the
key of what it is for. No amount is said twice: lines carry what lines say, and the claim what only it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC as UTC_ZONE
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from node.ingest.facts import CODING, Action, Kind, Precision
from node.ingest.readers.fact_rows import coding_column, coding_lists, table_from

DIAGNOSIS = (
    "diagnosis"  # of `details`: which of the claim's diagnoses it is (principal, admitting, line, ...)
)
# OMOP type concepts
CLAIM_ENROLMENT = 32813
INPATIENT_DETAIL, INPATIENT_HEADER = 32854, 32855
OUTPATIENT_DETAIL, OUTPATIENT_HEADER = 32860, 32861
PHARMACY_CLAIM = 32869
PROFESSIONAL_DETAIL, PROFESSIONAL_HEADER = 32872, 32873

USED = [
    "record",
    "place",
    "key",
    "version",
    "action",
    "kind",
    "patient",
    "patient_namespace",
    "encounter",
    "start",
    "end",
    "precision",
    "codes",
    "type_concept_id",
    "status",
    "quantity",
    "days_supply",
    "refills",
    "sex",
    "race",
    "ethnicity",
    "birth",
    "charged",
    "paid",
    "currency",
    "other_key",
    "details",
]
ICD10_SINCE_US = (
    1_443_657_600_000_000  # 2015-10-01: claims of the United States are in ICD-10 from this day on
)
_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1
    )
}
_CPT4 = re.compile(r"[0-9]{4}[0-9FTUM]")
_MAX_AMOUNT = 1e12

Code = tuple[str, str]
"""A vocabulary's id and a code of it."""


class Origin(NamedTuple):
    """What all facts of one record share."""

    record: int
    patient: str
    namespace: str
    version: int | None = None
    action: str = Action.ASSERT.value


class ClaimRows:
    """Facts that are collected until a batch is full."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        origin: Origin,
        kind: Kind,
        place: str,
        key: str,
        *,
        encounter: str | None = None,
        start: int | None = None,
        end: int | None = None,
        precision: str | None = Precision.DAY.value,
        codes: Sequence[Code] = (),
        type_concept_id: int | None = None,
        status: str | None = None,
        quantity: float | None = None,
        days_supply: int | None = None,
        refills: int | None = None,
        sex: str | None = None,
        race: Code | None = None,
        ethnicity: Code | None = None,
        birth: int | None = None,
        charged: float | None = None,
        paid: float | None = None,
        currency: str | None = None,
        other_key: str | None = None,
        details: list[tuple[str, str]] | None = None,
    ) -> None:
        """Add a fact. Times are microseconds since 1970; `birth` is in days."""
        self._rows.append(
            (
                origin.record,
                place,
                key,
                origin.version,
                origin.action,
                kind.value,
                origin.patient,
                origin.namespace,
                encounter,
                start,
                end,
                precision,
                codes or None,
                type_concept_id,
                status,
                quantity,
                days_supply,
                refills,
                sex,
                race,
                ethnicity,
                birth,
                charged,
                paid,
                currency,
                other_key,
                details or None,
            )
        )

    def forget(self, first: int) -> None:
        """Drop what was added since there were `first` facts."""
        del self._rows[first:]

    def take(self) -> pa.Table:
        """Return what was added as a table of facts, and start anew."""
        rows, self._rows = self._rows, []
        return table_from(rows, USED, _column)


def _column(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if field.name == "codes":
        return coding_lists(values, _codes)
    if field.type == CODING:
        return _codes(values)
    if pa.types.is_temporal(field.type):
        width = pa.int32() if pa.types.is_date32(field.type) else pa.int64()
        return pa.array(values, width).cast(field.type)
    return pa.array(values, field.type)


def _codes(values: Sequence[Code | None]) -> pa.Array:
    return coding_column(
        [None if code is None else code[0] for code in values],
        [None if code is None else code[1] for code in values],
        None,
        [code is None for code in values],
    )


@lru_cache(maxsize=1 << 15)
def day_us(text: str) -> int | None:
    """Return a day as CMS and X12 write it, in microseconds since 1970; None if it is none.

    >>> day_us("20150530") == day_us("30-May-2015") == day_us("2015-05-30")
    True
    >>> day_us("20150231") is None
    True
    """
    days = day_number(text)
    return None if days is None else days * _DAY_US


@lru_cache(maxsize=1 << 15)
def day_number(text: str) -> int | None:
    """Return a day as CMS and X12 write it, in days since 1970; None if it is none."""
    text = text.strip()
    try:
        if len(text) == 8 and text.isascii() and text.isdigit():
            found = date(int(text[:4]), int(text[4:6]), int(text[6:]))
        elif len(text) == 11 and text[2] == text[6] == "-":
            found = date(int(text[7:]), _MONTHS[text[3:6].upper()], int(text[:2]))
        else:
            found = date.fromisoformat(text)
    except (ValueError, KeyError):
        return None
    return (found - _EPOCH).days


@lru_cache(maxsize=1 << 12)
def minute_us(day: str, clock: str) -> int | None:
    """Return a day and a time of day (HHMM) in microseconds since 1970, as if the clock showed UTC."""
    try:
        found = datetime.strptime(day + clock[:4], "%Y%m%d%H%M").replace(tzinfo=UTC_ZONE)
    except ValueError:
        return None
    return int(found.timestamp()) * 1_000_000


def amount(text: str) -> float | None:
    """Return a number; None if it is none, or no amount that anyone could mean."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < _MAX_AMOUNT else None  # false for nan


def whole(text: str) -> int | None:
    """Return a count that fits 32 bits; None if it is none."""
    found = amount(text)
    return round(found) if found is not None and 0 <= found < 2**31 else None


@lru_cache(maxsize=1 << 16)
def diagnosis(code: str, *, ten: bool) -> Code | None:
    """Return an ICD diagnosis with its point, which claims leave out; None if it cannot be one.

    >>> diagnosis("36632", ten=False), diagnosis("E8889", ten=False), diagnosis("S81801A", ten=True)
    (('ICD9CM', '366.32'), ('ICD9CM', 'E888.9'), ('ICD10CM', 'S81.801A'))
    """
    code = code.strip().replace(".", "").upper()
    if not (3 <= len(code) <= 7 and code.isascii() and code.isalnum()):
        return None
    before = 4 if not ten and code[0] == "E" else 3
    dotted = f"{code[:before]}.{code[before:]}" if len(code) > before else code
    return ("ICD10CM" if ten else "ICD9CM", dotted)


@lru_cache(maxsize=1 << 16)
def icd_procedure(code: str, *, ten: bool) -> Code | None:
    """Return an ICD procedure, with the point that ICD-9 has; None if it cannot be one."""
    code = code.strip().replace(".", "").upper()
    if not (code.isascii() and code.isalnum()):
        return None
    if ten:
        return ("ICD10PCS", code) if len(code) == 7 else None
    if not 2 <= len(code) <= 4:
        return None
    return ("ICD9Proc", f"{code[:2]}.{code[2:]}" if len(code) > 2 else code)


@lru_cache(maxsize=1 << 16)
def hcpcs(code: str) -> Code | None:
    """Return a procedure of HCPCS: level I is CPT, level II begins with a letter.

    >>> hcpcs("99213"), hcpcs("J1745"), hcpcs("0001F")
    (('CPT4', '99213'), ('HCPCS', 'J1745'), ('CPT4', '0001F'))
    """
    code = code.strip().upper()
    if len(code) != 5 or not (code.isascii() and code.isalnum()):
        return None
    return ("CPT4" if _CPT4.fullmatch(code) else "HCPCS", code)


def ndc(code: str) -> Code | None:
    """Return a National Drug Code; None for fillers such as zeros."""
    code = code.strip()
    return ("NDC", code) if code.strip("0- ") and code.isascii() and len(code) <= 20 else None


def money(**parts: float | None) -> list[tuple[str, str]]:
    """Return amounts as details; those that are not said are left out."""
    return [(name, f"{value:.2f}") for name, value in parts.items() if value is not None]
