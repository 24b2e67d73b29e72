"""Numbers that look like identity and are values: scores, ranges, hours, versions, years of books, codes of the public."""

from __future__ import annotations

import re

from deid.recognizers.dates import NUMERIC
from deid.recognizers.terms import Terms
from deid.spans import Category, Span

PUBLISHED_NEAR = 60  # characters to either side in which a word of publishing makes a year one of a book
SENTENCE_END = re.compile(r"[.;!?](?=\s|\Z)|\n")
PUBLIC_CODE = re.compile(
    r"(?:NCT\d{8}|PMC\d{6,8}|ISRCTN\d{6,9}|rs\d{3,12}|[NX][MPRG]_\d{6,9}(?:\.\d{1,2})?|ENS[TGP]\d{11}|[cgmp]\.[\w*+>_-]+)\Z"
)
VERSION_BEFORE = re.compile(r"(?:^|[\s(])[vV](?:\.|ersion)?\s?\Z")
NUMBERED_DAY = re.compile(r"(?:(?:hospital|post-?op|cycle) )?(?:[Dd]ay|DAY|[Ww]eek)\s?\d{0,3}")
TWO_NUMBERS = re.compile(r"(\d{1,3})/(\d{1,3})")
YEAR = re.compile(r"(?:[^\W\d_]+\.?,? (?:of )?)?(?:18|19|20)\d\d(?:[ ]?[-–][ ]?(?:18|19|20)\d\d)?")
ORDINAL = re.compile(r"(?:the )?\d{1,2}(?:st|nd|rd|th)?")
COUNTED = re.compile(
    r"(?:st|nd|rd|th)?[ ](?:business|floor|visit|dose|time|grade|rib|degree|cycle|percentile|trimester|edition|toe|digit|"
    r"finger|metatarsal|metacarpal|nerve|ventricle|intercostal|cranial|hospital|post)\b",
    re.IGNORECASE,
)
AMOUNT_BEHIND = re.compile(r"\s?(?:degrees|°|percent|%|bpm|mm|cm|kg|lbs|pounds|mg|ml|beats)", re.IGNORECASE)
SCORE = re.compile(r"\d{1,2}/(?:5|6|10|15|28|30)|\d{1,3}-\d/\d")
SINCE = re.compile(r"\b(?:since|until|diagnosed|dx|dx'd|moved|born|died)(?: in)? \Z", re.IGNORECASE)
ON_THAT_DAY = re.compile(r"\b(?:on|since|until|til|by|dated)[ ]\Z", re.IGNORECASE)
RANGE = re.compile(r"[(<>]?\d{1,3}(?:\.\d{1,3})?\s?-\s?\d{1,3}(?:\.\d{1,3})?\)?")
VALUE_BEFORE = re.compile(  # what a laboratory writes before a normal range: a unit, mostly
    r"(?:\d|[a-zµ%]/?(?:u|d|m|µ)?[lL]|/uL|%|[munp]?g|mmol|IU|fL|sec|ratio|range|Range|normal|goal|ref)[\s(:]{1,12}\Z"
)
HOURS = re.compile(
    r"(?:[01]?\d|2[0-3]):?[0-5]\d(?:\s?[AaPp]\.?[Mm]\.?)?(?:\s?-\s?(?:(?:[01]?\d|2[0-3]):?[0-5]?\d?))?"
)
AT_AN_HOUR = re.compile(r"(?:\b(?:at|by|until|till|around|since|@|~)|[@~])[ ]?\Z", re.IGNORECASE)
HOUR = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d")
CLOCK = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d")
DAY_BEFORE = re.compile(
    r"(?:\d[/-]\d{1,4}|\b(?:bedside|room|unit|seen|done|signed|pronounced))[ ]\Z", re.IGNORECASE
)
HOURS_BEFORE = re.compile(
    r"(?:\b(?:npn|note|shift|from|hours|hrs|time|am|pm|seen|in|out)\b\.?|[AaPp]\.?[Mm]\.?)[:\s-]{1,4}\Z|\d\d?:?\Z|-\s?\Z",
    re.IGNORECASE,
)
TIMES = re.compile(r"\d+(?:\.\d+)?\s?[xX×]\s?\d+(?:\.\d+)?")
MONEY = ("$", "€", "£")
LESS_SURE = 0.97  # of the tagger: up to here an hour at the beginning of a line is an hour


def numbered_term(text: str, span: Span, piece: str, tables: Terms) -> bool:
    begin = span.start
    while begin > 0 and not text[begin - 1].isspace() and text[begin - 1] not in "(=:#":
        begin -= 1  # "model SYS-9170": the tagger may see the figures only
    ahead = text[max(begin - 40, 0) : begin]
    whole_date = span.category is Category.DATE and NUMERIC.fullmatch(piece) is not None
    if (
        (tables.safe.search(ahead) and not (whole_date and ahead.rstrip(" :").casefold().endswith("doi")))
        or PUBLIC_CODE.match(piece)
        or PUBLIC_CODE.match(text[begin : span.end])
        or ahead.rstrip().endswith(MONEY)
        or text[begin] in MONEY
    ):
        return True
    if span.found_by == "tagger" and _measured(text, span, piece):
        return True
    if (
        VERSION_BEFORE.search(text[max(span.start - 10, 0) : span.start])
        and "." in text[span.start - 1 : span.end + 3]
    ):
        return True
    if span.category is Category.DATE and _no_day(text, span, piece, tables):
        return True
    if (
        span.found_by in ("tagger", "date")
        and not whole_date
        and re.fullmatch(r"[\d.,/-]+", piece)
        and tables.units.match(text, span.end)
    ):
        return span.category is not Category.AGE
    return False


def _no_day(text: str, span: Span, piece: str, tables: Terms) -> bool:
    """Say whether what looks like a date is a floor or a rib, the year of a book, or a score."""
    if NUMBERED_DAY.fullmatch(piece):
        return True
    two = TWO_NUMBERS.fullmatch(piece)
    if two is not None and (
        min(int(two[1]), int(two[2])) > 12 or piece in ("24/7", "20/20") or max(int(two[1]), int(two[2])) > 31
    ):
        return True
    if ORDINAL.fullmatch(piece) and COUNTED.match(text, span.end):
        return True
    if YEAR.fullmatch(piece) and not SINCE.search(text[max(span.start - 20, 0) : span.start]):
        ahead = SENTENCE_END.split(text[max(span.start - PUBLISHED_NEAR, 0) : span.start])[-1]
        behind = SENTENCE_END.split(text[span.end : span.end + PUBLISHED_NEAR])[0]
        if tables.published.search(f"{ahead} {behind}"):
            return True
    before = SENTENCE_END.split(text[max(span.start - 50, 0) : span.start])[-1]
    behind = SENTENCE_END.split(text[span.end : span.end + 16])[0]
    if ON_THAT_DAY.search(text[max(span.start - 8, 0) : span.start]):
        return False
    return SCORE.fullmatch(piece) is not None and (
        tables.scores.search(before) is not None or tables.scores.search(behind) is not None
    )


def _measured(text: str, span: Span, piece: str) -> bool:
    """Say whether a normal range, the settings of a machine or the hours of a shift stand there."""
    if span.category is Category.AGE:
        return AMOUNT_BEHIND.match(text, span.end) is not None
    before = text[max(span.start - 16, 0) : span.start]
    if RANGE.fullmatch(piece):
        return ("." in piece and span.category is not Category.DATE) or VALUE_BEFORE.search(
            before
        ) is not None
    if TIMES.fullmatch(piece):
        return True
    if HOUR.fullmatch(piece) and (
        AT_AN_HOUR.search(before)
        or (before.endswith("\n") and span.score < LESS_SURE and text[span.end : span.end + 1] == " ")
    ):
        return True
    if span.category is Category.DATE and CLOCK.fullmatch(piece.strip()):
        return True
    if HOUR.fullmatch(piece) and DAY_BEFORE.search(before):
        return True
    return HOURS.fullmatch(piece) is not None and HOURS_BEFORE.search(before) is not None
