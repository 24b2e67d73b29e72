"""A row of a CMS claims or prescription file: visit, diagnoses, procedures, drugs and money.

As OHDSI's ETL-CMS reads them: one visit a claim; a code that stands twice on a claim is one condition, of the
claim's dates; ICD-9 or ICD-10 as the version column says, else by the day of discharge (2015-10-01).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.ingest.facts import Kind, unmarked
from node.ingest.readers.claims_columns import ABSENT, Columns, IcdColumn, LineColumns
from node.ingest.readers.claims_rows import (
    DIAGNOSIS,
    ICD10_SINCE_US,
    INPATIENT_DETAIL,
    INPATIENT_HEADER,
    OUTPATIENT_DETAIL,
    OUTPATIENT_HEADER,
    PHARMACY_CLAIM,
    PROFESSIONAL_DETAIL,
    PROFESSIONAL_HEADER,
    ClaimRows,
    Code,
    Origin,
    amount,
    day_us,
    diagnosis,
    hcpcs,
    icd_procedure,
    money,
    ndc,
    whole,
)

CURRENCY = "USD"
TOTAL_LINE = "0001"  # the revenue centre that sums up the others
Refuse = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What kind of claim it is."""

    visit: tuple[Code, ...]
    header: int
    detail: int
    professional: bool = False


INPATIENT = Setting((("Visit", "IP"),), INPATIENT_HEADER, INPATIENT_DETAIL)
OUTPATIENT = Setting((("Visit", "OP"),), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)
PROFESSIONAL = Setting((), PROFESSIONAL_HEADER, PROFESSIONAL_DETAIL, professional=True)
NURSING = Setting((("CMS Place of Service", "31"),), INPATIENT_HEADER, INPATIENT_DETAIL)
HOSPICE = Setting((("CMS Place of Service", "34"),), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)
HOME = Setting((("CMS Place of Service", "12"),), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)
BY_TYPE = {  # NCH_CLM_TYPE_CD
    "10": HOME,
    "20": NURSING,
    "30": NURSING,
    "40": OUTPATIENT,
    "50": HOSPICE,
    **dict.fromkeys(("60", "61", "62", "63", "64"), INPATIENT),
    **dict.fromkeys(("71", "72", "81", "82"), PROFESSIONAL),
}


def setting_of(columns: Columns) -> Setting:
    """Return the kind of claim that a header says, for files without a type in each row."""
    if columns.at("CLM_ADMSN_DT", "NCH_BENE_DSCHRG_DT", "NCH_BENE_IP_DDCTBL_AMT") != ABSENT:
        return INPATIENT
    if any(line.allowed != ABSENT for line in columns.lines):
        return PROFESSIONAL
    return OUTPATIENT


class ClaimReader:
    """Turns rows of one claims file into facts. Rows of one claim follow each other in these files; where
    they do not, what the claim says is said again, with the same keys.
    """

    def __init__(self, columns: Columns, rows: ClaimRows) -> None:
        self._columns = columns
        self._rows = rows
        self._default = setting_of(columns)
        self._last: tuple[str, str, str] | None = None
        self._last_days: tuple[int, int] | None = None
        at = columns.at
        self._claim, self._segment = at("CLM_ID"), at("SEGMENT")
        self._from, self._thru = at("CLM_FROM_DT"), at("CLM_THRU_DT")
        self._admitted, self._discharged = at("CLM_ADMSN_DT"), at("NCH_BENE_DSCHRG_DT")
        self._type, self._action = at("NCH_CLM_TYPE_CD"), at("DML_IND")
        self._charged, self._paid = at("CLM_TOT_CHRG_AMT"), at("CLM_PMT_AMT")
        self._deductible = at("NCH_BENE_IP_DDCTBL_AMT", "NCH_BENE_PTB_DDCTBL_AMT")
        self._coinsurance = at(
            "NCH_BENE_PTA_COINSRNC_LBLTY_AM", "NCH_BENE_PTA_COINSRNC_LBLTY_AMT", "NCH_BENE_PTB_COINSRNC_AMT"
        )
        self._primary = at("NCH_PRMRY_PYR_CLM_PD_AMT")
        self._drg = at("CLM_DRG_CD")
        self._lines_charge = any(line.charged != ABSENT for line in columns.lines)
        self._number = at("LINE_NUM", "CLM_LINE_NUM")

    def read(self, values: Sequence[str], origin: Origin, refuse: Refuse) -> str | None:
        """Add a row's facts; return why there are none."""
        claim = values[self._claim].strip()
        if not claim:
            return "no-claim-id"
        segment = _said(values, self._segment)
        same = self._last == (origin.patient, claim, segment)
        days = self._days(values, refuse)
        if days is None and self._last and self._last[:2] == (origin.patient, claim):
            days = self._last_days  # a second segment leaves the days to the first
        if days is None:
            return "no-date"
        self._last, self._last_days = (origin.patient, claim, segment), days
        setting = BY_TYPE.get(_said(values, self._type).lstrip("0"), self._default)
        key, before = f"claim:{unmarked(claim)}", len(self._rows)
        if not same:
            self._header(values, origin, refuse, key, segment, days, setting)
        else:
            self._line_diagnoses(values, origin, refuse, key, days, setting)
        for line in self._columns.lines:
            self._line(values, origin, refuse, key, days, setting, line)
        return "no-content" if len(self._rows) == before else None

    def _days(self, values: Sequence[str], refuse: Refuse) -> tuple[int, int] | None:
        found = []
        for place in (self._from, self._thru):
            text = _said(values, place)
            day = day_us(text) if text else None
            if text and day is None:
                refuse(self._columns.names[place], "bad-date")
            found.append(day)
        start, end = found
        start = start if start is not None else end
        if start is None:
            return None
        return start, max(start, end if end is not None else start)

    def _header(
        self,
        values: Sequence[str],
        origin: Origin,
        refuse: Refuse,
        key: str,
        segment: str,
        days: tuple[int, int],
        setting: Setting,
    ) -> None:
        """A later segment of a claim has more codes and money, and is no visit of its own."""
        first = segment in ("", "1")
        part = "" if first else f"#segment{segment}"
        if first:
            start = day_us(_said(values, self._admitted)) if _said(values, self._admitted) else None
            end = day_us(_said(values, self._discharged)) if _said(values, self._discharged) else None
            start = start if start is not None else days[0]
            self._rows.add(
                origin,
                Kind.VISIT,
                "claim",
                key,
                start=start,
                end=max(start, end if end is not None else days[1]),
                codes=setting.visit or self._place_of_service(values),
                type_concept_id=setting.header,
                details=[("drg", _said(values, self._drg))] if _said(values, self._drg) else None,
            )
        columns = (*self._columns.diagnoses, *_of_lines(self._columns))
        self._diagnoses(values, origin, refuse, key, days, setting, columns)
        for column in self._columns.procedures:
            self._procedure(values, origin, refuse, key, part, days, setting, column)
        charged = None if self._lines_charge else _amount(values, self._charged)
        paid = _amount(values, self._paid)
        if not setting.professional or not self._columns.lines:
            details = money(
                paid_patient_deductible=_amount(values, self._deductible),
                paid_patient_coinsurance=_amount(values, self._coinsurance),
                paid_by_primary=_amount(values, self._primary),
            )
            if charged is not None or paid is not None or details:
                self._cost(
                    origin, f"{key}#cost{part}", "claim", key, key, days, setting, charged, paid, details
                )

    def _place_of_service(self, values: Sequence[str]) -> tuple[Code, ...]:
        for line in self._columns.lines:
            if code := _said(values, line.place):
                return (("CMS Place of Service", code.zfill(2)),)
        return ()

    def _line_diagnoses(
        self,
        values: Sequence[str],
        origin: Origin,
        refuse: Refuse,
        key: str,
        days: tuple[int, int],
        setting: Setting,
    ) -> None:
        """Of a further line of a claim: what the claim itself said stands already."""
        said = {code for column in self._columns.diagnoses if (code := _icd(values, column, days[1]))}
        self._diagnoses(values, origin, refuse, key, days, setting, _of_lines(self._columns), said)

    def _diagnoses(
        self,
        values: Sequence[str],
        origin: Origin,
        refuse: Refuse,
        key: str,
        days: tuple[int, int],
        setting: Setting,
        columns: Sequence[IcdColumn],
        said: set[Code] | None = None,
    ) -> None:
        said = set() if said is None else said
        for column in columns:
            code = _icd(values, column, days[1])
            if code is None:
                if _said(values, column.at):
                    refuse(column.name, "bad-code")
                continue
            if code in said:
                continue
            said.add(code)
            self._rows.add(
                origin,
                Kind.CONDITION,
                column.name,
                f"{key}#{code[0]}:{code[1]}",
                encounter=key,
                start=days[0],
                end=days[1],
                codes=(code,),
                type_concept_id=setting.detail if column.rank == "line" else setting.header,
                details=[(DIAGNOSIS, column.rank)],
            )

    def _procedure(
        self,
        values: Sequence[str],
        origin: Origin,
        refuse: Refuse,
        key: str,
        part: str,
        days: tuple[int, int],
        setting: Setting,
        column: IcdColumn,
    ) -> None:
        text = _said(values, column.at)
        if not text:
            return
        code = icd_procedure(text, ten=_ten(values, column, days[1]))
        if code is None:
            refuse(column.name, "bad-code")
            return
        done = _said(values, column.date_at)
        at = day_us(done) if done else None
        if done and at is None:
            refuse(self._columns.names[column.date_at], "bad-date")
        self._rows.add(
            origin,
            Kind.PROCEDURE,
            column.name,
            f"{key}#{column.name}{part}",
            encounter=key,
            start=at if at is not None else days[0],
            codes=(code,),
            type_concept_id=setting.header,
        )

    def _line(
        self,
        values: Sequence[str],
        origin: Origin,
        refuse: Refuse,
        key: str,
        days: tuple[int, int],
        setting: Setting,
        line: LineColumns,
    ) -> None:
        revenue = _said(values, line.revenue)
        if revenue == TOTAL_LINE:
            return
        number = line.name or _said(values, self._number) or str(origin.record)
        place, start, end = f"line[{number}]", *_line_days(values, line, days)
        text = _said(values, line.hcpcs)
        code = hcpcs(text) if text else None
        if text and code is None:
            refuse(self._columns.names[line.hcpcs], "bad-code")
        own = key
        modifiers = [text for at in line.modifiers if (text := _said(values, at))]
        if code is not None:
            own = f"{key}#line{number}"
            self._rows.add(
                origin,
                Kind.PROCEDURE,
                place,
                own,
                encounter=key,
                start=start,
                end=end,
                codes=(code,),
                type_concept_id=setting.detail,
                quantity=_amount(values, line.quantity),
                details=[("modifiers", " ".join(modifiers))] if modifiers else None,
            )
        drug = ndc(_said(values, line.ndc))
        if drug is not None:
            drug_key = f"{key}#line{number}.ndc"
            own = own if code is not None else drug_key
            self._rows.add(
                origin,
                Kind.DRUG,
                f"{place}.ndc",
                drug_key,
                encounter=key,
                start=start,
                end=end,
                codes=(drug,),
                type_concept_id=setting.detail,
            )
        charged, paid = _amount(values, line.charged), _amount(values, line.paid)
        details = money(
            amount_allowed=_amount(values, line.allowed),
            paid_patient_deductible=_amount(values, line.deductible),
            paid_patient_coinsurance=_amount(values, line.coinsurance),
            paid_by_primary=_amount(values, line.primary),
        )
        if revenue:
            details.append(("revenue_code", revenue))
        unused = (
            line.name and own == key
        )  # one of many line columns of a row, most of which are filled with 0
        if not unused and (charged is not None or paid is not None or details):
            cost_key = f"{key}#line{number}.cost"
            self._cost(origin, cost_key, place, own, key, (start, end), setting, charged, paid, details)

    def _cost(
        self,
        origin: Origin,
        key: str,
        place: str,
        other_key: str,
        encounter: str,
        days: tuple[int, int],
        setting: Setting,
        charged: float | None,
        paid: float | None,
        details: list[tuple[str, str]],
    ) -> None:
        self._rows.add(
            origin,
            Kind.COST,
            f"{place}.cost",
            key,
            encounter=encounter,
            start=days[0],
            type_concept_id=setting.header if place == "claim" else setting.detail,
            charged=charged,
            paid=paid,
            currency=CURRENCY,
            other_key=other_key,
            details=details,
        )


def drug(
    values: Sequence[str], columns: Columns, origin: Origin, rows: ClaimRows, refuse: Refuse
) -> str | None:
    """Give DRUG and COST of a filled prescription; return why there are none."""

    def said(*names: str) -> str:
        return _said(values, columns.at(*names))

    event, start = said("PDE_ID"), day_us(said("SRVC_DT"))
    if not event:
        return "no-claim-id"
    if start is None:
        return "bad-date" if said("SRVC_DT") else "no-date"
    code = ndc(said("PROD_SRVC_ID", "NDC_CD"))
    if code is None:
        return "no-code"
    counts = {}
    for name in ("QTY_DSPNSD_NUM", "DAYS_SUPLY_NUM", "FILL_NUM", "PTNT_PAY_AMT", "TOT_RX_CST_AMT"):
        text = said(name)
        counts[name] = amount(text) if text else None
        if text and counts[name] is None:
            refuse(name, "bad-number")
    key = f"pde:{unmarked(event)}"
    rows.add(
        origin,
        Kind.DRUG,
        "prescription",
        key,
        start=start,
        codes=(code,),
        type_concept_id=PHARMACY_CLAIM,
        quantity=counts["QTY_DSPNSD_NUM"],
        days_supply=whole(said("DAYS_SUPLY_NUM")),
        details=[("fill", said("FILL_NUM"))] if said("FILL_NUM") else None,
    )
    patient_paid, total = counts["PTNT_PAY_AMT"], counts["TOT_RX_CST_AMT"]
    if patient_paid is not None or total is not None:
        rows.add(
            origin,
            Kind.COST,
            "prescription.cost",
            f"{key}#cost",
            start=start,
            type_concept_id=PHARMACY_CLAIM,
            currency=CURRENCY,
            other_key=key,
            details=money(total_cost=total, paid_by_patient=patient_paid),
        )
    return None


def _of_lines(columns: Columns) -> tuple[IcdColumn, ...]:
    return tuple(line.diagnosis for line in columns.lines if line.diagnosis is not None)


def _said(values: Sequence[str], place: int) -> str:
    return values[place].strip() if place >= 0 else ""


def _amount(values: Sequence[str], place: int) -> float | None:
    return amount(text) if place >= 0 and (text := values[place].strip()) else None


def _ten(values: Sequence[str], column: IcdColumn, day: int) -> bool:
    if column.nine:
        return False
    version = _said(values, column.version_at)
    return version in ("0", "10") if version else day >= ICD10_SINCE_US


def _icd(values: Sequence[str], column: IcdColumn, day: int) -> Code | None:
    text = values[column.at].strip()
    return diagnosis(text, ten=_ten(values, column, day)) if text else None


def _line_days(values: Sequence[str], line: LineColumns, days: tuple[int, int]) -> tuple[int, int]:
    first = day_us(_said(values, line.first_date)) if _said(values, line.first_date) else None
    if first is None:
        return days[0], days[0]
    last = day_us(_said(values, line.last_date)) if _said(values, line.last_date) else None
    return first, max(first, last if last is not None else first)
