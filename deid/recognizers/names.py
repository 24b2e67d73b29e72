"""Names that a title, a label or a credential gives away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from deid.lexicon.language import Language
from deid.lexicon.lists import folded
from deid.recognizers.page import Page
from deid.spans import Category, Span
from deid.tagger import ENGLISH_WORD, GIVEN_NAME, WELL_KNOWN_NAME, membership

# a capital letter begins a word of a name; particles may stand between
CAP = r"[^\W\d_a-zß-öø-ÿ][\w'’]*(?:-[^\W\d_][\w'’]*)*"
PARTICLE = r"(?:'t|ap|de|la|las|los|del|van|von|der|den|ter|al|el|bin|ibn|da|dos|di|du|le|st\.|y|e)"
DOT = (
    r"(?:(?<![^\W_]{3})\.)?"  # only after an initial or a short form: a sentence may end after a longer word
)
WORD = rf"(?:{CAP}{DOT}|{PARTICLE}(?=\s+{CAP}))"
NAME_ONLY = rf"(?:{PARTICLE}[ ])?{CAP}"
NAME = rf"(?:{PARTICLE}\s+){{0,2}}{CAP}{DOT}(?:,?[ ]{WORD}){{0,4}}"


@cache
def _patterns(
    language: Language,
) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], frozenset[str], re.Pattern[str]]:
    titles = "|".join(
        sorted(
            {form for t in language.words("title_abbreviations") for form in (t, t.title(), t.upper())},
            key=len,
            reverse=True,
        )
    )
    wide = language.code == "es"  # "M.a José", and two spaces between two family names
    short, gap = (r"(?:M\.[aª]\.?[ ])?", "[ ]{1,2}") if wide else ("", "[ ]")
    # CAP is case-sensitive, so the words before it carry their own case
    titled = re.compile(
        rf"(?<![\w-])(?:{titles})\b(?:\.[ ]{{0,2}}|:[ ]?|[ ]{{1,2}})(?P<name>{short}(?:{PARTICLE}[ ]){{0,2}}{CAP}{DOT}(?:{gap}{WORD}){{0,{5 if wide else 3}}})"
    )
    both = re.compile(
        rf"(?<![\w-])(?:Drs|DRS|Doctors|Messrs|drs)\b\.?[ ]{{1,2}}(?P<first>{NAME_ONLY})(?:,[ ](?P<more>{NAME_ONLY}))?,?[ ](?:and|AND|&|/)[ ](?P<name>{NAME_ONLY})"
    )
    labels = language.either("label_name")
    labelled = re.compile(
        rf"(?im:(?<![\w-])(?:{labels})(?:\(s\))?[ ]?(?:::?|;|=|#|>>)[ \t]{{0,4}}[\"“]?_{{0,6}})(?P<name>{short}{NAME.replace('?[ ]', '?' + gap)})"
    )
    credentials = r"M\.?D\.?|D\.?O\.?|R\.?N\.?|N\.P\.|NP|PA-?C|Ph\.?D\.?|LPN|PharmD|LCSW|FACS|DPT|MBBS|CRNA|APRN|FNP|DDS|MPH"
    credited = re.compile(
        rf"(?<![\w.-])(?P<name>{CAP}{DOT}(?:[ ]{WORD}){{1,3}}),?[ ](?:{credentials})(?![\w])"
    )
    stop = frozenset(folded(w) for w in (*language.words("not_names"), *language.words("staff")))
    return titled, labelled, credited, stop, both


# two letters and more of a script that the rest of the note is not in: Greek (three and more: units have one), Cyrillic,
# Armenian, Hebrew, Arabic, the scripts of India, Thai, Georgian, Korean, Japanese, Chinese
SCRIPTS = [
    r"\u0386-\u03ff{3}",
    r"\u0400-\u058f",
    r"\u0591-\u08ff",
    r"\u0900-\u0dff",
    r"\u0e00-\u0e7f",
    r"\u10a0-\u11ff",
    r"\u3040-\u30ff",
    r"\u4e00-\u9fff",
    r"\uac00-\ud7af",
]
FOREIGN = re.compile(
    "|".join(
        rf"[{s.removesuffix('{3}')}]{{{3 if s.endswith('{3}') else 2},}}(?:[ ][{s.removesuffix('{3}')}]{{2,}})*"
        for s in SCRIPTS
    )
)
ABD = re.compile(
    r"(?<![\w-])[Aa]bd[ -](?:al|el|ul|ur|ar|us|Al|El)[ -][^\W\d_]{3,20}(?!\w)"
)  # a name, and no belly
PAIR = re.compile(rf"(?<![\w-])(?P<first>{CAP})[ ](?:[A-Z]\.?[ ])?(?P<last>{CAP})(?![\w-])")


def names_by_list(page: Page) -> Iterator[Span]:
    """Yield well-known given names before well-known family names, and words in another script than the note's."""
    lists = membership(page.language)
    for match in PAIR.finditer(page.text):
        given, family = lists.get(folded(match.group("first")), 0), lists.get(folded(match.group("last")), 0)
        if given & GIVEN_NAME and family & WELL_KNOWN_NAME and not family & ENGLISH_WORD:
            yield Span(match.start(), match.end(), Category.NAME, 0.75, "list")
    for match in ABD.finditer(page.text):
        yield Span(match.start(), match.end(), Category.NAME, 0.8, "script")
    if page.text.isascii():
        return
    for match in FOREIGN.finditer(page.text):
        yield Span(match.start(), match.end(), Category.NAME, 0.7, "script")


def named_people(page: Page) -> Iterator[Span]:
    """Yield names after titles and labels, and before the degrees that staff carry."""
    titled, labelled, credited, stop, both = _patterns(page.language)
    for match in SIGNED.finditer(page.text):
        signed = _trimmed(page, match.start("name"), match.group("name"), stop, whole_line=False)
        if signed is not None:
            yield Span(*signed, Category.NAME, 0.9, "label")
    for match in TIGHT.finditer(page.text):
        yield Span(match.start("name"), match.end("name"), Category.NAME, 0.85, "label")
    for match in both.finditer(page.text):
        yield Span(match.start("name"), match.end("name"), Category.NAME, 0.9, "title")
    short = frozenset(page.language.words("abbreviations"))
    for pattern, score in ((titled, 0.9), (labelled, 0.85), (credited, 0.85)):
        for match in pattern.finditer(page.text):
            begin, name = match.start("name"), match.group("name")
            if pattern is credited:
                cut = _after_stops(name, stop)
                begin, name = begin + cut, name[cut:]
            if pattern is titled and name in short and not name.islower() and match.group().startswith("DR "):
                continue  # "Azure XT DR MRI"
            found = _trimmed(page, begin, name, stop, whole_line=pattern is labelled)
            if found is not None:
                yield Span(
                    *found,
                    Category.NAME,
                    score,
                    "title" if pattern is titled else "label" if pattern is labelled else "degree",
                )


# "LOVE, AUGUST L" and "D. Swift" after a label are nobody's words
COMMA_ORDER = re.compile(rf"{CAP},[ ]?{CAP}(?:[ ][A-Z]\b)?|[A-Z]\.[ ]{CAP}")
SIGNED = re.compile(rf"(?<!\w)/{{1,2}}e?s/{{1,2}}[ ]{{0,2}}(?P<name>{CAP}{DOT}(?:[ ]{WORD}){{0,3}})")
TIGHT = re.compile(r"(?m)^(?P<name>[A-Z][A-Z'-]+,[A-Z][A-Z'-]+)(?=[ ]{1,4}\d)")  # as the VA heads its notes
DEGREE = re.compile(
    r"(?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-?C)?|Ph\.?D|L\.?P\.?N|F\.?A\.?C\.?[SPC]|M\.?B\.?B\.?S|D\.?P\.?T|L\.?C\.?S\.?W)\b"
)
SMALL_PARTICLE = re.compile(rf"(?<!\w){PARTICLE}[ ]\Z")
TITLE = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr|Prof|Drs|Nurse)\b\.?[ ]*", re.IGNORECASE)


def _after_stops(name: str, stop: frozenset[str]) -> int:
    """Return where the name begins that stands before a degree: after the last word that is none."""
    cut = 0
    for match in re.finditer(r"[^\s,]+", name):
        if folded(match.group().strip(".'’")) in stop:
            cut = match.end() + 1
    return min(cut, len(name))


def _trimmed(
    page: Page, start: int, name: str, stop: frozenset[str], *, whole_line: bool
) -> tuple[int, int] | None:
    """Return where the name ends, once words that are no names are cut off; None if nothing is left."""
    end = start
    scores = page.scores
    while lead := TITLE.match(name):
        start, end, name = start + lead.end(), end + lead.end(), name[lead.end() :]
    start_of_name = start
    for match in re.finditer(r"[^\s,]+", name):
        word = match.group().strip(".'’_")
        if DEGREE.match(page.text, start_of_name + match.start()) and end > start:
            break
        if folded(word) in stop or any(c.isdigit() for c in word):
            break
        if SMALL_PARTICLE.search(page.text, start, start_of_name + match.start()):
            end = start_of_name + match.end()
            continue
        if scores is not None and end > start:
            # past the first word the tagger may say that the name is over
            places = page.tokens(start + match.start(), start + match.end())
            english = membership(page.language).get(folded(word), 0) & ENGLISH_WORD
            if english and len(places) and float(scores[places.start, 0]) > 0.5:
                break
        elif scores is not None and whole_line and not COMMA_ORDER.match(name):
            places = page.tokens(start + match.start(), start + match.end())
            if len(places) and float(scores[places.start, 0]) > 0.97:
                break
        end = start + match.end()
    text = page.text[start:end].rstrip(".,'’ _")
    return (start, start + len(text)) if len(text) > 1 else None
