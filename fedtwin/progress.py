"""Progress bars on stderr: drawn on a terminal, one plain line per finished step elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from fedtwin.screen import say, words


@dataclass
class Bar:
    """One line of progress. `to` sets where it stands; `describe` changes its words."""

    progress: Progress
    task: TaskID

    def to(self, completed: float, *, total: float | None = None) -> None:
        """Say how much is done, and of how much if that is known by now."""
        self.progress.update(self.task, completed=completed, total=total)

    def describe(self, text: str) -> None:
        """Change the words beside the bar."""
        self.progress.update(self.task, description=text)


def _progress(*columns: ProgressColumn) -> Progress:
    """Return a display that leaves nothing behind, and draws nothing where nobody watches."""
    return Progress(*columns, console=words, transient=True, disable=not words.is_terminal)


@contextmanager
def bar(text: str, *, total: float | None = None, unit: str = "") -> Iterator[Bar]:
    """Show a bar while the block runs; without `total` it only says that work goes on."""
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24)]
    counter = [MofNCompleteColumn(), TextColumn(unit)] if total is not None or unit else []
    with _progress(*columns, *counter, TimeElapsedColumn()) as progress:
        yield Bar(progress, progress.add_task(text, total=total))


@contextmanager
def step(text: str, *, number: int | None = None, of: int | None = None) -> Iterator[Bar]:
    """Announce a step, show a spinner while it runs, and leave one line that says it is done."""
    label = f"[bold]{number}/{of}[/bold] {text}" if number is not None else text
    with _progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
        task = progress.add_task(label, total=None)
        try:
            yield Bar(progress, task)
        except BaseException:
            say(f"[red]✗[/red] {label}")
            raise
        elapsed_s = progress.tasks[task].elapsed or 0.0
    say(f"[green]✓[/green] {label} [dim]({elapsed_s:.1f} s)[/dim]")
