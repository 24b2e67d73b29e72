"""BERT's uncased word pieces, as the embedding model was trained with them.

The list of pieces, `bert_uncased.txt` beside this file, is Google's (BERT, Apache-2.0). The library that
usually does this brings an HTTP client and a model hub with it, which a hospital's node has no use for.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources

START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST_WORD = 100  # BERT's own limit: longer ones are unknown
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2FA1F), (0xF900, 0xFAFF))


@cache
def pieces() -> dict[str, int]:
    """Return the number of each piece."""
    text = resources.files("node.concept_maps").joinpath("bert_uncased.txt").read_text(encoding="utf-8")
    return {piece: number for number, piece in enumerate(text.split("\n")) if piece}


def encode(text: str, *, longest: int) -> list[int]:
    """Return the numbers of the pieces of `text`, with start and end, cut to `longest` pieces.

    >>> encode("Heart Rate", longest=64)
    [101, 2540, 3446, 102]
    """
    known = pieces()
    found = [piece for word in _words(text) for piece in _split(word, known)][: longest - 2]
    return [known[START], *(known[piece] for piece in found), known[END]]


def _words(text: str) -> list[str]:
    kept: list[str] = []
    for sign in unicodedata.normalize("NFD", _clean(text).lower()):
        if unicodedata.category(sign) == "Mn":
            continue
        kept.append(f" {sign} " if _stands_alone(sign) else sign)
    return "".join(kept).split()


def _clean(text: str) -> str:
    return "".join(
        " " if sign in "\t\n\r" or unicodedata.category(sign) == "Zs" else sign
        for sign in text
        if sign in "\t\n\r" or (unicodedata.category(sign)[0] != "C" and sign != "\ufffd")
    )


def _stands_alone(sign: str) -> bool:
    number = ord(sign)
    ascii_sign = 33 <= number <= 47 or 58 <= number <= 64 or 91 <= number <= 96 or 123 <= number <= 126
    return (
        ascii_sign or unicodedata.category(sign)[0] == "P" or any(low <= number <= top for low, top in _CJK)
    )


def _split(word: str, known: dict[str, int]) -> list[str]:
    """The longest pieces from the left; a word that does not come out even is unknown."""
    if len(word) > LONGEST_WORD:
        return [UNKNOWN]
    found, begin = [], 0
    while begin < len(word):
        end = len(word)
        while end > begin and ("##" if begin else "") + word[begin:end] not in known:
            end -= 1
        if end == begin:
            return [UNKNOWN]
        found.append(("##" if begin else "") + word[begin:end])
        begin = end
    return found
