"""What a sentence says of a problem in it: negated, whose, when, how sure. Rules in the manner of ConText.

A cue holds from its end to the end of the sentence, or to a word that ends its reach ("but", "however"); a
cue that follows its problem holds from there back to the sentence's beginning, or to such a word. Cues that
only look like one ("no change", "not only") hold nothing. Source: Harkema et al. 2009, ConText, whose idea
of cues and reach this follows; the words are our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from node.ingest.note_sections import Section

REACH = (
    600  # characters that a cue holds at most: a long list after "denies", and no text takes quadratic time
)
_SENTENCE = re.compile(
    r"(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bvs)[.!?](?=\s+[A-Z(\"]|\s*$)|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)]))|;"
)
_ENDS = "but|however|although|though|except|aside from|apart from|still|nevertheless|yet|other than|besides"
_PSEUDO = (
    "no (?:significant |interval |further |acute )?(?:change|increase|worsening|improvement)|not "
    "only|not necessarily|"
    "without (?:difficulty|delay)|no longer than|not (?:sure|certain) (?:if|whether)|cannot be ruled out|"
    "can ?not (?:be )?exclude[d]?|not (?:been )?ruled out|no doubt"
)
_NEGATED = (
    "no|not|denies|denied|denying|without|negative for|never|neither|nor|free of|absence of|lack "
    "of|lacks|none of|"
    "no (?:evidence|signs?|symptoms?|history|complaints?|known|prior|previous) (?:of|for)?|ruled out for|"
    "rules out|fails to (?:show|reveal)|unremarkable for|resolved|non"
)
_NEGATED_AFTER = (
    "(?:was|were|is|are|has been|have been) (?:ruled out|negative|absent|denied|excluded|not "
    "(?:seen|present|found|noted))|"
    "unlikely|not (?:seen|present|found|noted|identified|demonstrated)|absent|: "
    "?(?:no|none|negative|denies)\\b|"
    "ruled out"
)
_FAMILY = (
    "(?:his |her |the |their "
    ")?(?:mother|father|mom|dad|brother|sister|sibling|parent|grandmother|grandfather|"
    "grandparent|aunt|uncle|cousin|son|daughter|maternal|paternal|wife|husband)s?(?:'s)?|family "
    "(?:medical )?history|"
    "family members?|runs in the family|fhx?"
)
_PAST = (
    "history of|h/o|hx of|hx|past medical history|previous(?:ly)?|prior|status post|s/p|in the past|"
    "childhood|as a child|years? ago|months? ago|formerly|former|remote|old|since (?:19|20)\\d\\d|in "
    "(?:19|20)\\d\\d"
)
_IF = (
    "if|in case of|return for|return to|should (?:he|she|they|you|the patient)|watch(?:ing)? "
    "for|precautions for|"
    "to prevent|prevention of|prophylaxis|risk of|risk for|screen(?:ing)? for|monitor for|educated "
    "(?:on|about)|"
    "call for|work-?up for|evaluate for|to assess for"
)
_UNSURE = (
    "possible|possibly|probable|probably|suspected|suspicion (?:of|for)|suspicious for|concern(?:ing)? for|"
    "questionable|may (?:be|have|represent)|might|could be|likely|presumed|rule out|r/o|versus|vs|"
    "cannot (?:be )?(?:exclude|ruled out)|differential|appears to"
)


def _cues(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w])", re.IGNORECASE)


_BEFORE = {"negated": _cues(_NEGATED), "family": _cues(_FAMILY), "past": _cues(_PAST), "if": _cues(_IF),
           "unsure": _cues(_UNSURE)}  # fmt: skip
_AFTER = {"negated": re.compile(_NEGATED_AFTER, re.IGNORECASE),
          "unsure": _cues(
              "(?:is |are |highly |very |most )?(?:possible|suspected|likely)|"
        "can ?not be (?:ruled out|excluded)"
          ),
          "past": _cues("years? ago|months? ago|in (?:19|20)\\d\\d|as a child|in childhood|in the past"),
          "family": _cues("in (?:his|her|the) (?:mother|father|brother|sister|family|parents?)")}  # fmt: skip
_ENDING, _LOOKS_LIKE = _cues(_ENDS), _cues(_PSEUDO)
_OWN = _cues("the patient|patient (?:himself|herself|has|had|is)|he|she|i|pt")


@dataclass(frozen=True, slots=True)
class Context:
    """What is said of a mention. `exists`: the patient has or had it, as far as the note knows."""

    negated: bool = False
    family: bool = False
    past: bool = False
    hypothetical: bool = False
    unsure: bool = False

    @property
    def exists(self) -> bool:
        """OMOP's term_exists: neither negated, nor another person's, nor a mere possibility."""
        return not (self.negated or self.family or self.hypothetical)


def sentences(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Return where the sentences of text[begin:end] begin and end."""
    found = []
    for stop in _SENTENCE.finditer(text, begin, end):
        found.append((begin, stop.end()))
        begin = stop.end()
    found.append((begin, end))
    return [(first, last) for first, last in found if text[first:last].strip()]


def context(text: str, sentence: tuple[int, int], mention: tuple[int, int], section: Section) -> Context:
    """Return what the sentence, and the section it stands in, say of the mention in it."""
    near = (max(sentence[0], mention[0] - REACH), min(sentence[1], mention[1] + REACH))
    looks_like = [found.span() for found in _LOOKS_LIKE.finditer(text, *near)]
    ends = [found.span() for found in _ENDING.finditer(text, *near)]
    first = max([end for _, end in ends if end <= mention[0]], default=near[0])
    last = min([begin for begin, _ in ends if begin >= mention[1]], default=near[1])

    def before(kind: str) -> bool:
        return any(
            not any(low <= cue.start() < top for low, top in looks_like)
            for cue in _BEFORE[kind].finditer(text, first, mention[0])
        )

    def after(kind: str) -> bool:
        return kind in _AFTER and any(
            kind == "unsure" or not any(low <= cue.start() < top for low, top in looks_like)
            for cue in _AFTER[kind].finditer(text, mention[1], last)
        )

    return Context(
        negated=before("negated") or after("negated"),
        family=_others(text, first, mention[0], section) or after("family"),
        past=section is Section.PAST or before("past") or after("past"),
        hypothetical=section is Section.INSTRUCTIONS or before("if"),
        unsure=before("unsure") or after("unsure"),
    )


def _others(text: str, first: int, last: int, section: Section) -> bool:
    """Whether the sentence speaks of a relative, and not of the patient again since."""
    cues = [found.end() for found in _BEFORE["family"].finditer(text, first, last)]
    if not cues:
        return section is Section.FAMILY
    return not any(found.start() >= cues[-1] for found in _OWN.finditer(text, first, last))
