"""FHIR resources and HL7 v2 messages, field by field by the table: a raw export in, one that may pass out.

What stays is as well formed as it was; what the table does not name is left out (FHIR) or emptied (HL7 v2)
and counted. A resource or message whose patient is not known loses all that hangs on a patient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from deid.structured import Action, Rules, Source, rules_of
from deid.structured_tables import created
from deid.structured_values import Cleaner, Patient, Tally, Unfit

_PATIENT_REFERENCES = ("subject", "patient", "beneficiary")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}\Z")
_NUMBER_TYPES = (int, float)
_WORDS_OF_A_CODE = frozenset({2, 5, 9})  # CE and CWE: text, alternate text, original text


def clean_fhir(
    source: Path, target: Path, cleaner: Cleaner, *, done: Callable[[int], None] = lambda lines: None
) -> Tally:
    """Write an NDJSON of resources without identity to `target` (0600, not there before).

    Raises: ValueError naming the line that is no JSON object; OSError.
    """
    tally = Tally()
    with source.open(encoding="utf-8") as file, created(target) as out:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                resource = json.loads(line)
            except ValueError:
                raise ValueError(f"line {number} is not JSON") from None
            if not isinstance(resource, dict):
                raise ValueError(f"line {number} is no resource")
            cleaned = clean_resource(resource, cleaner, tally)
            if cleaned is not None:
                out.write(json.dumps(cleaned, ensure_ascii=False) + "\n")
            if number % 500 == 0:
                done(number)
    return tally


def clean_resource(resource: dict[str, Any], cleaner: Cleaner, tally: Tally) -> dict[str, Any] | None:
    """Return what may pass of a resource; None if nothing but its type and id would."""
    kind = str(resource.get("resourceType", ""))
    if kind == "Bundle":
        entries = [
            {"resource": cleaned}
            for entry in resource.get("entry") or []
            if isinstance(entry, dict)
            and isinstance(entry.get("resource"), dict)
            and (cleaned := clean_resource(entry["resource"], cleaner, tally)) is not None
        ]
        return {"resourceType": "Bundle", "type": "collection", "entry": entries}
    patient = _patient_of(resource, cleaner)
    cleaned = _cleaned(resource, kind, kind, rules_of(Source.FHIR), cleaner, patient, tally)
    return cleaned if isinstance(cleaned, dict) and cleaned.keys() - {"resourceType", "id"} else None


def _patient_of(resource: dict[str, Any], cleaner: Cleaner) -> Patient | None:
    if resource.get("resourceType") == "Patient":
        return cleaner.patient(str(resource["id"])) if resource.get("id") else None
    for name in _PATIENT_REFERENCES:
        reference = resource.get(name)
        target = reference.get("reference") if isinstance(reference, dict) else None
        found = re.fullmatch(r"(?:.*/)?Patient/([^/|#]+)(?:/_history/.*)?", str(target or ""))
        if found:
            return cleaner.patient(found[1])
    return None


def _cleaned(
    value: Any, path: str, kind: str, rules: Rules, cleaner: Cleaner, patient: Patient | None, tally: Tally
) -> Any:
    """What may pass of an element; None if nothing may."""
    if isinstance(value, dict):
        inside = str(value.get("resourceType", ""))
        base = inside if inside and path != kind else path  # a contained resource has names of its own
        parts = {
            key: cleaned
            for key, part in value.items()
            if not key.startswith("_")  # extensions of primitives: nothing that is read
            and (cleaned := _cleaned(part, f"{base}.{key}", kind, rules, cleaner, patient, tally)) is not None
        }
        return parts or None
    if isinstance(value, list):
        kept = [_cleaned(one, path, kind, rules, cleaner, patient, tally) for one in value]
        return [one for one in kept if one is not None] or None
    return _leaf(value, path, rules, cleaner, patient, tally)


def _leaf(
    value: Any, path: str, rules: Rules, cleaner: Cleaner, patient: Patient | None, tally: Tally
) -> Any:
    rule = rules.of(path)
    if rule is None:
        tally.unknown[path] += 1
        return None
    if rule.action is Action.DROP:
        tally.dropped[path, "by-rule"] += 1
        return None
    if value is None or isinstance(value, bool) or rule.action is Action.KEEP:
        tally.passed[path] += 1
        return value
    try:
        made = cleaner.value(rule.action, str(value), patient)
    except Unfit as unfit:
        tally.dropped[path, unfit.reason] += 1
        return None
    tally.passed[path] += 1
    return float(made) if isinstance(value, _NUMBER_TYPES) and rule.action is Action.AGE else made


def clean_hl7v2(
    source: Path, target: Path, cleaner: Cleaner, *, done: Callable[[int], None] = lambda messages: None
) -> Tally:
    """Write a file of HL7 v2 messages without identity to `target` (0600, not there before).

    Raises: ValueError for a file that is not UTF-8: no name is mangled into something that is not found.
    """
    tally = Tally()
    try:
        text = source.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError(f"{source.name} is not UTF-8") from None
    text = text.replace("\r\n", "\r").replace("\n", "\r")
    with created(target) as out:
        for number, message in enumerate(_messages(text), 1):
            out.write(clean_message(message, cleaner, tally) + "\r")
            if number % 500 == 0:
                done(number)
    return tally


def _messages(text: str) -> Iterator[str]:
    """The messages of a file, without the block marks of MLLP and without batch headers."""
    lines: list[str] = []
    for line in re.split(r"[\r\x0b\x1c]+", text):
        if line.startswith("MSH") and lines:
            yield "\r".join(lines)
            lines = []
        if line and line[:3] not in ("FHS", "BHS", "BTS", "FTS"):
            lines.append(line)
    if lines:
        yield "\r".join(lines)


def clean_message(message: str, cleaner: Cleaner, tally: Tally) -> str:
    """Return a message with every field emptied that may not pass."""
    segments = [line for line in message.split("\r") if line]
    if not segments or not segments[0].startswith("MSH") or len(segments[0]) < 8:
        tally.unknown["message"] += 1
        return ""
    field_sign, signs = segments[0][3], segments[0][4:8]
    patient = _owner(segments, field_sign, signs, cleaner)
    cleaned = []
    for line in segments:
        fields = line.split(field_sign)
        name = fields[0]
        if not _SEGMENT.match(name):
            tally.unknown["segment"] += 1  # what is no name of a segment may be anything
            continue
        first = 1
        if name == "MSH":  # its first field is the separator
            fields.insert(1, field_sign)
            first = 3
        made = [
            _field(name, number, raw, signs, cleaner, patient, tally) if number >= first else raw
            for number, raw in enumerate(fields)
            if number
        ]
        if name == "MSH":
            cleaned.append(f"MSH{field_sign}" + field_sign.join(made[1:]))
        elif any(made):
            cleaned.append(field_sign.join([name, *made]).rstrip(field_sign))
    return "\r".join(cleaned)


def _owner(segments: Iterable[str], field_sign: str, signs: str, cleaner: Cleaner) -> Patient | None:
    """Whose message it is: the first id of PID-3."""
    for line in segments:
        if line.startswith("PID"):
            fields = line.split(field_sign)
            own = fields[3].split(signs[1])[0].split(signs[0])[0].strip() if len(fields) > 3 else ""
            return cleaner.patient(own) if own else None
    return None


def _field(
    name: str, number: int, raw: str, signs: str, cleaner: Cleaner, patient: Patient | None, tally: Tally
) -> str:
    """What may pass of one field: of all its repetitions, by the field's rule or by its components' rules."""
    if not raw:
        return raw
    rules, where = rules_of(Source.HL7V2), f"{name}-{number}"
    rule = rules.of(where)
    component, repetition = signs[0], signs[1]
    if rule is not None and rule.action is Action.CODED:
        return repetition.join(
            component.join(
                _made(
                    Action.TEXT if place in _WORDS_OF_A_CODE else Action.KEEP,
                    part,
                    where,
                    cleaner,
                    patient,
                    tally,
                )
                for place, part in enumerate(one.split(component), 1)
            )
            for one in raw.split(repetition)
        )
    if rule is not None:
        whole = rule.action in (Action.KEEP, Action.TEXT, Action.VALUE)
        # of ids and dates the first component says it, the others say who gave it
        parts = [raw] if whole else [one.split(component)[0] for one in raw.split(repetition)]
        return repetition.join(_made(rule.action, one, where, cleaner, patient, tally) for one in parts)
    repeated = []
    for one in raw.split(repetition):
        made = []
        for place, part in enumerate(one.split(component), 1):
            inner = rules.of(f"{where}.{place}")
            if inner is None:
                tally.unknown[where] += bool(part)
                made.append("")
            else:
                made.append(_made(inner.action, part, f"{where}.{place}", cleaner, patient, tally))
        repeated.append(component.join(made).rstrip(component))
    return repetition.join(repeated).rstrip(repetition)


def _made(
    action: Action, raw: str, where: str, cleaner: Cleaner, patient: Patient | None, tally: Tally
) -> str:
    if not raw:
        return ""
    if action is Action.DROP:
        tally.dropped[where, "by-rule"] += 1
        return ""
    try:
        made = cleaner.value(action, raw, patient)
    except Unfit as unfit:
        tally.dropped[where, unfit.reason] += 1
        return ""
    tally.passed[where] += 1
    return made
