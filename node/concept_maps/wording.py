"""One form for labels and names, so that what means the same is written the same."""

from __future__ import annotations

import csv
import re
import unicodedata
from functools import cache
from importlib import resources

_BETWEEN = re.compile(r"[^a-z0-9%.+]+")
_JOINED = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")  # FiO2 stays, HeartRate becomes two words


@cache
def abbreviations() -> dict[str, str]:
    """Return what the abbreviations of `abbreviations.csv` are short for."""
    text = resources.files("node.concept_maps").joinpath("abbreviations.csv").read_text(encoding="utf-8")
    return {row["short"]: row["long"] for row in csv.DictReader(text.splitlines())}


def plain(text: str) -> str:
    """Return the text in lower case, without accents and signs, words one blank apart.

    >>> plain("Non-Invasive BP [systolic]")
    'non invasive bp systolic'
    """
    spaced = _JOINED.sub(" ", text)
    bare = "".join(s for s in unicodedata.normalize("NFKD", spaced) if unicodedata.category(s) != "Mn")
    return " ".join(word.strip(".") for word in _BETWEEN.split(bare.lower()) if word.strip("."))


def spelled_out(text: str) -> str:
    """Return the plain text with abbreviations written out.

    >>> spelled_out("ABP syst")
    'arterial blood pressure systolic'
    """
    return " ".join(abbreviations().get(word, word) for word in plain(text).split())
