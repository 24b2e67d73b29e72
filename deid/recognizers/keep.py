"""What looks like identity and is none: diseases and devices named after people, drugs, numbers of articles and
products, everyday words that the tagger took for a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded, read_list
from deid.recognizers.dates import NUMERIC
from deid.recognizers.page import Page
from deid.spans import DIRECT, Category, Span
from deid.tagger import ENGLISH_WORD, GIVEN_NAME, NAME_OR_PLACE, WELL_KNOWN_NAME, membership

NAMED = frozenset((Category.NAME, Category.HOSPITAL, Category.ORGANIZATION, Category.ADDRESS))
NUMBERED = frozenset((*DIRECT, Category.DATE, Category.AGE))
FOUND_BY_LIKENESS = frozenset(("tagger", "again", "list", "degree", "shape", "date", "label", "address"))
PUBLISHED_NEAR = 60  # characters to either side in which a word of publishing makes a year one of a book
SENTENCE_END = re.compile(r"[.;!?](?=\s|\Z)|\n")
PUBLIC_CODE = re.compile(
    r"(?:NCT\d{8}|PMC\d{6,8}|ISRCTN\d{6,9}|rs\d{3,12}|[NX][MPRG]_\d{6,9}(?:\.\d{1,2})?|ENS[TGP]\d{11}|[cgmp]\.[\w*+>_-]+)\Z"
)
VERSION_BEFORE = re.compile(r"(?:^|[\s(])[vV](?:\.|ersion)?\s?\Z")
NUMBERED_DAY = re.compile(r"(?:(?:hospital|post-?op|cycle) )?(?:[Dd]ay|DAY|[Ww]eek)\s?\d{0,3}")
TWO_NUMBERS = re.compile(r"(\d{1,3})/(\d{1,3})")
SHORT_WORD = 5  # letters of what in capitals is rather a short form than a name
PARTS_OF_HOLIDAYS = frozenset(
    ("day", "eve", "new", "year", "years", "good", "super", "bowl", "the", "box", "ash")
)
YEAR = re.compile(r"(?:[^\W\d_]+\.?,? (?:of )?)?(?:18|19|20)\d\d(?:[ ]?[-–][ ]?(?:18|19|20)\d\d)?")
ORDINAL = re.compile(r"(?:the )?\d{1,2}(?:st|nd|rd|th)?")
COUNTED = re.compile(
    r"(?:st|nd|rd|th)?[ ](?:business|floor|visit|dose|time|grade|rib|degree|cycle|percentile|trimester|edition|toe|digit|"
    r"finger|metatarsal|metacarpal|nerve|ventricle|intercostal|cranial|hospital|post)\b",
    re.IGNORECASE,
)
OF_THE_CALENDAR = re.compile(  # "the last Sunday before Labor Day": of every year
    r"\b(?:first|second|third|fourth|last) \w+day (?:before|after|of|in) \Z", re.IGNORECASE
)
AMOUNT_BEHIND = re.compile(r"\s?(?:degrees|°|percent|%|bpm|mm|cm|kg|lbs|pounds|mg|ml|beats)", re.IGNORECASE)
ON_A_DAY = re.compile(
    r"\b(?:on|here|this|next|last|by|until|til|since|every|coming|seen)[ ]\Z", re.IGNORECASE
)
IN_A_PLACE = re.compile(r"\b(?:in|from|to|near|of|at)[ ]\Z|,[ ]\Z")
RULED_OUT = re.compile(
    r"(?:\br/o|\bh/o|\bw/o|\bhx(?: of)?|\bhistory of|\bc/w|\bs/p|\bknown)[ ]\Z", re.IGNORECASE
)
SEX_AND_AGE = re.compile(r"\d{1,3}\s?[MFmf]")
SCORE = re.compile(r"\d{1,2}/(?:5|6|10|15|28|30)|\d{1,3}-\d/\d")
SINCE = re.compile(r"\b(?:since|until|diagnosed|dx|dx'd|moved|born|died)(?: in)? \Z", re.IGNORECASE)
RANGE = re.compile(r"[(<>]?\d{1,3}(?:\.\d{1,3})?\s?-\s?\d{1,3}(?:\.\d{1,3})?\)?")
VALUE_BEFORE = re.compile(  # what a laboratory writes before a normal range: a unit, mostly
    r"(?:\d|[a-zµ%]/?(?:u|d|m|µ)?[lL]|/uL|%|[munp]?g|mmol|IU|fL|sec|ratio|range|Range|normal|goal|ref)[\s(:]{1,12}\Z"
)
HOURS = re.compile(
    r"(?:[01]?\d|2[0-3]):?[0-5]\d(?:\s?[AaPp]\.?[Mm]\.?)?(?:\s?-\s?(?:(?:[01]?\d|2[0-3]):?[0-5]?\d?))?"
)
AT_AN_HOUR = re.compile(r"(?:\b(?:at|by|until|till|around|since|@|~)|[@~])[ ]?\Z", re.IGNORECASE)
HOUR = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d")
HOURS_BEFORE = re.compile(
    r"(?:\b(?:npn|note|shift|from|hours|hrs|time|am|pm|seen|in|out)\b\.?|[AaPp]\.?[Mm]\.?)[:\s-]{1,4}\Z|\d\d?:?\Z|-\s?\Z",
    re.IGNORECASE,
)
TIMES = re.compile(r"\d+(?:\.\d+)?\s?[xX×]\s?\d+(?:\.\d+)?")
MONEY = ("$", "€", "£")
JOINED_BEFORE = re.compile(r"(?:[^\W\d_]+-){1,2}\Z")
JOINED_BEHIND = re.compile(r"(?:-[^\W\d_]+){0,2}")
SPACED = re.compile(r"[^\W\d_](?: [^\W\d_])+")
WORDS = re.compile(r"[^\W\d_]+")
SURE_OF_PLACE = 0.9  # of the tagger, that an English word after "in" is a place
HARDLY_SURE = 0.8  # up to here a word that is somebody's family name, too, is the word
LESS_SURE = 0.97  # up to here an ordinary word that the tagger takes for a name is taken for the word


@dataclass(frozen=True)
class _Tables:
    """What the rules ask of a language."""

    eponyms: frozenset[str]
    heads: frozenset[str]
    pairs: frozenset[str]
    drugs: frozenset[str]
    never: frozenset[str]
    labels: frozenset[str]
    short: frozenset[str]
    clinical: frozenset[str]
    calendar: frozenset[str]
    lists: dict[str, int]
    safe: re.Pattern[str]
    published: re.Pattern[str]
    units: re.Pattern[str]
    scores: re.Pattern[str]
    products: frozenset[str]
    place_heads: frozenset[str]


@cache
def _tables(language: Language) -> _Tables:
    def words(*tables: str) -> frozenset[str]:
        return frozenset(folded(word) for table in tables for word in language.words(table))

    after = r"(?:[\s-]*(?:code|number|no\.?|id|version|lot|index|rev(?:ision)?))?[\s:#.=-]{0,3}\Z"
    units = language.either("measures") or "(?!)"
    return _Tables(
        eponyms=words("eponyms"),
        heads=words("eponym_heads"),
        pairs=words("eponym_pairs"),
        drugs=words("drugs"),
        never=words("never_names"),
        labels=words("not_names", "staff", "lead_words"),
        short=frozenset(language.words("abbreviations")),
        clinical=words("clinical_words") | frozenset(read_list("terms") if language.code == "en" else ()),
        calendar=frozenset(
            part
            for phrase in words("months", "months_short", "weekdays", "holidays")
            for part in (phrase, *re.split(r"[ ']+", phrase))
            if len(part) > 2 and part not in PARTS_OF_HOLIDAYS
        ),
        lists=membership(language),
        safe=re.compile(
            rf"(?<![\w-])(?:{language.either('safe_number_labels') or '(?!)'}){after}", re.IGNORECASE
        ),
        published=re.compile(rf"(?<!\w)(?:{language.either('published') or '(?!)'})(?!\w)", re.IGNORECASE),
        units=re.compile(rf"[ ]?(?:{units}|/(?:min|hr|hpf|day|{units}))(?!\w|/[ow]\b)", re.IGNORECASE),
        scores=re.compile(rf"(?<!\w)(?:{language.either('scores') or '(?!)'})(?!\w)", re.IGNORECASE),
        products=frozenset(
            part for phrase in words("products") for part in WORDS.findall(phrase) if len(part) > 1
        ),
        place_heads=words("place_heads"),
    )


def without_terms(page: Page, spans: Sequence[Span]) -> list[Span]:
    """Return the spans less those that are terms of medicine or numbers of no person. Never drops what is known."""
    return [span for span in spans if span.found_by not in FOUND_BY_LIKENESS or not _term(page, span)]


def _term(page: Page, span: Span) -> bool:
    tables = _tables(page.language)
    piece = page.text[span.start : span.end]
    if span.found_by == "tagger" and _misshapen(span.category, piece):
        return True
    if span.category in NAMED:
        return _named_term(page.text, span, piece, tables)
    if (
        span.category is Category.DATE
        and span.found_by in ("tagger", "again")
        and not any(c.isdigit() for c in piece)
    ):
        words = [folded(word) for word in WORDS.findall(piece)]
        if OF_THE_CALENDAR.search(page.text[max(span.start - 30, 0) : span.start]):
            return True
        if piece in ("sun", "sat") and ON_A_DAY.search(page.text[max(span.start - 10, 0) : span.start]):
            return False
        return not any(word in tables.calendar for word in words) or piece in (
            "may",
            "mar",
            "sun",
            "sat",
            "May I",
            "fall",
        )
    if span.category in NUMBERED:
        return _numbered_term(page.text, span, piece, tables)
    return False


def _misshapen(category: Category, piece: str) -> bool:
    """Say whether a piece cannot be what the tagger takes it for."""
    digits = sum(c.isdigit() for c in piece)
    if category is Category.EMAIL:
        return "@" not in piece and "." not in piece
    if category in (Category.URL, Category.IP):
        return ("." not in piece and ":" not in piece) or (
            category is Category.IP and piece.count(".") < 2 and piece.count(":") < 2
        )
    if category is Category.NAME:
        return digits > 0 and not any(c.isalpha() for c in piece)
    if category is Category.PHONE:
        return digits < 4
    if category is Category.DATE:
        return piece.isdecimal() and len(piece) < 3
    return category in DIRECT and (digits == 0 or len(piece) < 3 or SEX_AND_AGE.fullmatch(piece) is not None)


def _named_term(text: str, span: Span, piece: str, tables: _Tables) -> bool:
    written = [word for word in WORDS.findall(piece) if len(word) > 1]
    words = [folded(word) for word in written]
    if not words:
        if SPACED.fullmatch(piece) and span.found_by == "tagger":
            return True  # "N A M E:"
        return len(piece) < 3 and (span.category is not Category.ADDRESS or span.found_by == "tagger")
    if all(word in tables.drugs or word in tables.never for word in words):
        return True
    if span.found_by == "tagger" and all(word in tables.labels for word in words):
        return not _addressed(text, span.start)
    if span.found_by == "tagger" and (
        _product(text, span, words, tables) or _placed_term(text, span, piece, words, tables)
    ):
        return True
    if all(word in tables.short for word in written) and span.found_by == "tagger":
        return TITLE_OR_LABEL.search(text[max(span.start - 12, 0) : span.start]) is None
    if all(word in tables.clinical and not tables.lists.get(word, 0) & WELL_KNOWN_NAME for word in words):
        return True
    if _eponym(text, span, piece, words, tables):
        return True
    return (
        span.found_by == "tagger"
        and not any(c.isdigit() for c in piece)
        and _ordinary(text, span, written, words, tables)
    )


def _product(text: str, span: Span, words: Sequence[str], tables: _Tables) -> bool:
    """Say whether a contrast medium or a maker of devices stands there."""
    return (
        (all(word in tables.products for word in words) and span.category is not Category.NAME)
        or (
            len(words) == 1
            and words[0] in tables.products
            and not tables.lists.get(words[0], 0) & WELL_KNOWN_NAME
        )
        or (" ".join(words) in ("st jude", "boston scientific"))
    )


def _placed_term(text: str, span: Span, piece: str, words: Sequence[str], tables: _Tables) -> bool:
    """Say whether a place stands there in the name of a brace, a scale, a germ: "Milwaukee brace"."""
    following = [folded(word) for word in WORDS.findall(text[span.end : span.end + 24])][:1]
    return (words[-1] in tables.place_heads and len(words) > 1) or (
        bool(following)
        and following[0] in tables.place_heads
        and text[span.end : span.end + 1] == " "
        and "," not in piece
    )


def _eponym(text: str, span: Span, piece: str, words: Sequence[str], tables: _Tables) -> bool:
    """Say whether a disease, sign or device stands there that has its name from somebody."""
    if "-" in text[max(span.start - 1, 0) : span.end + 1]:
        low = max(span.start - 30, 0)
        before, behind = JOINED_BEFORE.search(text, low, span.start), JOINED_BEHIND.match(text, span.end)
        whole = f"{before.group() if before else ''}{piece}{behind.group() if behind else ''}"
        if folded(whole) in tables.pairs:
            return True
    if words[-1] in tables.heads and all(word in tables.eponyms or word in tables.heads for word in words):
        return True
    if all(word in tables.eponyms for word in words) and span.category is not Category.HOSPITAL:
        if RULED_OUT.search(text[max(span.start - 12, 0) : span.start]) and text[span.end : span.end + 1] in (
            "'",
            "’",
        ):
            return True
        if len(words) > 1 and "-" in piece:
            return True  # Guillain-Barré: nobody is called after both
        following = [
            folded(word) for word in WORDS.findall(text[span.end : span.end + 32]) if word.lower() != "s"
        ][:2]
        if following and (
            following[0] in tables.heads or (following[0] in tables.eponyms and following[-1] in tables.heads)
        ):
            return True
        if (
            len(words) == 1
            and span.found_by != "again"
            and not tables.lists.get(words[0], 0) & WELL_KNOWN_NAME
            and not _addressed(text, span.start)
        ):
            return True
    return False


def _ordinary(text: str, span: Span, written: Sequence[str], words: Sequence[str], tables: _Tables) -> bool:
    """Say whether the tagger took everyday words for a name: small letters in a line that has capitals, or one
    English word that hardly anyone is called, found without certainty."""
    if all(word.islower() for word in written):
        if any(tables.lists.get(word, 0) & ENGLISH_WORD for word in words) or not any(
            tables.lists.get(word, 0) & NAME_OR_PLACE for word in words
        ):
            start = text.rfind("\n", 0, span.start) + 1
            end = text.find("\n", span.end)
            return not text[start : end if end >= 0 else len(text)].islower()
        return span.score < LESS_SURE and not text[: span.end + 200].islower()
    if len(words) > 1 or span.score > LESS_SURE or _addressed(text, span.start):
        return False
    if (
        written[0].isupper()
        and len(written[0]) <= SHORT_WORD
        and not tables.lists.get(words[0], 0) & NAME_OR_PLACE
        and not _in_capitals(text, span)
    ):
        return True
    if (
        span.category is Category.ADDRESS
        and span.score > SURE_OF_PLACE
        and tables.lists.get(words[0], 0) & NAME_OR_PLACE
        and written[0][0].isupper()
        and IN_A_PLACE.search(text[max(span.start - 6, 0) : span.start])
    ):
        return False
    lists = tables.lists.get(words[0], 0)
    if not lists & ENGLISH_WORD:
        return False
    if not lists & WELL_KNOWN_NAME:
        return True
    # a family name that is a word stands alone after a title; a given name may elsewhere
    return span.category is Category.NAME and not lists & GIVEN_NAME and span.score < HARDLY_SURE


def _in_capitals(text: str, span: Span) -> bool:
    """Say whether the line is all in capitals."""
    start = text.rfind("\n", 0, span.start) + 1
    end = text.find("\n", span.end)
    return text[start : end if end >= 0 else len(text)].isupper()


def _numbered_term(text: str, span: Span, piece: str, tables: _Tables) -> bool:
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


def _no_day(text: str, span: Span, piece: str, tables: _Tables) -> bool:
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
    return HOURS.fullmatch(piece) is not None and HOURS_BEFORE.search(before) is not None


TITLE_OR_LABEL = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Drs|Prof|Miss|Nurse)\.?|:)\s*\Z")


def _addressed(text: str, start: int) -> bool:
    """Say whether a title or a label stands before."""
    return (
        re.search(
            r"(?:\b(?:Mr|Mrs|Ms|Dr|Drs|Prof|Miss|Nurse)\.?|:|by)\s*\Z", text[max(start - 12, 0) : start]
        )
        is not None
    )
