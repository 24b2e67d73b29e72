"""Find identity in clinical notes.

Presidio's analyzer runs our recognizers over each note: rules for what has a shape or a label, and a small
tagger trained on generated notes for what only its surroundings tell. Then what was found once is found
everywhere in the note, what the hospital knows of the patient is found however it is written, and terms of
medicine are let go.

Guarantee: fails closed. A note that cannot be analysed raises NotRedacted, whose message holds nothing of
it. The same note gives the same spans, alone or among others. What is `known` never survives where it
stands as written, in any case of letters.

One finder is for one thread at a time; threads and processes each open their own (`deid.note_processes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from deid.errors import NotRedacted
from deid.lexicon.language import Language
from deid.lexicon.language import language as language_of
from deid.recognizers.composed import Composed
from deid.recognizers.consistency import address_gaps, repeated, whole_places
from deid.recognizers.dates import dates, great_ages, paired_days
from deid.recognizers.initials import initials
from deid.recognizers.keep import without_terms
from deid.recognizers.known import known_spans
from deid.recognizers.labels import labelled_numbers, labelled_places
from deid.recognizers.learned import tagged
from deid.recognizers.names import named_people, names_by_list
from deid.recognizers.numbers import handles_and_coordinates, shaped_numbers
from deid.recognizers.page import Page, Reading
from deid.recognizers.people import longer_names, people_beside
from deid.recognizers.places import addresses, institutions, organizations
from deid.recognizers.spoken import spoken
from deid.spans import Category, Known, Span, merged
from deid.tagger import Tagger

MAX_CHARACTERS = 1_000_000  # of one note
BY = "/"  # between a category and who found it
RULES: tuple[Callable[[Page], Iterator[Span]], ...] = (
    shaped_numbers,
    handles_and_coordinates,
    dates,
    spoken,
    great_ages,
    labelled_numbers,
    labelled_places,
    named_people,
    names_by_list,
    addresses,
    institutions,
    organizations,
    people_beside,
    initials,
)


@dataclass(frozen=True)
class NotePolicy:
    """Which kinds of identity go."""

    categories: frozenset[Category] = frozenset(Category) - {Category.PROFESSION}


class _Recognizer(EntityRecognizer):
    """A function over a page as one of Presidio's recognizers."""

    def __init__(self, find: Callable[[Page], Iterator[Span]], code: str) -> None:
        self._find = find
        super().__init__(
            [category.value for category in Category], name=find.__name__, supported_language=code
        )

    def load(self) -> None:
        """Load nothing: it is all there."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Return what the function finds."""
        if not isinstance(nlp_artifacts, Reading):
            raise TypeError("our recognizers read what our reader made")
        return [
            RecognizerResult(
                f"{span.category.value}{BY}{span.found_by}",  # Presidio keeps one of those of one type
                span.start,
                span.end,
                span.score,
            )
            for span in self._find(nlp_artifacts.page)
        ]


class _NoContext(ContextAwareEnhancer):
    """Our recognizers read the context themselves."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0, 0, 0)

    def enhance_using_context(self, text: str, raw_results: list[Any], *_: Any, **__: Any) -> list[Any]:
        """Return what came in."""
        return raw_results


class _Reader(NlpEngine):
    """The one pass over a text: tokens, and the tagger's view of each."""

    def __init__(self, language: Language, tagger: Tagger | None) -> None:
        self._language, self._tagger = language, tagger

    def load(self) -> None:
        """Load nothing: it is all there."""

    def is_loaded(self) -> bool:
        """Say yes."""
        return True

    def process_text(self, text: str, language: str) -> Reading:
        """Return one text read."""
        return next(iter(self.process_batch([text], language)))[1]

    def process_batch(
        self, texts: Iterable[str], language: str, batch_size: int = 1, n_process: int = 1, **_: Any
    ) -> Iterator[tuple[str, Reading]]:
        """Yield the texts, read many at a time."""
        listed = list(texts)
        if self._tagger is None:
            yield from ((text, Reading(Page(text, self._language))) for text in listed)
            return
        for text, (starts, ends, scores) in zip(listed, self._tagger.probabilities(listed), strict=True):
            yield text, Reading(Page(text, self._language, starts, ends, scores))

    def is_stopword(self, word: str, language: str) -> bool:
        """Say no: no recognizer of ours asks."""
        return False

    def is_punct(self, word: str, language: str) -> bool:
        """Say no: no recognizer of ours asks."""
        return False

    def get_supported_entities(self) -> list[str]:
        """Return none: the recognizers find them."""
        return []

    def get_supported_languages(self) -> list[str]:
        """Return the one language."""
        return [self._language.code]


@dataclass
class NoteFinder:
    """Finds identity in notes of one language."""

    language: Language
    policy: NotePolicy
    _reader: _Reader = field(repr=False)
    _analyzer: AnalyzerEngine = field(repr=False)

    @classmethod
    def open(
        cls, language: str = "en", policy: NotePolicy | None = None, *, rules_only: bool = False
    ) -> NoteFinder:
        """Return a finder. Costs about two seconds and 200 MB; make one.

        A language that has tables but no weights for the tagger (Spanish) is read by rules alone: names go
        only after a title or a label, and the recall is too low to release text.

        Args: rules_only: the same for a language that has weights.
        Raises: ValueError if there are no tables for the language.
        """
        tables = language_of(language)
        reader = _Reader(tables, None if rules_only else Tagger.open(tables))
        registry = RecognizerRegistry(supported_languages=[language])
        for find in RULES if rules_only else (*RULES, tagged):
            registry.add_recognizer(_Recognizer(find, language))
        engine = AnalyzerEngine(
            registry, reader, supported_languages=[language], context_aware_enhancer=_NoContext()
        )
        return cls(tables, policy or NotePolicy(), reader, engine)

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        """Return the spans of each text, in order, none overlapping another.

        Args: known: per text, what is known of its patient; empty where nothing is.
        Raises: NotRedacted if a text cannot be analysed; the text is in no message.
        """
        if known and len(known) != len(texts):
            raise ValueError(f"{len(texts)} texts, but known identifiers of {len(known)}")
        if any(len(text) > MAX_CHARACTERS for text in texts):
            raise NotRedacted(f"a note has at most {MAX_CHARACTERS} characters")
        try:
            whole = [Composed(text) for text in texts]
            read = self._reader.process_batch([each.text for each in whole], self.language.code)
            return [
                [whole[place].original(span) for span in self._spans(reading, known[place] if known else ())]
                for place, (_, reading) in enumerate(read)
            ]
        except Exception:
            raise NotRedacted("the analysis failed") from None  # its message may hold the text

    def _spans(self, reading: Reading, known: Sequence[Known]) -> list[Span]:
        page = reading.page
        if not page.text.strip():
            return []
        results = self._analyzer.analyze(
            page.text, self.language.code, nlp_artifacts=reading, score_threshold=0.0
        )
        found = [
            Span(r.start, r.end, Category(kind), r.score, found_by)
            for r in results
            for kind, _, found_by in (r.entity_type.partition(BY),)
            if Category(kind) in self.policy.categories  # a kind that stays hides none that goes
        ]
        found = merged([*without_terms(page, found), *known_spans(page.text, known, self.language)])
        found = merged([*found, *longer_names(page, found), *paired_days(page, found)])
        found = merged([*found, *address_gaps(page, found), *whole_places(page, found)])
        again = without_terms(page, list(repeated(page, found)))
        kept = self.policy.categories
        return [
            span for span in merged([*found, *again]) if span.category in kept or span.found_by == "known"
        ]
