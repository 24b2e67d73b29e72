"""How a result, a preview or a budget is shown: plain text for a console, a small table for a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass

LONGEST = 40  # rows that are shown; the object itself has them all

_LEFT = 'style="text-align:left;padding:.15em 1em .15em 0;border:0;background:none"'
_RIGHT = 'style="text-align:right;padding:.15em 1em .15em 0;border:0;background:none"'


@dataclass(frozen=True, slots=True)
class View:
    """A headline, a table of texts (the first column names the rows), and facts below it."""

    headline: str
    columns: list[str]
    rows: list[list[str]]
    facts: dict[str, str]

    def text(self) -> str:
        """Return aligned lines."""
        lines = [self.columns, *self.rows[:LONGEST]]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        found = [self.headline]
        if self.rows:
            found += [_aligned(line, widths) for line in lines]
        if self._left_out:
            found.append(f"… and {self._left_out} more")
        return "\n".join([*found, *(f"{name}: {words}" for name, words in self.facts.items())])

    def html(self) -> str:
        """Return a table for a notebook. Texts are escaped, colours are those of the page, nothing runs."""
        table = (
            '<table style="border-collapse:collapse;border:0;font-variant-numeric:tabular-nums">'
            f'<thead style="border-bottom:1px solid currentColor">{_line(self.columns, "th")}</thead>'
            f"<tbody>{''.join(_line(row, 'td') for row in self.rows[:LONGEST])}</tbody></table>"
        )
        more = f"<p>… and {self._left_out} more</p>" if self._left_out else ""
        facts = "<br>".join(
            f"{html.escape(name)}: {html.escape(words)}" for name, words in self.facts.items()
        )
        return (
            '<div style="color:inherit;max-width:60em">'
            f"<p><strong>{html.escape(self.headline)}</strong></p>{table if self.rows else ''}{more}"
            f'<p style="opacity:.75;font-size:.85em;line-height:1.4">{facts}</p></div>'
        )

    @property
    def _left_out(self) -> int:
        return max(len(self.rows) - LONGEST, 0)


def _aligned(cells: list[str], widths: list[int]) -> str:
    return "  ".join(
        cell.rjust(width) if place else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def _line(cells: list[str], tag: str) -> str:
    inner = "".join(
        f"<{tag} {_RIGHT if place else _LEFT}>{html.escape(text)}</{tag}>" for place, text in enumerate(cells)
    )
    return f'<tr style="background:none">{inner}</tr>'
