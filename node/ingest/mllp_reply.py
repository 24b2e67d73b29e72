"""What a listener answers to an HL7 v2 message: AA, AE or AR with MSA and ERR. Never a word of its content.

Original mode: one answer, which says that the message is stored. AE: repair it and send it again. AR: what is
wrong is not what it says; this receiver does not take such messages (200, 203), or cannot now (207).

Enhanced mode, which a sender asks for in MSH-15 and MSH-16: where MSH-15 wants an accept acknowledgement (AL,
of errors ER, of successes SU) CA, CE and CR say the same; where it is NE, MSH-16 says when AA, AE and AR are
wanted, and NE there too: never.

What a reply repeats is MSH-3 to MSH-6 (swapped), MSH-10, MSH-11 and MSH-12, to who sent them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from node.ingest.readers.hl7v2_lexer import VERSION, Delimiters, Malformed, decoded

ACCEPT, ERROR, REJECT = "AA", "AE", "AR"
ALWAYS, ON_ERROR, ON_SUCCESS, NEVER = "AL", "ER", "SU", "NE"  # table 0155
COMMIT = {ACCEPT: "CA", ERROR: "CE", REJECT: "CR"}
TEXTS = {
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    200: "Unsupported message type",
    203: "Unsupported version id",
    207: "Application internal error",
}
"""Table 0357."""
QUERIES = re.compile(r"Q[A-Z0-9]{2}")  # QBP, QRY, QSB: a listener has no answers
ECHOED = 250  # characters of a header field that a reply repeats
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FRAME_SIGNS = (b"\x0b", b"\x1c")
STRUCTURED_ERR = (2, 5)  # the version since which ERR has fields for place, code and severity
HEADER_FIELDS = 18


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a message can be stored, and what the reply needs of its header."""

    code: str
    error: int = 0  # of TEXTS; 0 if there is none
    place: str = ""  # "MSH-10"
    signs: str = "|^~\\&"
    header: tuple[str, ...] = ()  # MSH-1, MSH-2, ...

    def field(self, number: int) -> str:
        """Return a field of MSH as it may be repeated."""
        text = self.header[number - 1] if number <= len(self.header) else ""
        return CONTROL.sub("", text)[:ECHOED]


def judge(data: bytes) -> Verdict:
    """Return whether a message can be stored: header, version, kind and characters; not what it says."""
    if any(sign in data for sign in FRAME_SIGNS):
        return Verdict(ERROR, 102, "MSH-1")
    try:
        text, _ = decoded(data)
    except Malformed as error:
        return Verdict(ERROR, 102, error.field, *_header(data.decode("latin-1")))
    signs, header = _header(text)
    if not header:
        return Verdict(ERROR, 100, "MSH-1")
    verdict = Verdict(ACCEPT, 0, "", signs, header)
    kind = verdict.field(9).partition(signs[1])[0].strip()
    version = verdict.field(12).partition(signs[1])[0].strip()
    if not kind or not verdict.field(10).strip():
        return Verdict(ERROR, 101, "MSH-10" if kind else "MSH-9", signs, header)
    if version and not VERSION.fullmatch(version):
        return Verdict(REJECT, 203, "MSH-12", signs, header)
    if QUERIES.fullmatch(kind.upper()):
        return Verdict(REJECT, 200, "MSH-9", signs, header)
    return verdict


def _header(text: str) -> tuple[str, tuple[str, ...]]:
    if not text.startswith("MSH"):
        return "|^~\\&", ()
    try:
        signs = Delimiters.of(text)
    except Malformed:
        return "|^~\\&", ()
    line = re.split(r"[\r\n]", text[:8192], maxsplit=1)[0]
    fields = line[4:].split(signs.field)[:HEADER_FIELDS]
    whole = signs.field + signs.component + signs.repetition + signs.escape + signs.subcomponent
    return whole, (signs.field, *fields)


def failed(verdict: Verdict) -> Verdict:
    """Return the verdict on a message that is right but could not be stored now."""
    return Verdict(REJECT, 207, "", verdict.signs, verdict.header)


def code_of(verdict: Verdict) -> str | None:
    """Return what MSA-1 says to this sender, or None where they want no answer."""
    accept, application = (verdict.field(number).strip().upper() for number in (15, 16))
    wanted, code = application, verdict.code
    if accept in (ALWAYS, ON_ERROR, ON_SUCCESS):
        wanted, code = accept, COMMIT[verdict.code]
    elif accept != NEVER:
        return code
    good = verdict.code == ACCEPT
    silent = wanted == NEVER or (wanted == ON_ERROR and good) or (wanted == ON_SUCCESS and not good)
    return None if silent else code


def reply(verdict: Verdict, *, number: int, now: datetime) -> bytes:
    """Return the ACK. `number` is its own control id; `now` is UTC."""
    sign, component, repetition, escape, sub = tuple(verdict.signs)
    version = verdict.field(12).partition(component)[0] or "2.5"
    trigger = verdict.field(9).split(component)
    kind = component.join(["ACK", *([trigger[1]] if len(trigger) > 1 and trigger[1] else [])])
    header = sign.join(
        [
            "MSH",
            component + repetition + escape + sub,
            verdict.field(5),
            verdict.field(6),
            verdict.field(3),
            verdict.field(4),
            now.strftime("%Y%m%d%H%M%S") + "+0000",
            "",
            kind,
            f"FT{number}",
            verdict.field(11) or "P",
            version,
        ]
    )
    lines = [header, sign.join(["MSA", code_of(verdict) or verdict.code, verdict.field(10)])]
    if verdict.error:
        lines.append(_err(verdict, version))
    return ("\r".join(lines) + "\r").encode("utf-8", "replace")


def _err(verdict: Verdict, version: str) -> str:
    sign, component, _, _, sub = tuple(verdict.signs)
    segment, _, field = verdict.place.partition("-")
    place = component.join([segment, "1", field]) if segment else ""
    parts = version.split(".")
    known = tuple(int(part) for part in parts[:2] if part.isdecimal())
    words = [str(verdict.error), TEXTS[verdict.error], "HL70357"]
    if known >= STRUCTURED_ERR or len(known) < 2:
        return sign.join(["ERR", "", place, component.join(words), "E"])
    return sign.join(["ERR", component.join([place or component * 2, sub.join(words)])])
