"""Free text without direct identifiers, as far as patterns reach.

This is the pass for short free-text fields of a table. It runs Presidio's pattern recognisers and a few of
our own over a blank tokenizer: no language model, no download, no network. **It does not find names** unless
a title or a label stands before them, so its recall is too low to release text: what it redacts stays inside
the hospital's own store. Notes get their own engine with measured recall.

Guarantee: fails closed. A text that cannot be analysed raises NotRedacted and is not stored.
"""

from __future__ import annotations

from typing import Any

from deid.errors import NotRedacted

MAX_CHARACTERS = 20_000  # a field, not a document: longer ones are refused, because the time grows with them

_LANGUAGE = "en"
_TITLED_NAME = r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Pt|Patient|Name)[.:]?\s+[A-Z][\w'’-]+(?:\s+[A-Z][\w'’-]+){0,2}"
_OWN_PATTERNS: dict[str, tuple[str, ...]] = {
    # entity -> regular expressions; scores are 1: what matches goes
    "NAME": (_TITLED_NAME,),
    "DATE": (
        r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b",
        r"\b\d{1,2}(?:st|nd|rd|th)?\s+(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?,?\s*\d{0,4}\b",
        r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?\s+\d{1,2}(?:st|nd|rd|th)?,?\s*\d{0,4}\b",
    ),
    "PHONE": (r"(?<!\w)(?:\+\d{1,3}[\s.-]?)?\(?\d{2,4}\)?[\s.-]\d{3,4}[\s.-]?\d{3,4}(?!\w)",),
    "NUMBER": (
        r"\b\d{5,}\b",  # record, account and telephone numbers; clinical values have fewer digits in a row
        r"\b\d{3}-\d{2}-\d{4}\b",
        r"\b(?:MRN|SSN|ID|Acct|Account|NHS|DOB)\b[\s.:#]*[\w/-]+",
    ),
    "EMAIL": (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",),
    "URL": (r"\b(?:https?://|www\.)\S+",),
    "ADDRESS": (
        r"\b\d{1,5}\s+(?:[A-Z][\w'’-]+\s+){1,3}(?:St|Street|Ave|Avenue|Rd|Road|Lane|Ln|Blvd|Drive|Dr|Way)\b",
    ),
}


class Redactor:
    """Presidio's analyzer with pattern recognisers only. Costs about two seconds to make; make one."""

    def __init__(self) -> None:
        self._analyzer = _pattern_analyzer()

    def redact(self, text: str) -> str:
        """Return `text` with each finding replaced by its kind: `[PHONE]`.

        Raises: NotRedacted if it is too long or the analysis fails; the text is in no message.
        """
        if len(text) > MAX_CHARACTERS:
            raise NotRedacted(f"a text field has at most {MAX_CHARACTERS} characters")
        try:
            found = self._analyzer.analyze(text=text, language=_LANGUAGE, score_threshold=0.0)
        except Exception:
            raise NotRedacted("the analysis failed") from None  # its message may hold the text
        return _replaced(text, [(item.start, item.end, item.entity_type) for item in found])


def _replaced(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Replace the union of the spans; overlapping ones become one, named after the first."""
    pieces: list[str] = []
    done = 0
    for start, end, entity in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            pieces += [text[done:start], f"[{entity}]"]
        done = max(done, end)
    return "".join(pieces) + text[done:]


def _pattern_analyzer() -> Any:
    """Build the analyzer around a blank tokenizer, so that nothing is loaded or fetched."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        IbanRecognizer,
        IpRecognizer,
        NhsRecognizer,
        UsSsnRecognizer,
    )

    class BlankEngine(SpacyNlpEngine):
        """A tokenizer without a model."""

        def __init__(self) -> None:
            super().__init__()
            self.nlp = {_LANGUAGE: spacy.blank(_LANGUAGE)}  # type: ignore[assignment] # it is None until loaded

    # those that ask nothing of a model or of the network (the one for e-mail fetches a list of suffixes)
    registry = RecognizerRegistry(supported_languages=[_LANGUAGE])
    for recognizer in (CreditCardRecognizer, IbanRecognizer, IpRecognizer, NhsRecognizer, UsSsnRecognizer):
        registry.add_recognizer(recognizer())
    for entity, expressions in _OWN_PATTERNS.items():
        patterns = [
            Pattern(f"{entity.lower()} {place}", regex, 1.0) for place, regex in enumerate(expressions)
        ]
        registry.add_recognizer(
            PatternRecognizer(supported_entity=entity, patterns=patterns, global_regex_flags=0)
        )
    return AnalyzerEngine(registry=registry, nlp_engine=BlankEngine(), supported_languages=[_LANGUAGE])
