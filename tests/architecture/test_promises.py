"""Each promise in the documents names the test that would fail without it; here the names are checked."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/threat-model.md")
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def named_tests() -> list[tuple[str, str, str]]:
    return [
        (document, path, name)
        for document in DOCUMENTS
        for path, name in NAMED.findall((ROOT / document).read_text())
    ]


@pytest.mark.parametrize(("document", "path", "name"), named_tests())
def test_the_named_test_exists(document: str, path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found, f"{document} names {path}::{name}, which does not exist"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_row_of_the_guarantee_table_names_a_test(document: str) -> None:
    text = (ROOT / document).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert rows, f"{document} has no guarantee table"
    assert not [row for row in rows if not NAMED.search(row)]


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)} → {target}")
    assert not broken
