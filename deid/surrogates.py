"""Texts with identity replaced: by surrogates that read like the real thing, by tags, or by a bar.

Surrogates hide what a finder missed among what it replaced ("hiding in plain sight"; readers find about a
quarter of leaks behind them, so they are a second line and no licence to publish). They hang on one key per
patient (deid.vault): the same name, number or place of a patient is the same surrogate in each of their
texts, and the same name of another patient is another one. Without the key nothing of it can be computed.

Guarantees, with the spans as given: the same text, spans and key give the same result; no surrogate of a
name, place, number or contact is, or holds as a word, any identifier that the spans (or `known`) give; the
days between two full dates of a patient stay the same; what has a range set aside for fiction is drawn from
it, and an identifier with a check digit gets one that is wrong, so that no number opens somebody's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deid.spans import Category, Known, Span, merged
from deid.surrogates_contacts import email_like, ip_like, phone_like, url_like
from deid.surrogates_dates import DateShift, shifted_date
from deid.surrogates_draw import Draw, NothingFits, words_of
from deid.surrogates_names import name_like
from deid.surrogates_numbers import number_like, ssn_like
from deid.surrogates_places import address_like, organization_like
from deid.vault import PseudonymKey

BAR = "█████"  # of one length, because the length of a name says something about it
PROFESSIONS = ("teacher", "electrician", "accountant", "driver", "cook", "clerk", "carpenter", "librarian")


class Style(StrEnum):
    """What stands in the place of identity."""

    SURROGATE = "surrogate"
    TAG = "tag"  # [NAME]
    REDACT = "redact"  # a bar


@dataclass(frozen=True, slots=True)
class Replacement:
    """What to put in the place of identity, for the texts of one patient.

    `shift` moves their dates; None: dates become tags.
    """

    style: Style
    key: PseudonymKey | None = None
    shift: DateShift | None = None

    def __post_init__(self) -> None:
        if self.style is Style.SURROGATE and self.key is None:
            raise ValueError("surrogates hang on a key")


@dataclass(frozen=True, slots=True)
class Replaced:
    """A text without identity, and where in it the replacements stand (same order as the spans)."""

    text: str
    spans: tuple[Span, ...]

    def __repr__(self) -> str:
        return f"Replaced(<hidden>, {len(self.spans)} spans)"


def replaced(
    text: str, spans: Iterable[Span], replacement: Replacement, *, known: Sequence[Known] = ()
) -> Replaced:
    """Return `text` with each span replaced.

    Args:
        spans: where identity stands; overlapping ones become one.
        known: what else is known of the patient: no surrogate may happen to be it.
    Raises: ValueError if a span ends beyond the text.
    """
    ordered = merged(spans)
    if ordered and ordered[-1].end > len(text):
        raise ValueError("a span ends beyond the text")
    forbidden = words_of([text[span.start : span.end] for span in ordered if _is_worded(span.category)])
    forbidden |= words_of([one.value for one in known])
    pieces: list[str] = []
    placed: list[Span] = []
    length = done = 0
    for span in ordered:
        before = text[done : span.start]
        new = _instead(text[span.start : span.end], span.category, replacement, forbidden)
        pieces += [before, new]
        length += len(before)
        placed.append(Span(length, length + len(new), span.category, span.score, span.found_by))
        length += len(new)
        done = span.end
    return Replaced("".join(pieces) + text[done:], tuple(placed))


def _is_worded(category: Category) -> bool:
    """Whether the words of an identifier of this kind may stand in no surrogate.

    A moved date may fall on another date of the patient; that a store holds both says nothing.
    """
    return category not in (Category.DATE, Category.AGE, Category.PROFESSION)


def _instead(value: str, category: Category, replacement: Replacement, forbidden: frozenset[str]) -> str:
    """What stands in the place of one identifier."""
    if replacement.style is Style.REDACT:
        return BAR
    tag = f"[{category.value.upper()}]"
    if replacement.style is Style.TAG or replacement.key is None:
        return tag
    if category is Category.DATE:
        return (shifted_date(value, replacement.shift) if replacement.shift else None) or tag
    if category is Category.AGE:
        return "90+"  # the one category of all ages over 89 (45 CFR 164.514(b)(2)(i)(C))
    try:
        new = _surrogate(value, category, Draw(replacement.key, forbidden))
    except NothingFits:
        return tag
    return tag if new == value else new


def _surrogate(value: str, category: Category, draw: Draw) -> str:
    match category:
        case Category.NAME:
            return name_like(value, draw)
        case Category.ADDRESS:
            return address_like(value, draw)
        case Category.HOSPITAL | Category.ORGANIZATION:
            return organization_like(value, draw)
        case Category.PHONE:
            return phone_like(value, draw)
        case Category.EMAIL:
            return email_like(value, draw)
        case Category.URL:
            return url_like(value, draw)
        case Category.IP:
            return ip_like(value, draw)
        case Category.SSN:
            return ssn_like(value, draw)
        case Category.PROFESSION:
            return draw.choice("profession", value.casefold(), PROFESSIONS)
        case _:
            return number_like(value, draw)
