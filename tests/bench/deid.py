"""De-identification of notes, side by side: ours, Presidio as shipped, Philter where it could be installed.

`make bench-deid`. The texts are the public marked sets of ../shared/data/deid_text, and generated documents
of 22 kinds that the tagger has not learned from (tests/deid/styles), a third of them with names that no list
has; figures are of the half of the documents that nobody looked at while developing
(deid.gold_formats.is_dev). All finders read the same texts in this one process, one after another in turns,
so that a slow machine slows all of them. Where ours leaks is written to build/deid-leaks-*.tsv, by document
and place; clinical terms that it removes to build/deid-clinical-terms-touched.tsv.
"""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from deid.evaluation import Report, score
from deid.evaluation_peers import PresidioAsShipped
from deid.gold_formats import GoldDocument, is_dev, read
from deid.spans import DIRECT, Category, Finder, Span
from tests.bench.deid_clinical import Sentence, sentences
from tests.bench.deid_philter import Philter, available
from tests.bench.figure import Figure
from tests.conftest import SHARED_DATA
from tests.deid.styles.documents import documents

SETS = {"OUTIS": "dev_outis_cc0.json", "Presidio synthetic": "dev_presidio_synth_v2.json"}
TURNS = 4  # each finder reads a quarter, then the next one does
QUICK = 60  # documents
LISTS = Path(__file__).parents[2] / "build"
FLOORS = {
    "char_recall": 0.99,
    "token_precision": 0.90,
    "fully_masked_documents": 0.85,
    "over_redaction": 0.02,
}
NAMES, DIRECT_IDS, SPEED = 0.98, 0.99, 3.0


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield for each set and finder the shares of the test half, and how fast it was against Presidio."""
    finders: dict[str, Finder] = {"Presidio as shipped": PresidioAsShipped.open()}
    if available():
        finders["Philter"] = Philter.open()
    ours = _ours()
    if ours is not None:
        finders = {"ours": ours} | finders
    for name, finder in finders.items():
        yield from _clinical(name, finder, quick=quick)
    yield from _memory()
    for name, every in _sets():
        unseen = [one for one in every if not is_dev(one.id)]
        unseen = unseen[:: max(len(unseen) // QUICK, 1) if quick else 1]
        reports, speeds = _compared(finders, unseen)
        if "ours" in reports:
            _list_leaks(name, reports["ours"])
        for finder, report in reports.items():
            yield from _shares(f"{name}, {finder}", report)
            speed, presidio = speeds[finder], speeds["Presidio as shipped"]
            yield Figure(f"{name}, {finder}: speed", speed, "characters/s", presidio, "Presidio as shipped")


def _sets() -> Iterator[tuple[str, list[GoldDocument]]]:
    for name, file in SETS.items():
        if (path := SHARED_DATA / "deid_text" / file).is_file():
            yield name, read(path)
    yield "22 kinds", list(documents())


def _ours() -> Finder | None:
    try:
        from deid.notes import NoteFinder
    except ModuleNotFoundError:
        return None
    return NoteFinder.open(language="en")


def _clinical(name: str, finder: Finder, *, quick: bool) -> Iterable[Figure]:
    """Yield what is removed of clinical terms in sentences in which nobody is named."""
    texts = sentences()[:: 20 if quick else 1 if name == "ours" else 5]  # the others take minutes for all
    removed = 0
    touched: list[Sentence] = []
    for one, spans in zip(texts, finder.find([one.text for one in texts]), strict=True):
        lost = sum(max(0, min(span.end, one.end) - max(span.start, one.start)) for span in spans)
        removed += lost
        if lost:
            touched.append(one)
    characters = sum(one.end - one.start for one in texts)
    yield Figure(f"clinical terms, {name}: over_redaction", removed / characters, "share", 0.01, "at most")
    yield Figure(f"clinical terms, {name}: hard negatives touched", len(touched), f"of {len(texts)} terms")
    if name == "ours":
        _write("clinical-terms-touched", ["term", *(one.text[one.start : one.end] for one in touched)])


def _memory() -> Iterable[Figure]:
    """Yield what a process of its own takes that finds identity in 2,000 notes of 1,000 characters."""
    words = (
        "from deid.notes import NoteFinder; from tests.bench.deid_cores import peak_mib;"
        " f = NoteFinder.open(language='en');"
        " [f.find(['Mr. Oswin Tarrow was seen on 3/4/2019 for chest pain. ' * 20] * 100) for _ in range(20)];"
        " print(peak_mib())"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    yield Figure("ours: memory (VmHWM)", float(done.stdout), "MiB", 1536, "at most")


def _compared(
    finders: dict[str, Finder], documents: list[GoldDocument]
) -> tuple[dict[str, Report], dict[str, float]]:
    """Let the finders take turns over the documents; return their reports and characters a second."""
    spans: dict[str, list[list[Span]]] = {name: [] for name in finders}
    seconds = dict.fromkeys(finders, 0.0)
    for finder in finders.values():  # what is loaded on first use is not the speed of reading
        finder.find([documents[0].text])
    size = -(-len(documents) // TURNS)
    for start in range(0, len(documents), size):
        texts = [document.text for document in documents[start : start + size]]
        for name, finder in finders.items():
            began = time.process_time()
            spans[name] += finder.find(texts)
            seconds[name] += time.process_time() - began
    characters = sum(len(document.text) for document in documents)
    reports = {name: score(documents, found) for name, found in spans.items()}
    return reports, {name: characters / used for name, used in seconds.items()}


def _list_leaks(name: str, report: Report) -> None:
    """Write where ours leaks, by document and place and without a word of the texts, beside the figures."""
    lines = [
        f"{leak.document}\t{leak.start}\t{leak.end}\t{leak.category.value}\t{leak.label}"
        for leak in report.leaks
    ]
    _write(f"leaks-{name.lower().replace(' ', '-')}", ["document\tstart\tend\tcategory\tlabel", *lines])


def _write(name: str, lines: list[str]) -> None:
    """Keep a list beside the figures, and say where."""
    LISTS.mkdir(exist_ok=True)
    path = LISTS / f"deid-{name}.tsv"
    path.write_text("\n".join(lines) + "\n")
    sys.stderr.write(f"# {len(lines) - 1} in {path}\n")


def _shares(name: str, report: Report) -> Iterable[Figure]:
    for what, floor in FLOORS.items():
        share = getattr(report, what)
        if share.value is not None:
            goal = "at most" if what == "over_redaction" else "at least"
            interval = f"95 % {share.low:.4f} to {share.high:.4f}"
            yield Figure(f"{name}: {what}", share.value, "share", floor, f"{goal}; {interval}")
    yield Figure(f"{name}: leaks", len(report.leaks), "marks")
    for group, share in report.by_group.items():
        if share.value is not None:
            yield Figure(f"{name}: characters of {group}", share.value, "share")
    if (share := report.by_label.get("NAME-NO-LIST")) is not None and share.value is not None:
        yield Figure(f"{name}: marks of names in no list", share.value, "share", NAMES, "at least")
    for kind, one in report.by_category.items():
        floor = NAMES if kind is Category.NAME else DIRECT_IDS if kind in DIRECT else None
        if one.entity_recall.value is not None:
            yield Figure(
                f"{name}: marks of {kind.value}", one.entity_recall.value, "share", floor, "at least"
            )
