"""How well identity was found, against texts in which people marked it.

Three levels, because each hides something: **characters** (what share of identity is gone, what share of the
rest went with it), **tokens** (runs of letters and digits: half a name is a leak), **entities** (a mark is
found if no letter or digit of it is left; a bracket that stays before a telephone number opens nothing).
Characters count all of a mark, spaces too. Neutral spans are not scored anywhere. Every share has a 95 %
interval; characters, tokens and entities of one document depend on each other, so documents are resampled,
not characters.

Recall alone is gameable (remove everything) and so is precision; read `char_recall` with `over_redaction`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.gold_formats import GoldDocument, GoldSpan
from deid.spans import Category, Span

RESAMPLES = 1_000  # the ends of a 95 % interval move by about a tenth of its width between two runs
_TOKEN = re.compile(r"[^\W_]+")
_CORE = {  # the groups that the floors are stated for
    "names": (Category.NAME,),
    "ids": (
        Category.SSN, Category.MRN, Category.PLAN_ID, Category.ACCOUNT, Category.LICENSE, Category.VEHICLE,
        Category.DEVICE, Category.BIOMETRIC, Category.ID,
    ),
    "contacts": (Category.PHONE, Category.EMAIL, Category.URL, Category.IP),
    "dates": (Category.DATE, Category.AGE),
    "addresses": (Category.ADDRESS,),
}  # fmt: skip
GROUPS: Mapping[str, tuple[Category, ...]] = _CORE | {
    "facilities": (Category.HOSPITAL, Category.ORGANIZATION),
    "professions": (Category.PROFESSION,),
}
CORE = frozenset(category for group in _CORE.values() for category in group)


@dataclass(frozen=True, slots=True)
class Share:
    """`part` of `whole`, with the ends of a 95 % interval; None where the whole is empty."""

    part: int
    whole: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None


@dataclass(frozen=True, slots=True)
class Leak:
    """A mark of which letters or digits are left. `left` are the pieces that were not found."""

    document: str
    start: int
    end: int
    category: Category
    label: str
    left: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """Whether nothing of it was found."""
        return self.left == ((self.start, self.end),)


@dataclass(frozen=True, slots=True)
class Excess:
    """A finding, or a piece of one, that is not identity."""

    document: str
    start: int
    end: int
    category: Category
    found_by: str


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """One kind of identifier. Recalls are over the marks of this kind, found as whatever kind.

    Precisions are over the findings of this kind that fall on marked or on plain text, of whatever mark.
    """

    char_recall: Share
    token_recall: Share
    entity_recall: Share
    char_precision: Share
    token_precision: Share
    entity_precision: Share  # findings that touch a mark
    right_kind: Share  # of the found marks, those found as this kind


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one comparison. Holds places and counts, no text."""

    documents: int
    characters: int
    char_recall: Share
    core_char_recall: Share  # of names, ids, contacts, dates and addresses
    over_redaction: Share  # of the characters that are not identity, those removed
    char_precision: Share
    token_recall: Share
    token_precision: Share
    entity_recall: Share
    entity_precision: Share
    fully_masked_documents: Share  # of those with identity
    documents_without_identity_touched: Share
    neutral_touched: Share  # of neutral spans; not a fault, but worth knowing
    by_group: Mapping[str, Share]  # character recall
    by_category: Mapping[Category, CategoryReport]
    by_label: Mapping[str, Share]  # entity recall by the set's own labels
    leaks: tuple[Leak, ...]
    excess: tuple[Excess, ...]
    unknown_labels: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values: each share as a number, its interval under `intervals`."""
        names = (
            "char_recall", "core_char_recall", "over_redaction", "char_precision", "token_recall",
            "token_precision", "entity_recall", "entity_precision", "fully_masked_documents",
            "documents_without_identity_touched", "neutral_touched",
        )  # fmt: skip
        shares: dict[str, Share] = {name: getattr(self, name) for name in names}
        masked = shares["fully_masked_documents"]
        return {
            "documents": self.documents,
            "characters": self.characters,
            **{name: share.value for name, share in shares.items()},
            "leaked_documents": masked.whole - masked.part,
            "leaked_document_rate": None if masked.value is None else 1 - masked.value,
            "intervals": {name: [share.low, share.high] for name, share in shares.items()},
            "by_group": {name: _plain(share) for name, share in self.by_group.items()},
            "by_category": {
                category.value: {
                    name: _plain(getattr(found, name)) for name in CategoryReport.__dataclass_fields__
                }
                for category, found in self.by_category.items()
            },
            "by_label": {label: _plain(share) for label, share in self.by_label.items()},
            "unknown_labels": list(self.unknown_labels),
        }


def score(
    gold: Sequence[GoldDocument],
    predicted: Sequence[Sequence[Span]],
    *,
    rng: np.random.Generator | None = None,
) -> Report:
    """Return how well `predicted` finds what `gold` marks.

    Args:
        predicted: per document of `gold`, in order; spans may overlap.
        rng: resamples documents for the intervals. By default one with a fixed seed, so that the same input
            gives the same report.
    Raises: ValueError if the two have different lengths, or a span ends beyond its text.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} documents, {len(predicted)} lists of findings")
    tallies = [_tally(document, spans) for document, spans in zip(gold, predicted, strict=True)]
    shares = _Shares(tallies, rng or np.random.default_rng(20_141_127))
    kinds = [kind for kind in Category if shares.total(("marks", kind)) or shares.total(("findings", kind))]
    named = sorted({span.label for document in gold for span in document.spans})
    return Report(
        documents=len(gold),
        characters=sum(len(document.text) for document in gold),
        char_recall=shares.of("gold chars found", "gold chars"),
        core_char_recall=shares.of_sum(
            [("chars found", kind) for kind in CORE], [("chars", kind) for kind in CORE]
        ),
        over_redaction=shares.of("plain chars found", "plain chars"),
        char_precision=shares.of("gold chars found", "found chars"),
        token_recall=shares.of("gold tokens found", "gold tokens"),
        token_precision=shares.of("found tokens gold", "found tokens"),
        entity_recall=shares.of("marks found", "marks"),
        entity_precision=shares.of("findings on marks", "findings"),
        fully_masked_documents=shares.of("masked", "with identity", wilson=True),
        documents_without_identity_touched=shares.of("clean touched", "clean", wilson=True),
        neutral_touched=shares.of("neutral touched", "neutral"),
        by_group={
            name: shares.of_sum(
                [("chars found", kind) for kind in group], [("chars", kind) for kind in group]
            )
            for name, group in GROUPS.items()
        },
        by_category={kind: _of_category(shares, kind) for kind in kinds},
        by_label={label: shares.of(("label found", label), ("label", label)) for label in named},
        leaks=tuple(leak for tally in tallies for leak in tally.leaks),
        excess=tuple(piece for tally in tallies for piece in tally.excess),
        unknown_labels=tuple(sorted({label for document in gold for label in document.unknown_labels})),
    )


def _of_category(shares: _Shares, kind: Category) -> CategoryReport:
    return CategoryReport(
        char_recall=shares.of(("chars found", kind), ("chars", kind)),
        token_recall=shares.of(("tokens found", kind), ("tokens", kind)),
        entity_recall=shares.of(("marks found", kind), ("marks", kind)),
        char_precision=shares.of(("found chars gold", kind), ("found chars", kind)),
        token_precision=shares.of(("found tokens gold", kind), ("found tokens", kind)),
        entity_precision=shares.of(("findings on marks", kind), ("findings", kind)),
        right_kind=shares.of(("right kind", kind), ("marks found", kind)),
    )


@dataclass(slots=True)
class _Tally:
    """What one document adds to each count."""

    counts: dict[Any, int] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    excess: list[Excess] = field(default_factory=list)

    def add(self, name: Any, number: int | np.integer[Any]) -> None:
        self.counts[name] = self.counts.get(name, 0) + int(number)


def _tally(document: GoldDocument, spans: Sequence[Span]) -> _Tally:
    size = len(document.text)
    if any(span.end > size for span in spans):
        raise ValueError(f"document {document.id}: a finding ends beyond the text")
    gold, found, neutral = (np.zeros(size, dtype=bool) for _ in range(3))
    for mark in document.spans:
        gold[mark.start : mark.end] = True
    for start, end in document.neutral:
        neutral[start:end] = True
    for span in spans:
        found[span.start : span.end] = True
    neutral &= ~gold
    tokens = np.array([match.span() for match in _TOKEN.finditer(document.text)], dtype=np.int64)
    tokens = tokens.reshape(-1, 2)
    word = np.zeros(size, dtype=bool)
    for start, end in tokens:
        word[start:end] = True
    tally = _Tally()
    _characters(tally, gold, found, neutral)
    _tokens(tally, tokens, gold, found, neutral)
    for mark in document.spans:
        _mark(tally, document.id, mark, spans, found, word)
    for span in spans:
        _finding(tally, document.id, span, gold, neutral, word)
    touched = sum(bool(found[start:end].any()) for start, end in document.neutral)
    tally.add("neutral", len(document.neutral))
    tally.add("neutral touched", touched)
    if document.spans:
        tally.add("with identity", 1)
        tally.add("masked", not tally.leaks)
    else:
        tally.add("clean", 1)
        tally.add("clean touched", bool((found & ~neutral).any()))
    return tally


def _characters(
    tally: _Tally,
    gold: NDArray[np.bool_],
    found: NDArray[np.bool_],
    neutral: NDArray[np.bool_],
) -> None:
    plain = ~gold & ~neutral
    tally.add("gold chars", gold.sum())
    tally.add("gold chars found", (gold & found).sum())
    tally.add("plain chars", plain.sum())
    tally.add("plain chars found", (plain & found).sum())
    tally.add("found chars", (found & ~neutral).sum())


def _tokens(
    tally: _Tally,
    tokens: NDArray[np.int64],
    gold: NDArray[np.bool_],
    found: NDArray[np.bool_],
    neutral: NDArray[np.bool_],
) -> None:
    """A token is gold, or found, by any character; a gold one is lost unless all of its gold is found."""
    if not len(tokens):
        return
    starts, ends = tokens[:, 0], tokens[:, 1]
    is_gold = _within(gold, starts, ends) > 0
    is_found = _within(found, starts, ends) > 0
    counts = is_gold | (_within(neutral, starts, ends) == 0)
    tally.add("gold tokens", is_gold.sum())
    tally.add("gold tokens found", (is_gold & (_within(gold & ~found, starts, ends) == 0)).sum())
    tally.add("found tokens", (is_found & counts).sum())
    tally.add("found tokens gold", (is_found & is_gold).sum())


def _within(mask: NDArray[np.bool_], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many characters of the mask lie in each piece."""
    until = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
    return until[ends] - until[starts]


def _mark(
    tally: _Tally,
    document: str,
    mark: GoldSpan,
    spans: Sequence[Span],
    found: NDArray[np.bool_],
    word: NDArray[np.bool_],
) -> None:
    """Count one mark, and note what is left of it."""
    kind, here = mark.category, slice(mark.start, mark.end)
    tally.add(("chars", kind), mark.end - mark.start)
    tally.add(("chars found", kind), found[here].sum())
    pieces = _runs(word[here])
    lost = [bool((~found[here][start:end]).any()) for start, end in pieces]
    tally.add(("tokens", kind), len(pieces))
    tally.add(("tokens found", kind), len(pieces) - sum(lost))
    # a mark without a letter or digit is found by any finding on it
    whole = not any(lost) if pieces else bool(found[here].any())
    for name in ("marks", ("marks", kind), ("label", mark.label)):
        tally.add(name, 1)
    for name in ("marks found", ("marks found", kind), ("label found", mark.label)):
        tally.add(name, whole)
    if whole:
        tally.add(
            ("right kind", kind),
            any(span.category is kind and span.start < mark.end and mark.start < span.end for span in spans),
        )
    else:
        left = tuple((mark.start + start, mark.start + end) for start, end in _runs(~found[here]))
        tally.leaks.append(Leak(document, mark.start, mark.end, kind, mark.label, left))


def _finding(
    tally: _Tally,
    document: str,
    span: Span,
    gold: NDArray[np.bool_],
    neutral: NDArray[np.bool_],
    word: NDArray[np.bool_],
) -> None:
    """Count one finding, and note the pieces of it that took words which are not identity."""
    kind, here = span.category, slice(span.start, span.end)
    on_gold, counts = gold[here], ~neutral[here]
    tally.add(("found chars", kind), counts.sum())
    tally.add(("found chars gold", kind), on_gold.sum())
    for start, end in _runs(word[here]):
        if on_gold[start:end].any() or counts[start:end].all():
            tally.add(("found tokens", kind), 1)
            tally.add(("found tokens gold", kind), bool(on_gold[start:end].any()))
    if on_gold.any() or not neutral[here].any():
        for name in ("findings", ("findings", kind)):
            tally.add(name, 1)
        for name in ("findings on marks", ("findings on marks", kind)):
            tally.add(name, bool(on_gold.any()))
    for start, end in _runs(~on_gold & counts):
        if word[here][start:end].any():
            tally.excess.append(Excess(document, span.start + start, span.start + end, kind, span.found_by))


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where the mask is true, as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


class _Shares:
    """Sums over the documents, and over a thousand draws of as many documents."""

    def __init__(self, tallies: Sequence[_Tally], rng: np.random.Generator) -> None:
        names = sorted({name for tally in tallies for name in tally.counts}, key=str)
        self._column = {name: place for place, name in enumerate(names)}
        table = np.zeros((len(tallies), len(names)))
        for row, tally in enumerate(tallies):
            for name, count in tally.counts.items():
                table[row, self._column[name]] = count
        self._totals = table.sum(axis=0)
        drawn = (
            rng.multinomial(len(tallies), [1 / len(tallies)] * len(tallies), size=RESAMPLES)
            if tallies
            else None
        )
        self._draws = np.zeros((RESAMPLES, len(names))) if drawn is None else drawn @ table

    def total(self, name: Any) -> int:
        place = self._column.get(name)
        return 0 if place is None else int(self._totals[place])

    def of(self, part: Any, whole: Any, *, wilson: bool = False) -> Share:
        return self.of_sum([part], [whole], wilson=wilson)

    def of_sum(self, parts: Sequence[Any], wholes: Sequence[Any], *, wilson: bool = False) -> Share:
        part, whole = sum(map(self.total, parts)), sum(map(self.total, wholes))
        if not whole:
            return Share(part, whole, None, None)
        if wilson or part in (0, whole):  # resampling what never varies gives no interval
            return Share(part, whole, *wilson_interval(part, whole))
        above, below = self._drawn(parts), self._drawn(wholes)
        ratios = above[below > 0] / below[below > 0]
        low, high = np.quantile(ratios, [0.025, 0.975])
        return Share(part, whole, float(low), float(high))

    def _drawn(self, names: Sequence[Any]) -> NDArray[np.float64]:
        places = [self._column[name] for name in names if name in self._column]
        total: NDArray[np.float64] = self._draws[:, places].sum(axis=1)
        return total


def wilson_interval(part: int, whole: int) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval for `part` of `whole` (1 or more) independent trials.

    >>> [round(end, 3) for end in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    z = 1.959964  # the 97.5 % point of the normal distribution
    share = part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * np.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _plain(share: Share) -> dict[str, Any]:
    return {
        "value": share.value,
        "part": share.part,
        "whole": share.whole,
        "low": share.low,
        "high": share.high,
    }
