"""The review page: every leak and needless removal visible, nothing fetched, for its owner only."""

import stat
from html.parser import HTMLParser
from pathlib import Path

from deid.evaluation import score
from deid.evaluation_page import write_page
from deid.gold_formats import GoldDocument, GoldSpan
from deid.spans import Category, Span

TEXT = "Ann <b>Lee</b> saw Dr Foley & son."
NAME = GoldSpan(0, 14, Category.NAME, "NAME")


class Marks(HTMLParser):
    """Collects the text of each <mark> by its class, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.tags: set[str] = set()
        self.text: list[str] = []
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "mark":
            self._open = dict(attrs)["class"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "mark":
            self._open = None

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open:
            self.found.setdefault(self._open, []).append(data)


def page_of(tmp_path: Path, spans: list[Span], *documents: GoldDocument) -> tuple[Marks, Path]:
    given = list(documents) or [GoldDocument("d1", TEXT, (NAME,))]
    path = tmp_path / "review.html"
    predicted = [spans for _ in given]
    write_page(path, given, predicted, score(given, predicted), title="Review")
    marks = Marks()
    marks.feed(path.read_text())
    return marks, path


def test_a_leak_is_red_what_was_found_green_and_a_needless_removal_struck_through(tmp_path: Path) -> None:
    marks, _ = page_of(tmp_path, [Span(0, 3, Category.NAME), Span(22, 27, Category.NAME, 0.9, "surnames")])
    assert marks.found["leak"][1:] == [" <b>Lee</b>"]  # the first stands in the legend
    assert marks.found["found"][1:] == ["Ann"]
    assert marks.found["excess"][1:] == ["Foley"]
    assert "surnames" in "".join(marks.text)


def test_texts_are_escaped_and_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    marks, path = page_of(tmp_path, [])
    assert not marks.tags & {"script", "img", "link", "iframe", "b"}
    assert "default-src 'none'" in path.read_text()


def test_the_page_is_for_its_owner_even_where_a_file_with_wider_rights_was_there(tmp_path: Path) -> None:
    (tmp_path / "review.html").touch(mode=0o644)
    _, path = page_of(tmp_path, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_documents_without_errors_are_not_shown_and_those_with_leaks_come_first(tmp_path: Path) -> None:
    spans = [Span(0, 14, Category.NAME)]
    clean = GoldDocument("clean", TEXT, (NAME,))
    excess = GoldDocument("excess", TEXT, ())
    leaks = GoldDocument("leaks", TEXT, (NAME, GoldSpan(18, 27, Category.NAME, "NAME")))
    text = "".join(page_of(tmp_path, spans, clean, excess, leaks)[0].text)
    assert "clean" not in text
    assert text.index("leaks 1 leaks") < text.index("excess 0 leaks")


def test_the_whole_text_stands_on_the_page_character_by_character(tmp_path: Path) -> None:
    _, path = page_of(tmp_path, [Span(4, 22, Category.NAME)])
    shown = path.read_text().split("<pre>")[1].split("</pre>")[0]
    parser = Marks()
    parser.feed(shown)
    inside = "".join(text for text in parser.text)
    assert inside.replace("NAME", "").replace("name", "") == TEXT
