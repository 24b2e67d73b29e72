"""OBX: what is asked for, in which form the answer is written, and the answer."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_lexer import Delimiters, Message
from node.ingest.readers.hl7v2_record import Row, Segment
from node.ingest.readers.hl7v2_types import (
    NUMBER,
    REMEMBERED_CHARACTERS,
    Concept,
    compared,
    concept,
    number,
    reference_range,
    unit,
)

CODED = frozenset({"CE", "CWE", "CNE", "CF"})
TEXT = frozenset({"ST", "TX", "FT", "IS", "ID", "GTS", "SI", ""})
LONG_TEXT = frozenset({"TX", "FT"})
VALUES = TEXT | CODED | {"NM", "SN", "CQ", "MO", "CP"}
TIMES = frozenset({"DT", "TM", "TS", "DTM", "DR", "TQ"})
BINARIES = frozenset({"ED", "RP", "NA", "MA", "CD"})
IDENTITIES = frozenset(
    {"XPN", "XCN", "XAD", "XTN", "XON", "PN", "CN", "AD", "TN", "CX", "CK", "PPN", "EI", "HD", "PL", "EIP"}
)
LAST = 11  # OBX-11 is the last field of a form
KNOWN_LENGTH = 15  # digits of a number that needs no second look


class Form(NamedTuple):
    """All of an OBX but its value and its times: the same for every patient. Never changed."""

    what: Concept  # OBX-3
    name: str  # of the result within its order: OBX-3 and OBX-4
    kind: str  # OBX-2
    status: str  # OBX-11, "" if it is not said
    unit: str | None  # OBX-6
    low: float | None  # OBX-7
    high: float | None
    details: dict[str, str] | None  # OBX-8


def form(message: Message, segment: Segment) -> Form:
    """Return the form of an OBX."""
    said = segment if len(segment) > LAST else [*segment, *[""] * (LAST + 1 - len(segment))]
    parts = (*said[2:5], *said[6:9], said[LAST])
    parse = _form if sum(map(len, parts)) < REMEMBERED_CHARACTERS else _form.__wrapped__
    return parse(message.delimiters, message.encoding, *parts)


@lru_cache(maxsize=8192)  # a hospital's laboratory has some thousand tests
def _form(
    signs: Delimiters,
    encoding: str,
    kind: str,
    code: str,
    sub: str,
    measure: str,
    limits: str,
    flag: str,
    status: str,
) -> Form:
    fields = ["", kind, code, sub, measure, limits, flag, status]
    message = Message(signs, [], encoding)
    what = concept(message, message.field(fields, 2), where="OBX-3")
    low, high = reference_range(message.first(fields, 5))
    said = message.first(fields, 6)
    return Form(
        what,
        f"{what.name} {message.first(fields, 3)}",
        message.first(fields, 1).upper(),
        message.first(fields, 7).upper(),
        unit(message, message.field(fields, 4)),
        low,
        high,
        {"interpretation": said} if said else None,
    )


def refusal(kind: str) -> str:
    """Return why a value of this type is no value of a fact, "" if it is one."""
    if kind in VALUES:
        return ""
    if kind in TIMES:
        return reasons.VALUE_IS_TIME
    if kind in BINARIES:
        return reasons.BINARY
    if kind in IDENTITIES:
        return reasons.IDENTITY
    return reasons.VALUE_TYPE


def set_value(row: Row, message: Message, kind: str, raw: str) -> None:
    """Set a row's value to one repetition of OBX-5."""
    if kind == "NM" and len(raw) <= KNOWN_LENGTH and NUMBER.fullmatch(raw):
        row["value_number"] = float(raw)
    elif kind in CODED:
        value = concept(message, raw, where="OBX-5")
        row["value_codes"] = value.codings or None
        row["value_text"] = value.text
    elif kind == "SN":
        _structured(message.components(raw), row)
    elif kind in ("CQ", "MO", "CP"):
        _number_or_text(message.components(raw)[0], row)
    elif kind == "NM" or row["unit"]:
        _number_or_text(message.text(raw), row)
    else:
        row["value_text"] = message.text(raw).strip() or None


def _number_or_text(text: str, row: Row) -> None:
    if (found := compared(text)) is not None:
        row["value_operator"], row["value_number"] = found
    else:
        row["value_text"] = text.strip() or None


def _structured(parts: list[str], row: Row) -> None:
    """SN: comparator, number, separator, number. "^1^:^128" and "^2^-^4" are not one number."""
    said = [part.strip() for part in (*parts[:4], "", "", "")][:4]
    operator, first, separator, second = said
    value = number(first)
    if (
        value is not None
        and not second
        and separator in ("", "+")
        and operator in ("", "=", "<", "<=", ">", ">=")
    ):
        row["value_operator"] = None if operator in ("", "=") else operator
        row["value_number"] = value
        if separator:
            row["value_text"] = "".join(said)
    else:
        row["value_text"] = "".join(said) or None
