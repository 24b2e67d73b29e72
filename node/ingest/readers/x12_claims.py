"""837 claims, professional, institutional and dental, of 5010 and 4010: each CLM is a record.

A member's number of a payer says who it is. A dependent without a number of their own is known by the
subscriber's number with birth, sex and first name. One visit a claim; a code that stands twice is one
condition. What is asked for stands with the lines, on the visit only where a claim has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from node.ingest.facts import Action, Kind, TurnedAway, unmarked
from node.ingest.readers.claims_rows import (
    DIAGNOSIS,
    INPATIENT_DETAIL,
    INPATIENT_HEADER,
    OUTPATIENT_DETAIL,
    OUTPATIENT_HEADER,
    PROFESSIONAL_DETAIL,
    PROFESSIONAL_HEADER,
    ClaimRows,
    Code,
    Origin,
    amount,
    day_number,
    day_us,
    diagnosis,
    hcpcs,
    icd_procedure,
    minute_us,
    money,
    ndc,
)

VOID = "8"  # CLM05-3: the claim is taken back
_DIAGNOSES = {  # qualifier of HI -> ICD-10?, rank
    "BK": (False, "principal"),
    "BF": (False, "secondary"),
    "BJ": (False, "admitting"),
    "BN": (False, "external cause"),
    "PR": (False, "reason"),
    "ABK": (True, "principal"),
    "ABF": (True, "secondary"),
    "ABJ": (True, "admitting"),
    "ABN": (True, "external cause"),
    "APR": (True, "reason"),
}
_PROCEDURES = {"BR": False, "BQ": False, "BBR": True, "BBQ": True}  # -> ICD-10?
_HCPCS = {"BP", "BO"}
_NOT_CLINICAL = {
    "BE",
    "BG",
    "BH",
    "BI",
    "TC",
    "NR",
    "LOI",
}  # value, condition and occurrence codes of billing
_SEX = {"M": "male", "F": "female"}
_PATIENT_SHARE = {"1": "paid_patient_deductible", "2": "paid_patient_coinsurance", "3": "paid_patient_copay"}
_SETTINGS: dict[str, tuple[Code, int, int]] = {  # first two digits of the type of bill
    **dict.fromkeys(("11", "12", "18"), (("Visit", "IP"), INPATIENT_HEADER, INPATIENT_DETAIL)),
    **dict.fromkeys(
        ("21", "22", "23", "28"), (("CMS Place of Service", "31"), INPATIENT_HEADER, INPATIENT_DETAIL)
    ),
    **dict.fromkeys(
        ("32", "33", "34"), (("CMS Place of Service", "12"), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)
    ),
    **dict.fromkeys(("81", "82"), (("CMS Place of Service", "34"), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)),
}
_OUTPATIENT = (("Visit", "OP"), OUTPATIENT_HEADER, OUTPATIENT_DETAIL)
_INSTITUTIONAL = ("X223", "X096")  # implementation guides of 837I
_SEGMENTS = frozenset(  # of all guides of 837, without the envelope
    {
        "AMT",
        "CAS",
        "CL1",
        "CLM",
        "CN1",
        "CR1",
        "CR2",
        "CR3",
        "CR4",
        "CR5",
        "CR6",
        "CR7",
        "CR8",
        "CRC",
        "CTP",
        "CUR",
    }
    | {
        "DMG",
        "DN1",
        "DN2",
        "DSB",
        "DTP",
        "FRM",
        "HCP",
        "HI",
        "HL",
        "HSD",
        "IMM",
        "K3",
        "LIN",
        "LQ",
        "LX",
        "MEA",
    }
    | {
        "MIA",
        "MOA",
        "N3",
        "N4",
        "NM1",
        "NTE",
        "OI",
        "PAT",
        "PER",
        "PRV",
        "PS1",
        "PWK",
        "QTY",
        "REF",
        "SBR",
        "SV1",
    }
    | {"SV2", "SV3", "SV4", "SV5", "SV6", "SVD", "TOO", "TST", "UR"}
)
_SERVICES = {"SV1": (1, 2, 4), "SV2": (2, 3, 5), "SV3": (1, 2, 6)}  # procedure, charge, quantity


@dataclass(slots=True)
class Member:
    """A subscriber or dependent, as far as the loops said."""

    number: str = ""
    first_name: str = ""
    sex: str = ""
    birth: int | None = None
    died: int | None = None


@dataclass(slots=True)
class Line:
    """A service line."""

    revenue: str = ""
    system: str = ""
    code: str = ""
    modifiers: tuple[str, ...] = ()
    charged: float | None = None
    quantity: float | None = None
    start: int | None = None
    end: int | None = None
    ndc: str = ""
    ndc_quantity: float | None = None
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Claim:
    """A claim while its segments come in."""

    record: int
    number: str
    charged: float | None
    facility: str
    frequency: str
    start: int | None = None
    end: int | None = None
    admitted: int | None = None
    diagnoses: list[tuple[str, str]] = field(default_factory=list)  # qualifier, code
    procedures: list[tuple[str, str, str]] = field(default_factory=list)  # qualifier, code, day
    drg: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    loop: str = "2300"
    damaged: bool = False


class Claims:
    """The 837 transaction set that is being read."""

    def __init__(
        self,
        rows: ClaimRows,
        turned_away: list[TurnedAway],
        next_record: Callable[[], int],
        guide: str,
        component: str,
    ) -> None:
        self._rows = rows
        self._turned_away = turned_away
        self._next_record = next_record
        self._institutional = any(name in guide for name in _INSTITUTIONAL)
        self._component = component
        self._version: int | None = None
        self._currency = "USD"
        self._provider = self._payer = ""
        self._subscriber, self._dependent = Member(), None  # type: Member, Member | None
        self._claim: Claim | None = None
        self._found = False

    @property
    def pending(self) -> bool:
        """Whether a record is open whose facts are yet to come."""
        return self._claim is not None

    def segment(self, parts: list[str]) -> None:
        """Take the next segment of the transaction."""
        name = parts[0]
        claim = self._claim
        if name == "CLM":
            self._begin(parts)
        elif name == "HL":
            self._level(parts)
        elif claim is None:
            self._about_people(name, parts)
        elif name not in _SEGMENTS:
            claim.damaged = True
        elif name == "LX":
            claim.loop = "2400"
            claim.lines.append(Line())
        elif claim.loop == "2400":
            self._in_line(claim, name, parts)
        elif name == "SBR":
            claim.loop = "2320"  # somebody else's insurance: their names and dates are not the patient's
        elif claim.loop == "2320":
            self._other_payer(claim, name, parts)
        else:
            self._in_claim(claim, name, parts)

    def end(self, *, truncated: bool) -> None:
        """Finish: the transaction has ended, or the file has."""
        self._finish(truncated=truncated)
        if not self._found:
            record = self._next_record()
            self._turned_away.append(TurnedAway(record, "", "truncated" if truncated else "no-claim", True))

    def _level(self, parts: list[str]) -> None:
        self._finish()
        level = _at(parts, 3)
        if level == "20":
            self._provider = ""
            self._subscriber, self._dependent = Member(), None
        elif level == "22":
            self._payer = ""
            self._subscriber, self._dependent = Member(), None
        else:
            self._dependent = Member()

    def _about_people(self, name: str, parts: list[str]) -> None:
        who = self._dependent if self._dependent is not None else self._subscriber
        if name == "NM1":
            role = _at(parts, 1)
            if role == "85":
                self._provider = _at(parts, 9)
            elif role == "PR":
                self._payer = _at(parts, 9)
            elif role in ("IL", "QC"):
                who.number, who.first_name = _at(parts, 9), _at(parts, 4)
        elif name == "DMG":
            who.birth = day_number(_at(parts, 2)) if _at(parts, 1) == "D8" else None
            who.sex = _at(parts, 3)
        elif name == "PAT":
            who.died = day_us(_at(parts, 6)) if _at(parts, 5) == "D8" else None
        elif name == "CUR" and len(_at(parts, 2)) == 3:
            self._currency = _at(parts, 2)
        elif name == "BHT":
            self._version = minute_us(_at(parts, 4), _at(parts, 5) or "0000")

    def _begin(self, parts: list[str]) -> None:
        self._finish()
        self._found = True
        place = _at(parts, 5).split(self._component)
        self._claim = Claim(
            self._next_record(),
            _at(parts, 1),
            amount(_at(parts, 2)),
            place[0],
            place[2] if len(place) > 2 else "",
        )

    def _in_claim(self, claim: Claim, name: str, parts: list[str]) -> None:
        if name == "HI":
            for element in parts[1:]:
                self._code(claim, element.split(self._component))
        elif name == "DTP":
            what = _at(parts, 1)
            if what in ("434", "472"):
                claim.start, claim.end = self._days(claim.record, parts)
            elif what == "435":
                claim.admitted = self._days(claim.record, parts)[0]
        elif name == "AMT" and _at(parts, 1) == "F5":
            _add(claim.shares, "paid_by_patient", _at(parts, 2))
        elif name in _SERVICES:  # without the LX that should come first
            claim.loop = "2400"
            self._in_line(claim, name, parts)

    def _code(self, claim: Claim, parts: list[str]) -> None:
        qualifier, code = parts[0], _at(parts, 1)
        if qualifier in _DIAGNOSES:
            claim.diagnoses.append((qualifier, code))
        elif qualifier in _PROCEDURES or qualifier in _HCPCS:
            claim.procedures.append((qualifier, code, _at(parts, 3)))
        elif qualifier == "DR":
            claim.drg = code
        elif qualifier in _NOT_CLINICAL:
            self._refuse(claim.record, f"HI-{qualifier}", "not-clinical")
        elif qualifier:
            self._refuse(claim.record, "HI", "unknown-qualifier")

    def _other_payer(self, claim: Claim, name: str, parts: list[str]) -> None:
        if name == "AMT" and _at(parts, 1) == "D":
            _add(claim.shares, "paid_by_primary", _at(parts, 2))
        elif name == "CAS":
            _adjust(claim.shares, parts)

    def _in_line(self, claim: Claim, name: str, parts: list[str]) -> None:
        if not claim.lines or (name in _SERVICES and claim.lines[-1].charged is not None):
            claim.lines.append(Line())
        line = claim.lines[-1]
        if name in _SERVICES:
            self._service(line, name, parts)
            return
        match name:
            case "DTP":
                if _at(parts, 1) == "472":
                    line.start, line.end = self._days(claim.record, parts)
            case "LIN":
                if _at(parts, 2) == "N4":
                    line.ndc = _at(parts, 3)
            case "CTP":
                line.ndc_quantity = amount(_at(parts, 4))
            case "SVD":
                _add(line.shares, "paid_by_primary", _at(parts, 2))
            case "CAS":
                _adjust(line.shares, parts)

    def _service(self, line: Line, name: str, parts: list[str]) -> None:
        procedure, charged, quantity = (_at(parts, place) for place in _SERVICES[name])
        if name == "SV2":
            line.revenue = _at(parts, 1)
        composite = procedure.split(self._component)
        line.system, line.code = composite[0], _at(composite, 1)
        line.modifiers = tuple(part for part in composite[2:6] if part)
        line.charged = amount(charged)
        line.quantity = amount(quantity)

    def _days(self, record: int, parts: list[str]) -> tuple[int | None, int | None]:
        """Return the days of a DTP; a time of day has no zone, so the day is kept."""
        text = _at(parts, 3)
        first, _, last = text.partition("-") if _at(parts, 2) == "RD8" else (text[:8], "", text[:8])
        start, end = day_us(first), day_us(last)
        if start is None or end is None or end < start:
            self._refuse(record, "DTP", "bad-date")
            return (start, start) if start is not None else (end, end)
        return start, end

    def _refuse(self, record: int, place: str, reason: str) -> None:
        self._turned_away.append(TurnedAway(record, place, reason, False))

    def _finish(self, *, truncated: bool = False) -> None:
        """Give the open claim's facts, or say why it has none."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        reason = "truncated" if truncated else "malformed" if claim.damaged else self._facts(claim)
        if reason is not None:
            self._turned_away.append(TurnedAway(claim.record, "", reason, True))

    def _patient(self) -> str | None:
        one, who = self._subscriber, self._dependent
        if who is None or who.number:
            return (one if who is None else who).number or None
        if not one.number or (who.birth is None and not who.first_name):
            return None
        return "/".join((one.number, str(who.birth), who.sex, who.first_name.upper()))

    def _facts(self, claim: Claim) -> str | None:
        patient = self._patient()
        if patient is None:
            return "no-patient"
        if not claim.number:
            return "no-claim-id"
        days = _span(claim)
        if days is None:
            return "no-date"
        dependent = self._dependent is not None and not self._dependent.number
        namespace = "dependent" if dependent else "member"
        origin = Origin(
            claim.record,
            patient,
            f"{namespace}:{self._payer}" if self._payer else namespace,
            self._version,
            (Action.RETRACT if claim.frequency == VOID else Action.ASSERT).value,
        )
        key = unmarked(f"claim:{self._provider}:{claim.number}")
        visit, header, detail = self._setting(claim)
        self._person(origin._replace(action=Action.ASSERT.value))
        start = days[0] if claim.admitted is None else claim.admitted
        self._rows.add(
            origin,
            Kind.VISIT,
            "CLM",
            key,
            start=start,
            end=max(start, days[1]),
            codes=(visit,) if visit is not None else (),
            type_concept_id=header,
            details=[("drg", claim.drg)] if claim.drg else None,
        )
        self._conditions(claim, origin, key, days, header)
        self._procedures(claim, origin, key, days, header)
        for number, line in enumerate(claim.lines, 1):
            self._line(claim, origin, key, days, detail, number, line)
        on_lines = {name for line in claim.lines for name in line.shares}
        shares = {name: value for name, value in claim.shares.items() if name not in on_lines}
        charged = claim.charged if not claim.lines else None
        if charged is not None or shares:
            self._rows.add(
                origin,
                Kind.COST,
                "CLM.cost",
                f"{key}#cost",
                encounter=key,
                start=days[0],
                type_concept_id=header,
                charged=charged,
                currency=self._currency,
                other_key=key,
                details=money(**shares),
            )
        return None

    def _setting(self, claim: Claim) -> tuple[Code | None, int, int]:
        if self._institutional:
            return _SETTINGS.get(claim.facility, _OUTPATIENT)
        place = claim.facility
        known = len(place) in (1, 2) and place.isascii() and place.isdigit()
        code = ("CMS Place of Service", place.zfill(2)) if known else None
        return code, PROFESSIONAL_HEADER, PROFESSIONAL_DETAIL

    def _person(self, origin: Origin) -> None:
        who = self._dependent if self._dependent is not None else self._subscriber
        if who.birth is not None or who.sex:
            sex = _SEX.get(who.sex, "unknown")
            self._rows.add(origin, Kind.PERSON, "DMG", "member", sex=sex, birth=who.birth)
        if who.died is not None:
            self._rows.add(
                origin, Kind.DEATH, "PAT-6", "death", start=who.died, type_concept_id=PROFESSIONAL_HEADER
            )

    def _conditions(self, claim: Claim, origin: Origin, key: str, days: tuple[int, int], header: int) -> None:
        said = set()
        for place, (qualifier, text) in enumerate(claim.diagnoses, 1):
            ten, rank = _DIAGNOSES[qualifier]
            code = diagnosis(text, ten=ten)
            if code is None:
                self._refuse(claim.record, f"HI-{qualifier}", "bad-code")
            elif code not in said:
                said.add(code)
                self._rows.add(
                    origin,
                    Kind.CONDITION,
                    f"HI[{place}]",
                    f"{key}#{code[0]}:{code[1]}",
                    encounter=key,
                    start=days[0],
                    end=days[1],
                    codes=(code,),
                    type_concept_id=header,
                    details=[(DIAGNOSIS, rank)],
                )

    def _procedures(self, claim: Claim, origin: Origin, key: str, days: tuple[int, int], header: int) -> None:
        for place, (qualifier, text, day) in enumerate(claim.procedures, 1):
            ten = _PROCEDURES.get(qualifier)
            code = hcpcs(text) if ten is None else icd_procedure(text, ten=ten)
            if code is None:
                self._refuse(claim.record, f"HI-{qualifier}", "bad-code")
                continue
            done = day_us(day) if day else None
            self._rows.add(
                origin,
                Kind.PROCEDURE,
                f"HI-{qualifier}[{place}]",
                f"{key}#procedure{place}",
                encounter=key,
                start=done if done is not None else days[0],
                codes=(code,),
                type_concept_id=header,
            )

    def _line(
        self,
        claim: Claim,
        origin: Origin,
        key: str,
        days: tuple[int, int],
        detail: int,
        number: int,
        line: Line,
    ) -> None:
        start = line.start if line.start is not None else days[0]
        end = line.end if line.start is not None else start
        place, own = f"LX[{number}]", f"{key}#line{number}"
        code = hcpcs(line.code) if line.system in ("HC", "AD") else None
        if code is not None:
            self._rows.add(
                origin,
                Kind.PROCEDURE,
                place,
                own,
                encounter=key,
                start=start,
                end=end,
                codes=(code,),
                type_concept_id=detail,
                quantity=line.quantity,
                details=[("modifiers", " ".join(line.modifiers))] if line.modifiers else None,
            )
        elif line.system:
            known = line.system in ("HC", "AD")
            self._refuse(claim.record, place, "bad-code" if known else "unknown-code-system")
        drug = ndc(line.ndc.replace("-", "")) if line.ndc else None
        if drug is not None:
            self._rows.add(
                origin,
                Kind.DRUG,
                f"{place}.LIN",
                f"{own}.ndc",
                encounter=key,
                start=start,
                end=end,
                codes=(drug,),
                type_concept_id=detail,
                quantity=line.ndc_quantity,
            )
        if line.charged is None and not line.shares:
            return
        details = money(**line.shares)
        if line.revenue:
            details.append(("revenue_code", line.revenue))
        self._rows.add(
            origin,
            Kind.COST,
            f"{place}.cost",
            f"{own}.cost",
            encounter=key,
            start=start,
            type_concept_id=detail,
            charged=line.charged,
            currency=self._currency,
            other_key=own if code is not None else f"{own}.ndc" if drug is not None else key,
            details=details,
        )


def _at(parts: Sequence[str], place: int) -> str:
    return parts[place].strip() if place < len(parts) else ""


def _add(shares: dict[str, float], name: str, text: str) -> None:
    found = amount(text)
    if found is not None:
        shares[name] = shares.get(name, 0.0) + found


def _adjust(shares: dict[str, float], parts: list[str]) -> None:
    """Take what the patient owes from a CAS: its group PR, in threes of reason, amount and quantity."""
    if _at(parts, 1) != "PR":
        return
    for place in range(2, len(parts) - 1, 3):
        name = _PATIENT_SHARE.get(_at(parts, place))
        if name is not None:
            _add(shares, name, _at(parts, place + 1))


def _span(claim: Claim) -> tuple[int, int] | None:
    """Return the days of a claim: as it says, else those of its lines, else the admission."""
    if claim.start is not None:
        return claim.start, claim.end if claim.end is not None else claim.start
    starts = [line.start for line in claim.lines if line.start is not None]
    ends = [line.end for line in claim.lines if line.end is not None]
    if starts:
        return min(starts), max(ends)
    return (claim.admitted, claim.admitted) if claim.admitted is not None else None
