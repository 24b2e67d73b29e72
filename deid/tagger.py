"""A small network that reads a text token by token and says what each token is part of.

Four convolutions over what a token looks like and which word lists it is in: it sees about fifteen tokens
to either side. It was trained on generated notes only (`python -m sim.notes.train`), so its weights hold no
one's text.

Guarantee: deterministic; the same text gives the same answer alone or among others. Never raises for a
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from deid.lexicon.language import Language
from deid.lexicon.lists import folded, read_list
from deid.spans import Category

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TOKEN = re.compile(r"[^\W\d_²³¹⁰-₟]+|\d+|\n|[^\w\s]|[_²³¹⁰-₟]")  # a raised or lowered figure is no letter
CATEGORIES = (
    Category.NAME, Category.DATE, Category.AGE, Category.ADDRESS, Category.HOSPITAL, Category.ORGANIZATION,
    Category.PHONE, Category.EMAIL, Category.URL, Category.IP, Category.SSN, Category.MRN, Category.PLAN_ID,
    Category.ACCOUNT, Category.LICENSE, Category.VEHICLE, Category.DEVICE, Category.BIOMETRIC,
    Category.ID, Category.PROFESSION,
)  # fmt: skip
CLASSES = 1 + 2 * len(CATEGORIES)  # 0 is outside; then begin and inside of each category
PREFIXES, SUFFIXES, SHAPES = 4096, 8192, 512  # rows of the hashed tables
DILATIONS = (1, 2, 4, 8)
WIDTH = 96
TYPE_LIMIT = 60_000  # distinct tokens kept with their projection: 23 MB; then forgotten and begun anew
GAP = 24  # empty tokens between two texts of one pass: more than the network sees to a side

LISTS = (
    "months", "months_short", "weekdays", "titles", "relations", "credentials", "staff", "streets",
    "street_heads", "street_tails", "flats", "hospitals", "companies", "labels_name", "labels_number",
    "labels_contact", "labels_date", "labels_place", "ages", "measures", "clinical", "seasons",
)  # fmt: skip
BITS = len(LISTS) + 14
_BASE = len(LISTS)  # after the tables of the language come the lists of names, places and words
WELL_KNOWN_NAME = (1 << _BASE) | (1 << (_BASE + 2)) | (1 << (_BASE + 3))  # among the commonest
GIVEN_NAME = 1 << _BASE  # among the commonest given names
ANY_GIVEN_NAME = 1 << (_BASE + 1)
A_PLACE = (1 << (_BASE + 6)) | (1 << (_BASE + 7)) | (1 << (_BASE + 8))
NAME_OR_PLACE = ((1 << 9) - 1) << _BASE
ENGLISH_WORD = 1 << (_BASE + 9)


@dataclass(frozen=True, slots=True)
class Token:
    """Where a token of a text stands."""

    start: int
    end: int


@cache
def membership(language: Language) -> dict[str, int]:
    """Return for each folded word the lists it is in, as bits."""
    bits: dict[str, int] = {}

    def mark(words: Sequence[str], bit: int) -> None:
        flag = 1 << bit
        for word in words:
            bits[word] = bits.get(word, 0) | flag

    for place, name in enumerate(LISTS):
        mark([folded(word) for word in language.words(name)], place)
    base = _BASE
    first = [folded(name) for name in read_list("first_names")]
    mark(first[:1500], base)
    mark(first, base + 1)
    last = [folded(name) for name in read_list("surnames")]
    mark(last[:2000], base + 2)
    mark(last[:20_000], base + 3)
    mark(last, base + 4)
    mark(
        [
            part
            for name in (*first, *last)
            if not name.isalpha()
            for part in TOKEN.findall(name)
            if len(part) > 2
        ],
        base + 5,
    )
    places = [folded(name) for name in read_list("places")]
    mark(places[:250], base + 6)
    mark(places, base + 7)
    mark(
        [part for name in places if not name.isalpha() for part in TOKEN.findall(name) if len(part) > 2],
        base + 8,
    )
    mark(read_list("words"), base + 9)
    mark([folded(word) for word in language.words("eponyms")], base + 10)
    mark([folded(word) for word in language.words("eponym_heads")], base + 11)
    mark([folded(word) for word in language.words("drugs")], base + 12)
    mark([folded(word) for word in language.words("states")], base + 13)
    return bits


def kind_of(token: str, bits: dict[str, int]) -> tuple[str, int, int, int, int]:
    """Return what a token looks like: its plain form, the rows of its beginning, end and shape, its lists."""
    if token.isdecimal():
        n = len(token)
        value = int(token) if n < 5 else -1
        if token[0] == "0" and n < 3:
            plain = f"d{n}:0"
        elif n < 3 and value <= 31:
            plain = "d:month" if value <= 12 else "d:day"
        elif 90 <= value <= 120 and n < 4:
            plain = "d:90+"
        else:
            plain = "d:year" if 1880 <= value <= 2099 else f"d{min(n, 20)}"
        return plain, 0, 0, min(n, 30), 0
    plain = folded(token)
    if not token[0].isalpha():
        return token, 0, 0, 31, bits.get(token, 0)
    case = 0 if token.islower() else 1 if token.istitle() else 2 if token.isupper() else 3
    latin = 0 if token.isascii() else 1 if token[0] < "ɏ" else 2
    shape = 32 + (case * 3 + latin) * 16 + min(len(token), 15)
    prefix = 1 + crc32(plain[:3].encode()) % (PREFIXES - 1)
    suffix = 1 + crc32(b"$" + plain[-3:].encode()) % (SUFFIXES - 1)
    return plain, prefix, suffix, shape, bits.get(plain, 0)


def layout(text: str) -> tuple[list[str], list[int], list[int], list[int]]:
    """Return the tokens of a text, where each starts and ends, and after what and in what line."""
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    stands: list[int] = []
    kind = _line_kind(text, 0)
    before, first = -1, True
    for match in TOKEN.finditer(text):
        word, (start, end) = match.group(), match.span()
        words.append(word)
        starts.append(start)
        ends.append(end)
        stands.append(kind * 4 + (2 if first else 1 if start > before else 0))
        before, first = end, False
        if word == "\n":
            kind, first = _line_kind(text, end), True
    return words, starts, ends, stands


STANDS = 12
BETWEEN = "\x1f"  # a line end is a word of the vocabulary, so it cannot part words


def _line_kind(text: str, start: int) -> int:
    """Return 1 for a line that is all capitals, 2 for one without a capital, 0 for others."""
    end = text.find("\n", start)
    line = text[start:] if end < 0 else text[start:end]
    return 1 if line.isupper() else 2 if line.islower() else 0


@dataclass
class Tagger:
    """The network with its weights, and the projections of the tokens it has met."""

    vocabulary: dict[str, int]
    weights: dict[str, Floats]
    bits: dict[str, int]
    _types: dict[str, int] = field(default_factory=dict, repr=False)
    _rows: Floats = field(default_factory=lambda: np.zeros((TYPE_LIMIT + 2, WIDTH), np.float32), repr=False)

    @classmethod
    def open(cls, language: Language) -> Tagger | None:
        """Return the tagger of a language from the weights in the package, None if there are none."""
        file = resources.files("deid.lexicon").joinpath(f"tagger_{language.code}.npz")
        if not file.is_file():
            return None
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            words = str(stored["vocabulary"]).split(BETWEEN)
            weights = {name: stored[name].astype(np.float32) for name in stored.files if name != "vocabulary"}
        return cls({word: place for place, word in enumerate(words)}, weights, membership(language))

    def probabilities(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[int], Floats]]:
        """Yield for each text where its tokens start and end, and the probability of each class for each."""
        for batch in _batches(texts):
            laid = [layout(text) for text in batch]
            self._make_room({word for words, _, _, _ in laid for word in words})
            total = sum(len(words) + GAP for words, _, _, _ in laid) + GAP
            types, stands = np.full(total, TYPE_LIMIT + 1, np.int64), np.zeros(total, np.int64)
            real = np.zeros((total, 1), np.float32)
            at = GAP
            offsets = []
            for words, _, _, how in laid:
                offsets.append(at)
                types[at : at + len(words)] = self._typed(words)
                stands[at : at + len(words)] = how
                real[at : at + len(words)] = 1.0
                at += len(words) + GAP
            scores = self._forward(self._rows[types] + self.weights["stand"][stands], real)
            for (words, starts, ends, _), offset in zip(laid, offsets, strict=True):
                yield starts, ends, scores[offset : offset + len(words)]

    def _make_room(self, words: set[str]) -> None:
        """Forget what is known of tokens if those of one pass would not fit: never amid a pass."""
        if len(words) > TYPE_LIMIT:
            raise ValueError("a text has too many different tokens")
        if len(self._types) + len(words) > TYPE_LIMIT:
            self._types.clear()

    def _typed(self, words: list[str]) -> list[int]:
        known = self._types
        new = [word for word in dict.fromkeys(words) if word not in known]
        if new:
            first = len(known)
            for word in new:
                known[word] = len(known)
            self._rows[first : len(known)] = self._projected(new)
        return [known[word] for word in words]

    def _projected(self, words: list[str]) -> Floats:
        kinds = [kind_of(word, self.bits) for word in words]
        w = self.weights
        plain = np.array([self.vocabulary.get(kind[0], 0) for kind in kinds])
        prefix, suffix, shape, lists = (np.array([kind[i] for kind in kinds]) for i in (1, 2, 3, 4))
        member = ((lists[:, None] >> np.arange(BITS)) & 1).astype(np.float32)
        whole = np.concatenate(
            (w["plain"][plain], w["prefix"][prefix], w["suffix"][suffix], w["shape"][shape], member), axis=1
        )
        result: Floats = whole @ w["enter"] + w["enter_bias"]
        return result

    def _forward(self, x: Floats, real: Floats) -> Floats:
        w = self.weights
        x = np.maximum(x, 0) * real
        for place, dilation in enumerate(DILATIONS):
            y = x @ w[f"conv{place}.1"] + w[f"bias{place}"]
            y[dilation:] += x[:-dilation] @ w[f"conv{place}.0"]
            y[:-dilation] += x[dilation:] @ w[f"conv{place}.2"]
            np.maximum(y, 0, out=y)
            x = _normal(x + y, w[f"gain{place}"], w[f"shift{place}"]) * real
        scores = x @ w["leave"] + w["leave_bias"]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        result: Floats = scores
        return result


def _normal(x: Floats, gain: Floats, shift: Floats) -> Floats:
    x = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("ij,ij->i", x, x) / x.shape[1] + 1e-5)
    result: Floats = x / deviation[:, None] * gain + shift
    return result


def _batches(texts: Sequence[str], characters: int = 20_000) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > characters:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def stored(vocabulary: Sequence[str], weights: dict[str, Any]) -> dict[str, Any]:
    """Return what a file of weights holds: half precision is enough and halves the file."""
    return {
        "vocabulary": np.array(BETWEEN.join(vocabulary)),
        **{k: np.asarray(v, np.float16) for k, v in weights.items()},
    }
