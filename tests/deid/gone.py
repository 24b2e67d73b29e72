"""What a finder leaves of a text."""

from deid.notes import NoteFinder


def gone(finder: NoteFinder, text: str) -> str:
    """Return the text with what is found as underscores."""
    letters = list(text)
    for span in finder.find([text])[0]:
        letters[span.start : span.end] = "_" * (span.end - span.start)
    return "".join(letters)
