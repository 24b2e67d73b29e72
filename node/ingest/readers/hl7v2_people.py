"""PID, MRG, AL1 and IAM: who it is, who they turned out to be, and what they do not bear."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from deid.spans import Category, Known
from node.ingest.facts import Action, Kind, Told
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_lexer import Delimiters, Message
from node.ingest.readers.hl7v2_record import Order, Record, Segment, details
from node.ingest.readers.hl7v2_types import REMEMBERED_CHARACTERS, Coding, Identifier, concept, identifier
from node.ingest.readers.hl7v2_visits import MOVED
from node.ingest.readers.identity import known

SEXES = {
    "M": "male",
    "MALE": "male",
    "F": "female",
    "FEMALE": "female",
    "O": "other",
    "OTHER": "other",
    "A": "other",  # ambiguous
    "X": "other",
    "U": "unknown",
    "UNKNOWN": "unknown",
    "N": "unknown",  # not applicable
}
NUMBERS_OF_HOSPITALS = ("MR", "MRN", "PI", "PT", "U", "")
NOT_OF_HOSPITALS = frozenset({"SS", "DL", "PPN", "AN", "VN", "ANON", "BC", "CC", "GL", "TAX"})
DEFAULT_NAMESPACE = "mrn"  # of numbers that name no authority
MERGES = frozenset({"A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47", "A48"})
ACCOUNT_MERGES = frozenset({"A35", "A41", "A42", "A43", "A44", "A45", "A49", "A50", "A51"})
OF_OTHERS = frozenset({"A43", "A44"})  # moves of accounts that may be to another patient
LINKS = frozenset({"A24", "A37"})
ERRONEOUS = "E"  # IAM-17, table 0438
OF_IDENTITY = {  # fields of PID that say who it is
    2: Category.MRN, 3: Category.MRN, 4: Category.MRN, 5: Category.NAME, 6: Category.NAME, 7: Category.DATE,
    9: Category.NAME, 11: Category.ADDRESS, 13: Category.PHONE, 14: Category.PHONE, 18: Category.ACCOUNT,
    19: Category.SSN, 20: Category.LICENSE,
}  # fmt: skip


def pid(record: Record, segment: Segment) -> None:
    """Set whom what follows is about; give PERSON, and DEATH where PID-29 or PID-30 says so.

    What ADT says about a person and what other messages say have different keys: a result's short PID does
    not take the place of the registration's. "Not dead" (PID-30 N) takes back a death.
    """
    record.pid, record.encounter, record.admitted, record.order = segment, None, None, Order()
    record.left = []
    if record.event in LINKS and record.ordinal == 2:
        record.turn_away("PID", reasons.LINK)
    record.account = record.message.first(segment, 18)
    who = _who(record.message, segment)
    if who is None:
        record.patient = record.namespace = None
        record.turn_away("PID-3", reasons.NO_PATIENT)
        return
    record.patient, record.namespace = who.id, who.namespace
    record.told.append(Told(who.id, who.namespace, _known(record.message, segment)))
    born = record.time(segment, 7, "PID-7")
    sex = SEXES.get(record.message.first(segment, 8).upper())
    race, ethnicity = _group(record, segment, 10), _group(record, segment, 22)
    if born or sex or race or ethnicity:
        row = record.add(
            Kind.PERSON,
            f"PID[{record.ordinal}]",
            "person" if record.code == "ADT" else f"person {record.code}",
            action=Action.RETRACT if record.code == "ADT" and record.event == "A29" else Action.ASSERT,
            sex=sex,
            race=race,
            ethnicity=ethnicity,
            details=who.others,
        )
        if born:
            row["birth"], row["precision"] = born.day, born.precision
    _death(record, segment)


def _known(message: Message, segment: Segment) -> tuple[Known, ...]:
    """Who PID says that it is; the last of them are remembered, for a stay has many messages."""
    raw = tuple(message.field(segment, number) for number in OF_IDENTITY)
    parse = _known_of if sum(map(len, raw)) < REMEMBERED_CHARACTERS else _known_of.__wrapped__
    return parse(message.delimiters, message.encoding, raw)


@lru_cache(maxsize=8192)
def _known_of(signs: Delimiters, encoding: str, raw: tuple[str, ...]) -> tuple[Known, ...]:
    message, found = Message(signs, [], encoding), list[Known]()
    for place, number in enumerate(OF_IDENTITY):
        category = OF_IDENTITY[number]
        for written in message.repetitions(list(raw), place):
            parts = [part.strip() for part in message.components(written)]
            if category is Category.NAME:
                found += known(category, " ".join([*parts[1:3], parts[0]]).strip())
            elif category is Category.ADDRESS:
                found += [one for at in (0, 2, 4) if at < len(parts) for one in known(category, parts[at])]
            elif category is Category.PHONE:
                found += known(category, parts[0] or "".join(parts[5:7]))
                found += known(Category.EMAIL, parts[3] if len(parts) > 3 else "")
            elif category is Category.DATE:
                day = parts[0][:8]
                if len(day) == 8 and day.isdecimal():
                    found += known(category, f"{day[:4]}-{day[4:6]}-{day[6:]}")
            else:
                found += known(category, parts[0])
    return tuple(dict.fromkeys(found))


def _death(record: Record, segment: Segment) -> None:
    died = record.time(segment, 29, "PID-29")
    flag = record.message.first(segment, 30).upper()
    place = f"PID[{record.ordinal}]-29"
    if flag == "N":
        if died is None:
            record.retract(Kind.DEATH, place, "death")
    elif died is not None or flag == "Y":
        record.add(Kind.DEATH, place, "death", start=died)


class Who(NamedTuple):
    """The hospital's own number of a patient, whose numbers these are, and numbers of others for them."""

    id: str
    namespace: str
    others: dict[str, str] | None


def _who(message: Message, segment: Segment) -> Who | None:
    raw, old = message.field(segment, 3), message.field(segment, 2)
    parse = _who_of if len(raw) + len(old) < REMEMBERED_CHARACTERS else _who_of.__wrapped__
    return parse(message.delimiters, message.encoding, raw, old)


@lru_cache(maxsize=8192)  # who is in the hospital now
def _who_of(signs: Delimiters, encoding: str, raw: str, old: str) -> Who | None:
    message, fields = Message(signs, [], encoding), [raw, old]
    numbers = _numbers(message, fields, 0) or _numbers(message, fields, 1)
    chosen = _chosen(numbers)
    if chosen is None:
        return None
    others = {
        f"identifier.{_namespace(other)}": other.id
        for other in numbers
        if other != chosen and other.authority and other.type not in NOT_OF_HOSPITALS
    }
    return Who(chosen.id, _namespace(chosen), others or None)


def _numbers(message: Message, segment: Segment, number: int) -> list[Identifier]:
    found = (identifier(message, raw) for raw in message.repetitions(segment, number))
    return [one for one in found if one.id]


def _chosen(numbers: list[Identifier]) -> Identifier | None:
    """Return the hospital's own number: a medical record number before others, never an account's."""
    for kind in NUMBERS_OF_HOSPITALS:
        for one in numbers:
            if one.type == kind:
                return one
    return next((one for one in numbers if one.type not in NOT_OF_HOSPITALS), None)


def _namespace(one: Identifier) -> str:
    return one.authority or DEFAULT_NAMESPACE


def _group(record: Record, segment: Segment, number: int) -> Coding | None:
    raw = next(iter(record.message.repetitions(segment, number)), "")
    if not raw:
        return None
    found = concept(record.message, raw, where=f"PID-{number}", system=f"HL7{5 if number == 10 else 189:04d}")
    if found.codings:
        return found.codings[0]
    return (f"local:PID-{number}", None, found.text) if found.text else None


def mrg(record: Record, segment: Segment) -> None:
    """Give MERGE from each number of MRG-1 to that of PID-3 with the same authority, else to the chosen."""
    if record.event in ACCOUNT_MERGES:
        _moved(record, segment)
        return
    if record.event not in MERGES:
        return
    pid_segment = record.pid
    kept = _numbers(record.message, pid_segment, 3) or _numbers(record.message, pid_segment, 2)
    left = _numbers(record.message, segment, 1) or _numbers(record.message, segment, 4)
    hospital = [one for one in left if one.type not in NOT_OF_HOSPITALS]
    if not hospital:
        record.turn_away("MRG-1", reasons.NO_PATIENT)
    for at, one in enumerate(hospital, 1):
        other = next(
            (now for now in kept if now.authority == one.authority and now.type == one.type), _chosen(kept)
        )
        if other is None:
            continue
        if (other.id, _namespace(other)) == (one.id, _namespace(one)):
            record.turn_away("MRG-1", reasons.SELF_MERGE)
            continue
        row = record.add(
            Kind.PERSON,
            f"MRG[{record.ordinal}]-1[{at}]",
            f"merge {one.id}",
            action=Action.MERGE,
            other_patient=other.id,
            type_concept_id=None,
        )
        row["patient"], row["patient_namespace"], row["encounter"] = one.id, _namespace(one), None
        if _namespace(other) != _namespace(one):
            row["details"] = {"other_patient_namespace": _namespace(other)}


def _moved(record: Record, segment: Segment) -> None:
    """Note which visits PV1, which follows, takes the place of; accounts that move change nothing.

    A visit may move to another patient, and what was told in it with it. An account that does is noted.
    """
    message, patient, namespace = record.message, record.patient, record.namespace
    if (before := _chosen(_numbers(message, segment, 1))) is not None:
        patient, namespace = before.id, _namespace(before)
    if record.event in MOVED and patient and namespace:
        record.left = [(patient, namespace, one.id) for one in _numbers(message, segment, 5)]
    if not record.left:
        record.turn_away("MRG", reasons.ACCOUNT_MERGE)
    if record.event in OF_OTHERS and (patient, namespace) != (record.patient, record.namespace):
        record.turn_away("MRG-1", reasons.STAYS_BEHIND)


def al1(record: Record, segment: Segment) -> None:
    """Give OBSERVATION: an allergy, with the reaction as its value."""
    _allergy(record, segment, name="AL1", severity=4, reaction=5, since=6)


def iam(record: Record, segment: Segment) -> None:
    """Give OBSERVATION; an allergy that is deleted (IAM-6 D) or erroneous (IAM-17 E) is taken back."""
    message = record.message
    gone = message.first(segment, 6).upper() == "D" or message.first(segment, 17).upper() == ERRONEOUS
    _allergy(record, segment, name="IAM", severity=4, reaction=5, since=11, gone=gone)


def _allergy(
    record: Record,
    segment: Segment,
    *,
    name: str,
    severity: int,
    reaction: int,
    since: int,
    gone: bool = False,
) -> None:
    message = record.message
    what = concept(message, message.field(segment, 3), where=f"{name}-3")
    if not what.said:
        record.turn_away(f"{name}-3", reasons.NO_CONTENT)
        return
    place, key = f"{name}[{record.ordinal}]", f"allergy {what.name}"
    if gone:
        record.retract(Kind.OBSERVATION, place, key)
        return
    said = [message.text(raw).strip() for raw in message.repetitions(segment, reaction)]
    start = record.time(segment, since, f"{name}-{since}")
    if start is None and name == "IAM":
        start = record.time(segment, 13, "IAM-13")
    record.add(
        Kind.OBSERVATION,
        place,
        key,
        start=start or record.happened or record.sent,
        concept=what,
        value_text="; ".join(one for one in said if one) or None,
        details=details(
            type="allergy",
            category=message.first(segment, 2),
            criticality=message.first(segment, severity),
        ),
    )
