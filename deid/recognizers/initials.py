"""Initials of who dictated, typed, verified or signed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deid.lexicon.lists import folded
from deid.recognizers.page import Page
from deid.spans import Category, Span

DEGREE = r"(?:M\.?D\.?|D\.?O\.?|PA-?C?|N\.?P\.?|Ph\.?D\.?|FAC[CSP])"
UNITS = frozenset(
    (
        "ED",
        "ER",
        "ICU",
        "CCU",
        "OR",
        "IR",
        "OB",
        "LD",
        "HD",
        "CM",
        "SW",
        "PT",
        "OT",
        "GI",
        "EP",
        "EMS",
        "VNA",
        "CT",
        "MRI",
        "ID",
        "NP",
        "PCP",
        "MD",
        "RN",
    )
)
INITIALS = (
    re.compile(r"(?m)^[ \t]*[-–/]{1,2}[ ]?(?P<c>[A-Z]{2,3})(?=[ \t]*$|[ ]\d{1,2}[-/]\d)"),
    re.compile(r"[.][ ][-–][ ]?(?P<c>[A-Z]{2,3})(?=[ ]\d{1,2}[-/]\d)"),
    re.compile(r"(?m)^\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}[ ][^\n]{4,200}[.;][ ](?P<c>[A-Z]{2})(?=[ \t]*$)"),
    re.compile(r"(?:\b(?:w/|with|by|per|and|from|to)[ ])(?P<c>[A-Z]{2,3})(?=,?[ ](?:RN|LPN|LVN|MD|DO|NP|PA-C|CNA|PharmD)\b)"),
    re.compile(r"\d[ ]?/[ ](?P<c>[A-Z]{2,3})(?=[ ]/[ ]?Job\b)"),
    re.compile(r"\b[Cc]assettes?[ ][A-Z0-9, -]{1,16}[ ]\((?P<c>[A-Z]{2,3})\)"),
    re.compile(r"(?m)(?:\d?\d:\d\d(?:[ ]?[AaPp][Mm])?|\b[0-2]\d[0-5]\d(?:[ ]hrs)?)[ ](?P<c>[A-Z]{2,3})(?=[ \t]*$)"),
    re.compile(r"(?<![\w/])(?P<a>[A-Z]{2,3})[/:](?P<b>[a-z]{2,3})(?=\d{0,4}(?:[ \t]*(?:\n|\Z)|[ \t]+(?:D[DT]?|T|Job|JOB|DOC)\b))"),
    re.compile(r"(?m)^[ \t]*(?P<a>[A-Za-z]{2,3})[/:](?P<b>[A-Za-z]{2,3})(?=\d{0,5}[ \t]*$)"),
    re.compile(r"(?:\b(?:DT|TD|T|DD|D):[ ]?[\d/.-]{6,10}[ \t\n]+)(?P<a>[A-Z]{2,3})[/:](?P<b>[A-Za-z]{2,3})\b"),
    re.compile(r"(?m)^[ \t]*[/-]{1,2}[ ]?(?P<a>[a-z]{2,3})[ \t]*$"),
    re.compile(rf"{DEGREE}[ \t]{{1,4}}(?P<a>[A-Z]{{2,3}}\d{{1,4}})(?=[ \t]*(?:\n|\Z))"),
    re.compile(r"(?i:\b(?:tech|technologist|initials|transcribed[^\n]{0,14} by|typed[^\n]{0,14} by|transcriptionist|grossed by|gross description by|prosected by|cut by|screened by|keyed by|entered by))[ ]?:?[ ](?P<a>[A-Z]{2,3}|[a-z]{2,3}(?=[ ]*(?:\n|\Z)))(?![\w'’])"),
    re.compile(r"(?:\d[/-]\d{1,2}|\d\d:?\d\d(?:[ ]?[AaPp][Mm])?)[ ](?:by|BY)[ ](?P<a>[A-Z]{2,3})(?=[ ]*(?:\n|\Z|[.;,]))"),
    re.compile(r"(?i:\b(?:best|thanks|thx|regards|cheers))[,.!]?[ \n](?P<a>[A-Z]{2,3})(?=[ ]*(?:\n|\Z))"),
    re.compile(r"\.{4,}[ ]?(?P<a>[A-Z]{2,3})(?=[ \t]*(?:\n|\Z))"),
    re.compile(r"(?<![\w/])(?P<a>[A-Z]{2,3})(?=[ ]?=[ ]?[A-Z][a-z]+(?:[ ][A-Z]\.?)?[ ][A-Z][a-z])"),
    re.compile(r"(?i:\binitials)[ ](?P<a>(?:[A-Z]\.){2,3})(?![\w])"),
    re.compile(r"(?i:\bre:?[ ]pt[ ])(?P<a>[A-Z]{2,3})(?=,)"),
)  # fmt: skip

LOOSE = frozenset(
    pattern for pattern in INITIALS if "^" in pattern.pattern[:6] or "hrs" in pattern.pattern
)  # where a short form is likelier


def initials(page: Page) -> Iterator[Span]:
    """Yield the initials of who dictated, wrote or signed: "JS/bd", "T: 3/4/2019 JS:bd", "Tech: XRD"."""
    titles = {folded(word) for table in ("titles", "credentials") for word in page.language.words(table)}
    short = frozenset(page.language.words("abbreviations")) | {"AM", "PM", "HRS", "HR"}
    for pattern in INITIALS:
        for match in pattern.finditer(page.text):
            if "c" in pattern.groupindex:  # where a short form may stand as well
                if (
                    match.group("c") not in (short if pattern in LOOSE else UNITS)
                    and folded(match.group("c")) not in titles
                ):
                    yield Span(match.start("c"), match.end("c"), Category.NAME, 0.7, "initials")
                continue
            for group in ("a", "b"):
                if group not in pattern.groupindex or not match.group(group):
                    continue
                if (
                    folded(match.group(group)) not in titles
                    or page.text[match.end(group) : match.end(group) + 1] != "."
                ):
                    yield Span(match.start(group), match.end(group), Category.NAME, 0.7, "initials")
