"""The words that stay in a name or an address when what identifies changes: surrogates_words.toml."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources


@functools.cache
def words(kind: str) -> frozenset[str]:
    """Return the words of one kind. Raises: KeyError."""
    return frozenset(_table()[kind].split())


@functools.cache
def _table() -> dict[str, str]:
    return tomllib.loads(
        resources.files("deid").joinpath("surrogates_words.toml").read_text(encoding="utf-8")
    )
