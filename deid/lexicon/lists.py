"""Word lists beside this file."""

from __future__ import annotations

import gzip
import unicodedata
from importlib import resources


def read_list(name: str) -> list[str]:
    """Return the entries of `name`.txt.gz, in the order of the file."""
    packed = resources.files("deid.lexicon").joinpath(f"{name}.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().split("\n")


def folded(text: str) -> str:
    """Return `text` in small letters without accents: how lists are asked.

    >>> folded("Bélanger")
    'belanger'
    """
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in apart if not unicodedata.combining(c))
    return (
        plain.replace("ł", "l")
        .replace("ø", "o")
        .replace("ı", "i")
        .replace("đ", "d")
        .replace("’", "'")
        .replace("ß", "ss")
        .replace("æ", "ae")
    )
