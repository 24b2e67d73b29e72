"""Which column of a CMS file says what: DE-SynPUF and RIF name the same things in two ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

PATIENTS = {"DESYNPUF_ID": "desynpuf", "BENE_ID": "bene_id"}  # column -> whose ids these are
_DIAGNOSIS = re.compile(r"(ICD9_DGNS_CD_|ICD_DGNS_CD)([0-9]+)")
_CAUSE = re.compile(r"(ICD_DGNS_E_CD)([0-9]+)")
_REASON = re.compile(r"(RSN_VISIT_CD)([0-9]+)")
_PROCEDURE = re.compile(r"(ICD9_PRCDR_CD_|ICD_PRCDR_CD)([0-9]+)")
_LINE = re.compile(r"(HCPCS_CD_|LINE_ICD9_DGNS_CD_)([0-9]+)")
ABSENT = -1


class Form(Enum):
    """What a file holds."""

    BENEFICIARIES = "beneficiaries"
    CLAIMS = "claims"
    DRUGS = "drugs"


@dataclass(frozen=True, slots=True)
class IcdColumn:
    """A column of diagnoses or procedures. `nine`: its name says ICD-9."""

    at: int
    rank: str
    name: str
    nine: bool
    version_at: int = ABSENT
    date_at: int = ABSENT


@dataclass(frozen=True, slots=True)
class LineColumns:
    """Where the parts of one service line stand; several lines in one row have a number each."""

    name: str
    hcpcs: int
    ndc: int
    diagnosis: IcdColumn | None
    first_date: int
    last_date: int
    modifiers: tuple[int, ...]
    quantity: int
    place: int
    revenue: int
    charged: int
    paid: int
    allowed: int
    deductible: int
    coinsurance: int
    primary: int


@dataclass(frozen=True, slots=True)
class Columns:
    """A file's header, understood once."""

    form: Form
    names: tuple[str, ...]
    patient: int
    namespace: str
    places: dict[str, int]
    diagnoses: tuple[IcdColumn, ...] = ()
    procedures: tuple[IcdColumn, ...] = ()
    lines: tuple[LineColumns, ...] = ()
    months: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of beneficiary files with a column per month: plan -> its twelve columns."""

    def at(self, *names: str) -> int:
        """Return where the first of these columns stands, or -1."""
        return next((self.places[name] for name in names if name in self.places), ABSENT)


def columns_of(header: Sequence[str]) -> Columns | None:
    """Return what a header says, or None if it is none of CMS's."""
    names = tuple(name.strip().strip('"').upper() for name in header)
    places = {name: place for place, name in enumerate(names)}
    patient = next((name for name in PATIENTS if name in places), None)
    if patient is None or len(places) != len(names):
        return None
    shared = (names, places[patient], PATIENTS[patient], places)
    if "PDE_ID" in places and "SRVC_DT" in places:
        return Columns(Form.DRUGS, *shared)
    if "CLM_ID" in places and "CLM_FROM_DT" in places:
        return Columns(
            Form.CLAIMS, *shared, tuple(_diagnoses(places)), tuple(_procedures(places)), tuple(_lines(places))
        )
    if "BENE_BIRTH_DT" in places:
        return Columns(Form.BENEFICIARIES, *shared, months=_months(places))
    return None


def _numbered(places: dict[str, int], form: re.Pattern[str]) -> list[tuple[str, str, int]]:
    found = [match for match in map(form.fullmatch, places) if match]
    return sorted(((match[0], match[1], int(match[2])) for match in found), key=lambda part: part[2])


def _diagnoses(places: dict[str, int]) -> list[IcdColumn]:
    """Return diagnoses of the claim, the principal one first: a code that stands twice counts there."""
    get = places.get
    columns = []
    if "PRNCPAL_DGNS_CD" in places:
        version = get("PRNCPAL_DGNS_VRSN_CD", ABSENT)
        columns.append(IcdColumn(places["PRNCPAL_DGNS_CD"], "principal", "PRNCPAL_DGNS_CD", False, version))
    for name, stem, number in _numbered(places, _DIAGNOSIS):
        rank = "principal" if number == 1 and not columns else "secondary"
        version = get(f"ICD_DGNS_VRSN_CD{number}", ABSENT)
        columns.append(IcdColumn(places[name], rank, name, stem.startswith("ICD9"), version))
    for name, _, number in _numbered(places, _CAUSE):
        version = get(f"ICD_DGNS_E_VRSN_CD{number}", ABSENT)
        columns.append(IcdColumn(places[name], "external cause", name, False, version))
    for name in ("FST_DGNS_E_CD",):
        if name in places:
            version = get("FST_DGNS_E_VRSN_CD", ABSENT)
            columns.append(IcdColumn(places[name], "external cause", name, False, version))
    for name in ("ADMTNG_DGNS_CD", "CLM_ADMTG_DGNS_CD", "ADMTG_DGNS_CD", "ADMTNG_ICD9_DGNS_CD"):
        if name in places:
            version = get(name.replace("_CD", "_VRSN_CD"), ABSENT)
            columns.append(IcdColumn(places[name], "admitting", name, "ICD9" in name, version))
    for name, _, number in _numbered(places, _REASON):
        version = get(f"RSN_VISIT_VRSN_CD{number}", ABSENT)
        columns.append(IcdColumn(places[name], "reason", name, False, version))
    return columns


def _procedures(places: dict[str, int]) -> list[IcdColumn]:
    return [
        IcdColumn(
            places[name],
            "procedure",
            name,
            stem.startswith("ICD9"),
            places.get(f"ICD_PRCDR_VRSN_CD{number}", ABSENT),
            places.get(f"PRCDR_DT{number}", ABSENT),
        )
        for name, stem, number in _numbered(places, _PROCEDURE)
    ]


def _lines(places: dict[str, int]) -> list[LineColumns]:
    numbers = sorted({number for _, _, number in _numbered(places, _LINE)})
    if numbers:
        return [_line(places, f"_{number}") for number in numbers]
    if places.keys() & {"HCPCS_CD", "LINE_NUM", "CLM_LINE_NUM", "REV_CNTR"}:
        return [_line(places, "")]
    return []


def _line(places: dict[str, int], suffix: str) -> LineColumns:
    def at(*names: str) -> int:
        return next((places[name + suffix] for name in names if name + suffix in places), ABSENT)

    diagnosis = None
    for name in ("LINE_ICD_DGNS_CD", "LINE_ICD9_DGNS_CD"):
        if name + suffix in places:
            version = at("LINE_ICD_DGNS_VRSN_CD")
            diagnosis = IcdColumn(at(name), "line", name + suffix, "ICD9" in name, version)
    modifiers = tuple(at(f"HCPCS_{nth}_MDFR_CD") for nth in ("1ST", "2ND", "3RD", "4TH", "5TH"))
    return LineColumns(
        name=suffix.lstrip("_"),
        hcpcs=at("HCPCS_CD"),
        ndc=at("LINE_NDC_CD", "REV_CNTR_IDE_NDC_UPC_NUM"),
        diagnosis=diagnosis,
        first_date=at("LINE_1ST_EXPNS_DT", "REV_CNTR_DT"),
        last_date=at("LINE_LAST_EXPNS_DT", "REV_CNTR_DT"),
        modifiers=tuple(place for place in modifiers if place != ABSENT),
        quantity=at("LINE_SRVC_CNT", "REV_CNTR_UNIT_CNT"),
        place=at("LINE_PLACE_OF_SRVC_CD"),
        revenue=at("REV_CNTR"),
        charged=at("LINE_SBMTD_CHRG_AMT", "REV_CNTR_TOT_CHRG_AMT"),
        paid=at("LINE_NCH_PMT_AMT"),
        allowed=at("LINE_ALOWD_CHRG_AMT"),
        deductible=at("LINE_BENE_PTB_DDCTBL_AMT"),
        coinsurance=at("LINE_COINSRNC_AMT"),
        primary=at("LINE_BENE_PRMRY_PYR_PD_AMT"),
    )


def _months(places: dict[str, int]) -> dict[str, tuple[int, ...]]:
    found = {}
    for plan, stems in {
        "buy-in": ("MDCR_ENTLMT_BUYIN_IND_", "BENE_MDCR_ENTLMT_BUYIN_IND_", "ENTITLEMENT_BUY_IN_IND"),
        "HMO": ("HMO_IND_", "BENE_HMO_IND_", "HMO_INDICATOR"),
        "Part D": ("PTD_CNTRCT_ID_", "PTD_CNTRCT_"),
    }.items():
        for stem in stems:
            columns = tuple(
                places.get(f"{stem}{month:02d}", places.get(f"{stem}{month}", ABSENT))
                for month in range(1, 13)
            )
            if ABSENT not in columns:
                found[plan] = columns
                break
    return found
