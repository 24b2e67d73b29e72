"""What a command shows: words and progress on stderr, data on stdout, meaning in the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.table import Table
from rich.text import Text

words = Console(stderr=True, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """What an exit code of `fedtwin` means."""

    OK = 0
    FAULT = 1  # a bug or an outage: something that should work did not
    USAGE = 2  # the command, a file or an option is wrong
    REFUSED = 3  # a hospital, a policy or a budget said no; the code says why


class Stop(Exception):
    """End the command with `code`, after saying `message` (words for a person, never patient values)."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def say(message: str) -> None:
    """Write words for a person to stderr."""
    try:
        words.print(message)
    except MarkupError:  # a file's name may look like an end of markup
        words.print(message, markup=False)


def emit_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())  # a file's name may be no text
    sys.stdout.flush()


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a table to stdout, its cells as they are: nothing in them is markup."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def printable(text: str) -> str:
    """Return the text with signs that would steer a terminal, or are no text at all, as escapes.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def emit_fields(fields: Mapping[str, object]) -> None:
    """Write `name: value` lines to stdout."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        sys.stdout.write(f"{name + ':':<{width + 1}} {value}\n")
    sys.stdout.flush()
