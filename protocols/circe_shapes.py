"""What an OHDSI Circe cohort definition may hold: every object, its keys, and what each key's value may be.

A shape takes a JSON value and its path and returns the value with what has no meaning (names, captions,
nulls) left out. The keys are those that circe-be, the program behind ATLAS, reads; a test holds them against
duckcdm's port of it. There are no others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from protocols.cohort import MAX_MAGNITUDE, MalformedCohort

MAX_NAME = 4_000  # characters of a name or a description; the longest of 100 sampled definitions has 255
MAX_TEXT = 200  # characters of a text that records are compared with
MAX_LIST = 50_000  # concepts in one set, the longest list there is; the largest of the sample has 1066
MAX_DAYS = 1_000_000  # ATLAS users write 99999 for "ever"; a million days still is a date
MAX_COUNT = 1_000_000
MAX_ID = 2**31 - 1  # ids of concepts and of concept sets are 32-bit

Shape = Callable[[Any, str], Any]

_SAFE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_DROPPED = object()


def whole(lowest: int, highest: int) -> Shape:
    """A whole number in a closed range."""

    def shape(value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise MalformedCohort(path, "must be a whole number")
        if not lowest <= value <= highest:
            raise MalformedCohort(path, f"must be {lowest} to {highest}")
        return value

    return shape


def number(value: Any, path: str) -> int | float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedCohort(path, "must be a number")
    if not math.isfinite(value) or abs(value) > MAX_MAGNITUDE:
        raise MalformedCohort(path, f"must be finite, up to {MAX_MAGNITUDE:g}")
    return value


def flag(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise MalformedCohort(path, "must be true or false")
    return value


def text(value: Any, path: str) -> str:
    """A text that records are compared with. It reaches the database as a bound parameter only."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise MalformedCohort(path, f"must be 1 to {MAX_TEXT} printable characters")
    return value


def remark(value: Any, path: str) -> Any:
    """A name, a caption or a code for people to read: checked for its size and left out."""
    if isinstance(value, dict | list) or (isinstance(value, str) and len(value) > MAX_NAME):
        raise MalformedCohort(path, f"must be a text of at most {MAX_NAME} characters")
    return _DROPPED


def day(value: Any, path: str) -> str:
    """A date of the calendar, returned as YYYY-MM-DD."""
    found = _DATE.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        return date(*(int(part) for part in found.groups())).isoformat()
    except ValueError:
        raise MalformedCohort(path, "must be a date of the calendar, YYYY-MM-DD") from None


def choice(*names: str) -> Shape:
    """One of a few words, in any case; returned as written here."""
    known = {name.lower(): name for name in names}

    def shape(value: Any, path: str) -> str:
        if not isinstance(value, str) or value.lower() not in known:
            raise MalformedCohort(path, f"must be one of {', '.join(names)}")
        return known[value.lower()]

    return shape


def listed(entry: Shape, *, at_least: int = 0) -> Shape:
    """A list of one shape."""

    def shape(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise MalformedCohort(path, "must be a list")
        if not at_least <= len(value) <= MAX_LIST:
            raise MalformedCohort(path, f"must have {at_least} to {MAX_LIST} entries")
        return [entry(item, f"{path}[{place}]") for place, item in enumerate(value)]

    return shape


def record(fields: Mapping[str, Shape], *, required: tuple[str, ...] = ()) -> Shape:
    """An object with known keys. A null is a key that is not there."""

    def shape(value: Any, path: str) -> dict[str, Any]:
        given = _object(value, path)
        kept: dict[str, Any] = {}
        for key, item in given.items():
            if key not in fields:
                raise MalformedCohort(under(path, key), "unknown key")
            checked = _DROPPED if item is None else fields[key](item, under(path, key))
            if checked is not _DROPPED:
                kept[key] = checked
        for key in required:
            if key not in kept:
                raise MalformedCohort(under(path, key), "is missing")
        return kept

    return shape


def wrapped(kinds: Mapping[str, Shape]) -> Shape:
    """An object with one key, which names the kind of its value."""

    def shape(value: Any, path: str) -> dict[str, Any]:
        given = _object(value, path)
        if len(given) != 1:
            raise MalformedCohort(path, "must have exactly one key, the kind")
        ((kind, item),) = given.items()
        if kind not in kinds:
            raise MalformedCohort(under(path, kind), "unknown kind")
        return {kind: kinds[kind](item, under(path, kind))}

    return shape


def under(path: str, key: str) -> str:
    """Return the path of `key`; a key that is no plain word is not repeated."""
    shown = key if _SAFE_KEY.fullmatch(key) else "<key>"
    return shown if path == "$" else f"{path}.{shown}"


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedCohort(path, "must be an object")
    return value


def _ranged(end: Shape) -> Shape:
    """A comparison: `bt` (between) and `!bt` have two ends, the others one."""
    fields = record(
        {
            "Op": choice("lt", "lte", "eq", "!eq", "gt", "gte", "bt", "!bt"),
            "Value": end,
            "Extent": end,
        },
        required=("Op", "Value"),
    )

    def shape(value: Any, path: str) -> dict[str, Any]:
        kept: dict[str, Any] = fields(value, path)
        if kept["Op"].endswith("bt"):
            if "Extent" not in kept:
                raise MalformedCohort(f"{path}.Extent", "is missing")
        else:
            kept.pop("Extent", None)  # ATLAS leaves one there when the operator changes; it means nothing
        return kept

    return shape


_ID = whole(0, MAX_ID)
_DAYS = whole(-MAX_DAYS, MAX_DAYS)
_COUNT = whole(0, MAX_COUNT)
_NUMBERS = _ranged(number)
_DATES = _ranged(day)
_REMARKS = (
    *("CONCEPT_NAME", "STANDARD_CONCEPT", "STANDARD_CONCEPT_CAPTION", "INVALID_REASON", "CONCEPT_CODE"),
    *("INVALID_REASON_CAPTION", "DOMAIN_ID", "VOCABULARY_ID", "CONCEPT_CLASS_ID"),
    *("VALID_START_DATE", "VALID_END_DATE"),
)
_CONCEPT = record({"CONCEPT_ID": _ID, **dict.fromkeys(_REMARKS, remark)}, required=("CONCEPT_ID",))
_CONCEPTS = listed(_CONCEPT)
_SET = record({"CodesetId": _ID, "IsExclusion": flag})
_OPS_ON_TEXT = tuple(no + op for op in ("contains", "startsWith", "endsWith", "eq") for no in ("", "!"))
_TEXT = record({"Text": text, "Op": choice(*_OPS_ON_TEXT)}, required=("Text", "Op"))
_PERIOD = record({"StartDate": day, "EndDate": day})
_POINT = record({"Days": whole(0, MAX_DAYS), "Coeff": whole(-1, 1)}, required=("Coeff",))
_WINDOW = record(
    {"Start": _POINT, "End": _POINT, "UseIndexEnd": flag, "UseEventEnd": flag}, required=("Start", "End")
)
_ENDS = choice("START_DATE", "END_DATE")
_COLUMNS = (
    *("DAYS_SUPPLY", "DOMAIN_CONCEPT", "DOMAIN_SOURCE_CONCEPT", "DURATION", "END_DATE", "ERA_OCCURRENCES"),
    *("GAP_DAYS", "QUANTITY", "RANGE_HIGH", "RANGE_LOW", "REFILLS", "START_DATE", "UNIT", "VALUE_AS_NUMBER"),
    *("VISIT_ID", "VISIT_DETAIL_ID"),
)
_OCCURRENCE = record(
    {"Type": whole(0, 2), "Count": _COUNT, "IsDistinct": flag, "CountColumn": choice(*_COLUMNS)},
    required=("Type", "Count"),
)


def _criterion(value: Any, path: str) -> Any:
    return CRITERION(value, path)


def _group(value: Any, path: str) -> Any:
    kept = GROUP(value, path)
    if kept["Type"].startswith("AT_") and "Count" not in kept:
        raise MalformedCohort(f"{path}.Count", "is missing")
    return kept


_DEMOGRAPHIC = record(
    {
        "Age": _NUMBERS,
        **dict.fromkeys(("Gender", "Race", "Ethnicity"), _CONCEPTS),
        **dict.fromkeys(("GenderCS", "RaceCS", "EthnicityCS"), _SET),
        **dict.fromkeys(("OccurrenceStartDate", "OccurrenceEndDate"), _DATES),
    }
)
_CORRELATED = record(
    {
        "Criteria": _criterion,
        "StartWindow": _WINDOW,
        "EndWindow": _WINDOW,
        "RestrictVisit": flag,
        "IgnoreObservationPeriod": flag,
        "Occurrence": _OCCURRENCE,
    },
    required=("Criteria", "StartWindow", "Occurrence"),
)
GROUP = record(
    {
        "Type": choice("ALL", "ANY", "AT_LEAST", "AT_MOST"),
        "Count": _COUNT,
        "CriteriaList": listed(_CORRELATED),
        "DemographicCriteriaList": listed(_DEMOGRAPHIC),
        "Groups": listed(_group),
    },
    required=("Type",),
)
_ANY_CRITERION: dict[str, Shape] = {
    "CorrelatedCriteria": _group,
    "DateAdjustment": record(
        {"StartWith": _ENDS, "StartOffset": _DAYS, "EndWith": _ENDS, "EndOffset": _DAYS}
    ),
}


def _of(shape: Shape, names: str) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), shape)


def _kind(
    *,
    flags: str = "",
    ids: str = "",
    days: str = "",
    dates: str = "",
    numbers: str = "",
    texts: str = "",
    concepts: str = "",
    sets: str = "",
    own: Mapping[str, Shape] | None = None,
    required: tuple[str, ...] = (),
) -> Shape:
    """A kind of criterion: its keys by what they hold; one of `concepts` is also there as a set, `…CS`."""
    fields = _ANY_CRITERION | _of(flag, flags) | _of(_ID, ids) | _of(_DAYS, days) | _of(_DATES, dates)
    fields |= _of(_NUMBERS, numbers) | _of(_TEXT, texts) | _of(_CONCEPTS, concepts) | _of(_SET, sets)
    fields |= {name + "CS": _SET for name in concepts.split()}
    return record(fields | dict(own or {}), required=required)


_VISITED = "Gender ProviderSpecialty VisitType"
_STARTED = "OccurrenceStartDate"
_LASTED = "OccurrenceStartDate OccurrenceEndDate"
_ERA = "EraStartDate EraEndDate"
_ERA_AGES = "EraLength AgeAtStart AgeAtEnd"
_PERIODS = {"UserDefinedPeriod": _PERIOD}

KINDS: dict[str, Shape] = {
    "ConditionEra": _kind(
        flags="First", ids="CodesetId", dates=_ERA, numbers=f"OccurrenceCount {_ERA_AGES}", concepts="Gender"
    ),
    "ConditionOccurrence": _kind(
        flags="First ConditionTypeExclude",
        ids="CodesetId ConditionSourceConcept",
        dates=_LASTED,
        numbers="Age",
        texts="StopReason",
        concepts=f"ConditionType ConditionStatus {_VISITED}",
    ),
    "Death": _kind(
        flags="DeathTypeExclude",
        ids="CodesetId DeathSourceConcept",
        dates=_STARTED,
        numbers="Age",
        concepts="DeathType Gender",
    ),
    "DeviceExposure": _kind(
        flags="First DeviceTypeExclude",
        ids="CodesetId DeviceSourceConcept",
        dates=_LASTED,
        numbers="Quantity Age",
        texts="UniqueDeviceId",
        concepts=f"DeviceType {_VISITED}",
    ),
    "DoseEra": _kind(
        flags="First",
        ids="CodesetId",
        dates=_ERA,
        numbers=f"DoseValue {_ERA_AGES}",
        concepts="Unit Gender",
    ),
    "DrugEra": _kind(
        flags="First",
        ids="CodesetId",
        dates=_ERA,
        numbers=f"OccurrenceCount GapDays {_ERA_AGES}",
        concepts="Gender",
    ),
    "DrugExposure": _kind(
        flags="First DrugTypeExclude",
        ids="CodesetId DrugSourceConcept",
        dates=_LASTED,
        numbers="Refills Quantity DaysSupply EffectiveDrugDose Age",
        texts="StopReason LotNumber",
        concepts=f"DrugType RouteConcept DoseUnit {_VISITED}",
    ),
    "CustomEra": _kind(
        flags="First",
        days="GapDays",
        dates="StartDate EndDate",
        numbers="AgeAtStart Duration",
        sets="GenderCS",
        own={"CriteriaList": listed(_criterion, at_least=1)},
        required=("CriteriaList",),
    ),
    "Episode": _kind(
        flags="First",
        ids="CodesetId",
        dates="EpisodeStartDate EpisodeEndDate",
        numbers="EpisodeNumber Age",
        sets="GenderCS EpisodeObjectConceptCS EpisodeTypeCS",
    ),
    "LocationRegion": _kind(ids="CodesetId", dates="StartDate EndDate"),
    "Measurement": _kind(
        flags="First MeasurementTypeExclude Abnormal",
        ids="CodesetId MeasurementSourceConcept",
        dates=_STARTED,
        numbers="ValueAsNumber RangeLow RangeHigh RangeLowRatio RangeHighRatio Age",
        concepts=f"MeasurementType Operator ValueAsConcept Unit {_VISITED}",
    ),
    "Observation": _kind(
        flags="First ObservationTypeExclude",
        ids="CodesetId ObservationSourceConcept",
        dates=_STARTED,
        numbers="ValueAsNumber Age",
        texts="ValueAsString",
        concepts=f"ObservationType ValueAsConcept Qualifier Unit {_VISITED}",
    ),
    "ObservationPeriod": _kind(
        flags="First",
        dates="PeriodStartDate PeriodEndDate",
        numbers="PeriodLength AgeAtStart AgeAtEnd",
        concepts="PeriodType",
        own=_PERIODS,
    ),
    "PayerPlanPeriod": _kind(
        flags="First",
        ids="PayerConcept PlanConcept SponsorConcept StopReasonConcept PayerSourceConcept PlanSourceConcept"
        " SponsorSourceConcept StopReasonSourceConcept",
        dates="PeriodStartDate PeriodEndDate",
        numbers="PeriodLength AgeAtStart AgeAtEnd",
        concepts="Gender",
        own=_PERIODS,
    ),
    "ProcedureOccurrence": _kind(
        flags="First ProcedureTypeExclude",
        ids="CodesetId ProcedureSourceConcept",
        dates=_STARTED,
        numbers="Quantity Age",
        concepts=f"ProcedureType Modifier {_VISITED}",
    ),
    "Specimen": _kind(
        flags="First SpecimenTypeExclude",
        ids="CodesetId SpecimenSourceConcept",
        dates=_STARTED,
        numbers="Quantity Age",
        texts="SourceId",
        concepts="SpecimenType Unit AnatomicSite DiseaseStatus Gender",
    ),
    "VisitDetail": _kind(
        flags="First",
        ids="CodesetId VisitDetailSourceConcept PlaceOfServiceLocation",
        dates="VisitDetailStartDate VisitDetailEndDate",
        numbers="VisitDetailLength Age",
        sets="VisitDetailTypeCS GenderCS ProviderSpecialtyCS PlaceOfServiceCS",
    ),
    "VisitOccurrence": _kind(
        flags="First VisitTypeExclude",
        ids="CodesetId VisitSourceConcept PlaceOfServiceLocation",
        dates=_LASTED,
        numbers="VisitLength Age",
        concepts="VisitType Gender ProviderSpecialty PlaceOfService",
    ),
}
CRITERION = wrapped(KINDS)

_LIMIT = record({"Type": choice("First", "Last", "All")}, required=("Type",))
_CONCEPT_SET = record(
    {
        "id": _ID,
        "name": remark,
        "expression": record(
            {
                "items": listed(
                    record(
                        {
                            "concept": _CONCEPT,
                            "isExcluded": flag,
                            "includeDescendants": flag,
                            "includeMapped": flag,
                        },
                        required=("concept",),
                    )
                )
            },
            required=("items",),
        ),
    },
    required=("id", "expression"),
)
DEFINITION = record(
    {
        "cdmVersionRange": remark,
        "Title": remark,
        "ConceptSets": listed(_CONCEPT_SET),
        "PrimaryCriteria": record(
            {
                "CriteriaList": listed(_criterion, at_least=1),
                "ObservationWindow": record({"PriorDays": _COUNT, "PostDays": _COUNT}),
                "PrimaryCriteriaLimit": _LIMIT,
            },
            required=("CriteriaList", "ObservationWindow"),
        ),
        "AdditionalCriteria": _group,
        "QualifiedLimit": _LIMIT,
        "ExpressionLimit": _LIMIT,
        "InclusionRules": listed(
            record({"name": remark, "description": remark, "expression": _group}, required=("expression",))
        ),
        "EndStrategy": wrapped(
            {
                "DateOffset": record({"DateField": choice("StartDate", "EndDate"), "Offset": _DAYS}),
                "CustomEra": record(
                    {
                        "DrugCodesetId": _ID,
                        "GapDays": _COUNT,
                        "Offset": _DAYS,
                        "DaysSupplyOverride": whole(0, MAX_DAYS),
                    },
                    required=("DrugCodesetId",),
                ),
            }
        ),
        "CensoringCriteria": listed(_criterion),
        "CollapseSettings": record({"CollapseType": choice("ERA"), "EraPad": _DAYS}),
        "CensorWindow": _PERIOD,
    },
    required=("PrimaryCriteria",),
)
