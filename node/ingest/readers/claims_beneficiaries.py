"""A row of a CMS beneficiary file: who someone is, when they died, in which months they were enrolled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta

from node.ingest.facts import Kind
from node.ingest.readers.claims_columns import Columns
from node.ingest.readers.claims_rows import (
    CLAIM_ENROLMENT,
    ClaimRows,
    Code,
    Origin,
    day_number,
    day_us,
    whole,
)

MEDICARE: Code = ("SOPT", "1")  # Source of Payment Typology, which OMOP uses for payers
CDC = "urn:oid:2.16.840.1.113883.6.238"  # race and ethnicity of the CDC
WHITE, BLACK, OTHER, ASIAN, NATIVE = "2106-3", "2054-5", "2131-1", "2028-9", "1002-5"
HISPANIC, NOT_HISPANIC = "2135-2", "2186-5"
_SEX = {"1": "male", "2": "female"}
_RACE = {"1": WHITE, "2": BLACK, "3": OTHER, "4": ASIAN, "6": NATIVE}  # 0 and 5 say no race
_ETHNICITY = {"1": NOT_HISPANIC, "2": NOT_HISPANIC, "5": HISPANIC}  # as OHDSI's ETL-CMS reads the race
_TOTALS = {  # months of the year: DE-SynPUF and RIF
    "Part A": ("BENE_HI_CVRAGE_TOT_MONS",),
    "Part B": ("BENE_SMI_CVRAGE_TOT_MONS",),
    "HMO": ("BENE_HMO_CVRAGE_TOT_MONS",),
    "Part D": ("PLAN_CVRG_MOS_NUM", "PTD_PLAN_CVRG_MONS"),
}
_YEAR_IN_NAME = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2})(?![0-9])")
_ELIGIBLE_YEARS = 65  # of age: who is enrolled for a part of the year of this birthday came in with it
Refuse = Callable[[str, str], None]


def year_of(file_name: str) -> int | None:
    """Return the year that a file's name says; None if it says none, or more than one."""
    years = set(_YEAR_IN_NAME.findall(file_name))
    return int(years.pop()) if len(years) == 1 else None


def beneficiary(
    values: Sequence[str],
    columns: Columns,
    origin: Origin,
    rows: ClaimRows,
    refuse: Refuse,
    *,
    year: int | None,
) -> None:
    """Give PERSON, DEATH and a COVERAGE per plan and unbroken run of months.

    Where only the number of months stands, it is laid at the year's end for those who turned 65 in it, up to
    the month of death for those who died, and else at its beginning: `months` of `details` says so.
    """

    def said(*names: str) -> str:
        place = columns.at(*names)
        return values[place].strip() if place >= 0 else ""

    stated = said("YEAR", "RFRNC_YR", "BENE_ENROLLMT_REF_YR")
    year = int(stated) if re.fullmatch(r"(19|20)[0-9]{2}", stated) else year
    if year is not None:
        origin = origin._replace(version=day_us(f"{year}1231"))
    birth = _day(said, "BENE_BIRTH_DT", refuse)
    race = said("BENE_RACE_CD", "RACE_CD")
    rows.add(
        origin,
        Kind.PERSON,
        "beneficiary",
        "beneficiary",
        sex=_SEX.get(said("BENE_SEX_IDENT_CD", "SEX_IDENT_CD"), "unknown"),
        race=(CDC, _RACE[race]) if race in _RACE else None,
        ethnicity=(CDC, _ETHNICITY[race]) if race in _ETHNICITY else None,
        birth=birth,
    )
    death = _day(said, "BENE_DEATH_DT" if columns.at("BENE_DEATH_DT") >= 0 else "DEATH_DT", refuse)
    if death is not None:
        at = day_us(str(date(1970, 1, 1) + timedelta(days=death)))
        rows.add(origin, Kind.DEATH, "beneficiary.death", "death", start=at, type_concept_id=CLAIM_ENROLMENT)
    if year is None:
        refuse("months", "no-year")
        return
    for plan, runs, exact in _runs(values, columns, said, refuse, year, birth, death):
        for first, last in runs:
            rows.add(
                origin,
                Kind.COVERAGE,
                f"beneficiary.{plan}[{first}]",
                f"coverage:{plan}:{year}:{first}",
                start=day_us(f"{year}{first:02d}01"),
                end=day_us(str(date(year + last // 12, last % 12 + 1, 1) - timedelta(days=1))),
                codes=(MEDICARE,),
                type_concept_id=CLAIM_ENROLMENT,
                details=[("payer", "Medicare"), ("plan", plan), ("months", "exact" if exact else "placed")],
            )


def _day(said: Callable[..., str], name: str, refuse: Refuse) -> int | None:
    text = said(name)
    if not text:
        return None
    found = day_number(text)
    if found is None:
        refuse(name, "bad-date")
    return found


Runs = list[tuple[int, int]]


def _runs(
    values: Sequence[str],
    columns: Columns,
    said: Callable[..., str],
    refuse: Refuse,
    year: int,
    birth: int | None,
    death: int | None,
) -> list[tuple[str, Runs, bool]]:
    by_month: dict[str, list[bool]] = {}
    for source, places in columns.months.items():
        texts = [values[place].strip().upper() for place in places]
        if source == "buy-in":
            by_month["Part A"] = [text in ("1", "3", "A", "C") for text in texts]
            by_month["Part B"] = [text in ("2", "3", "B", "C") for text in texts]
        elif source == "HMO":
            by_month["HMO"] = [text not in ("", "0", "4") for text in texts]  # 4: fee for service, managed
        else:
            by_month["Part D"] = [text[:1] not in ("", "N", "0", "*") for text in texts]
    found = [(plan, _unbroken(months), True) for plan, months in by_month.items()]
    for plan, names in _TOTALS.items():
        text = said(*names)
        if plan in by_month or not text:
            continue
        months = whole(text)
        if months is None or months > 12:
            refuse(names[0], "bad-number")
        elif months:
            found.append((plan, [_placed(months, year, birth, death)], months == 12))
    return found


def _unbroken(months: list[bool]) -> Runs:
    runs: Runs = []
    for month, covered in enumerate(months, 1):
        if covered and runs and runs[-1][1] == month - 1:
            runs[-1] = (runs[-1][0], month)
        elif covered:
            runs.append((month, month))
    return runs


def _placed(months: int, year: int, birth: int | None, death: int | None) -> tuple[int, int]:
    died = date(1970, 1, 1) + timedelta(days=death) if death is not None else None
    if died is not None and died.year == year:
        last = max(died.month, months)
        return last - months + 1, last
    born = date(1970, 1, 1) + timedelta(days=birth) if birth is not None else None
    if born is not None and born.year + _ELIGIBLE_YEARS == year:
        return 13 - months, 12
    return 1, months
