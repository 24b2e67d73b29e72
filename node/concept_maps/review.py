"""The review file: suggestions that a person judges, in a table that any spreadsheet opens.

One line per candidate. A person writes `yes` into `decision` at the right one; or changes concept_id to the
right number and writes `yes`; all else stays unmapped. Concept names are there to read, only the number
counts. A file with a line that cannot be right is refused whole, by line and column.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from node.concept_maps.suggestions import Suggestions
from node.omop.code_map import CODE_CHARACTERS, VOCABULARY_CHARACTERS, CodeMapping, content_version

COLUMNS = (
    "decision", "table", "source_vocabulary_id", "source_code", "label", "records", "rank", "concept_id",
    "concept_name", "vocabulary_id", "score",
)  # fmt: skip
YES, NO = ("yes", "y", "x", "1"), ("", "no", "n", "0")
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would run


class MalformedReview(ValueError):
    """A line of the review file cannot be right. Says where, never what."""

    def __init__(self, line: int, column: str, why: str) -> None:
        super().__init__(f"line {line}, {column}: {why}")
        self.line, self.column = line, column


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a person decided, and a name for exactly that."""

    mappings: tuple[CodeMapping, ...]

    @property
    def version(self) -> str:
        """The same decisions have the same name, whatever order and file they stood in."""
        return content_version(self.mappings)


def written(suggestions: Suggestions) -> str:
    """Return the review file for suggestions."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(COLUMNS)
    for one in suggestions.found:
        source = one.source
        head = (
            source.table,
            source.source_vocabulary_id,
            source.source_code,
            source.label,
            source.records_told,
        )
        for rank, (ranked, name, vocabulary) in enumerate(one.candidates, 1):
            lines.writerow(_shown(("", *head, rank, ranked.concept_id, name, vocabulary, ranked.score)))
        if not one.candidates:
            lines.writerow(_shown(("", *head, "", "", "", "", "")))
    return out.getvalue()


def read(text: str) -> Decisions:
    """Return what was decided in a review file.

    Raises: MalformedReview, also if one code was given two concepts.
    """
    decided: dict[tuple[str, str], tuple[int, CodeMapping]] = {}
    for line, row in _rows(text):
        word = row["decision"].strip().lower()
        if word in NO:
            continue
        if word not in YES:
            raise MalformedReview(line, "decision", "neither yes nor no")
        found = _mapping(line, row)
        before = decided.setdefault((found.source_vocabulary_id, found.source_code), (line, found))
        if before[1].target_concept_id != found.target_concept_id:
            raise MalformedReview(line, "decision", f"line {before[0]} gives this code another concept")
    return Decisions(tuple(mapping for _, mapping in decided.values()))


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        for name in ("decision", "source_vocabulary_id", "source_code", "concept_id"):
            if name not in (reader.fieldnames or ()):
                raise MalformedReview(1, name, "no such column")
        for row in reader:
            if None in row or None in row.values():
                raise MalformedReview(
                    reader.line_num, "line", "another number of columns than the first line"
                )
            yield reader.line_num, {name: _bare(value) for name, value in row.items()}
    except csv.Error:
        raise MalformedReview(reader.line_num, "line", "not a line of a CSV file") from None


def _mapping(line: int, row: dict[str, str]) -> CodeMapping:
    number = row["concept_id"].strip()
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 2**63):
        raise MalformedReview(line, "concept_id", "no number above 0")
    for column, longest in (
        ("source_vocabulary_id", VOCABULARY_CHARACTERS),
        ("source_code", CODE_CHARACTERS),
    ):
        if not 0 < len(row[column]) <= longest:
            raise MalformedReview(line, column, f"needs 1 to {longest} characters")
    return CodeMapping(row["source_vocabulary_id"], row["source_code"], int(number), row.get("label", ""))


def _shown(values: tuple[object, ...]) -> list[str]:
    """Cells that a spreadsheet takes for text: a source's code may begin as a formula does."""
    return [f"'{text}" if text.startswith(_FORMULA) else text for text in map(str, values)]


def _bare(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
