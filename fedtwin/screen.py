"""What a command shows: words and progress on stderr, data on stdout, meaning in the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.table import Table

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
    words.print(message)


def emit_json(value: Any) -> None:
    """Write one JSON value to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write a table to stdout."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def emit_fields(fields: Mapping[str, object]) -> None:
    """Write `name: value` lines to stdout."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        sys.stdout.write(f"{name + ':':<{width + 1}} {value}\n")
    sys.stdout.flush()
