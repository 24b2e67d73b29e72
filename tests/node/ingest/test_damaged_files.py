"""Thousands of damaged and hostile files: each ends in quarantine or a clear error, in time, telling nothing.

A few hundred with a fixed seed run always. 5,000 more go through their readers, and 500 into a node.
"""

import logging
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from node.genomes.store import GenomeStore
from node.ingest.delimited import open_delimited
from node.ingest.errors import IngestError, NoMapping
from node.ingest.mapping import read_mapping
from node.ingest.pipeline import Pipeline
from node.ingest.readers.vcf import VariantFile
from node.ingest.registry import READERS, reader_for
from node.omop.loading import Again
from tests.node.ingest.damaged import WORD, Seed, damaged, seeds
from tests.node.made_facts import CLOCK, Hospital, hospital

LIMIT_S = 20.0  # of one file; each is below a megabyte, but for bombs
SEED = 20260601
SIGNALS = '[patients]\n"*" = "anna"\n'


class TooLong(Exception):
    """A file took longer than its time."""


@contextmanager
def in_time(name: str) -> Iterator[None]:
    """Stop what takes longer than a file may."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(name)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(case: Seed, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "signals.toml").write_text(SIGNALS)
    for name, data in case.beside.items():
        (folder / name).write_bytes(data)
    path = folder / case.name
    path.write_bytes(case.data)
    return path


def silent(text: object) -> None:
    assert WORD.lower() not in str(text).lower()


def read_alone(case: Seed, path: Path) -> str:
    """What a file's reader makes of it, without a store."""
    try:
        if case.format == "genotypes":
            return "read" if list(VariantFile(path).batches()) else "empty"
        if case.format == "delimited":
            mapping = read_mapping(path.parent / "labs.toml")
            rows = [len(rows) for _, rows in open_delimited(path, mapping).batches(batch_rows=1000)]
            return "read" if sum(rows) else "empty"
        reader = reader_for(path, READERS)
        if reader is None:
            return "not read"
        if hasattr(reader, "samples"):  # of signals
            for samples in reader.samples(path, batch_records=1000):
                silent(samples.turned_away)
            return "read"
        if not hasattr(reader, "read"):
            return "needs a store"
        records = away = 0
        for batch in reader.read(path, batch_records=1000):
            records += batch.records
            away += sum(turned.whole_record for turned in batch.turned_away)
            silent(batch.turned_away)
    except IngestError as error:
        silent(str(error).replace(path.name, ""))
        return "unreadable"
    assert away <= records
    return "turned away" if away else "read"


def one_after_another(
    part: int, count: int, where: Path, taken: Callable[[Seed, Path], str]
) -> Counter[tuple[str, str]]:
    """What became of damaged files; all that went wrong is told at once."""
    rng = np.random.default_rng([SEED, part])
    outcomes: Counter[tuple[str, str]] = Counter()
    broken: list[tuple[int, str, str, str]] = []
    good = seeds()
    for number in range(count):
        case = damaged(good[(part * count + number) % len(good)], rng)
        path = written(case, where / str(number))
        try:
            with in_time(f"{part}/{number}: {case.format}"):
                outcomes[case.format, taken(case, path)] += 1
        except Exception as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)[-4:]]
            broken.append((number, case.format, type(error).__name__, " > ".join(frames)))
        path.unlink()
    assert not broken, broken
    return outcomes


def test_damaged_files_end_in_a_reason_and_tell_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        outcomes = one_after_another(0, 300, tmp_path, read_alone)
    silent(caplog.text)
    silent("".join(capfd.readouterr()))
    counts: Counter[str] = Counter()
    for (_, outcome), number in outcomes.items():
        counts[outcome] += number
    assert counts["turned away"] + counts["unreadable"] > 50
    assert counts["read"] > 50  # harm that does not matter


@pytest.mark.parametrize("seed", seeds(), ids=lambda seed: seed.name)
def test_the_good_files_are_stored(tmp_path: Path, seed: Seed) -> None:
    """So that what is damaged was something."""
    node = Node(tmp_path / "node")
    allowed = ("stored", "turned away") if seed.format == "dicom" else ("stored",)  # by the image tables
    assert node.taken(written(seed, tmp_path / "case")) in allowed
    node.close()


class Node:
    """A node that takes in one file after another."""

    def __init__(self, where: Path) -> None:
        self.site: Hospital = hospital(where, words=False)
        self.genomes = GenomeStore(where / "genomes")
        self.pipeline = Pipeline(self.site.store, self.site.vault, CLOCK, again=Again.ADD, readers=READERS)

    def taken(self, path: Path) -> str:
        """Take a file in and say what became of it. What is none of our errors comes through."""
        try:
            if ".vcf" in path.name:
                load = self.genomes.add(path, self.site.vault, namespace="patient")
                assert load.records == load.stored + sum((load.turned_away or {}).values())
                return "stored" if load.stored else "turned away"
            report = self.pipeline.ingest([path])
        except NoMapping:
            return "not read"
        except IngestError as error:
            silent(str(error).replace(path.name, ""))
            return type(error).__name__
        (one,) = report.sources
        silent(str(one).replace(path.name, ""))
        if one.unreadable is not None:
            return "unreadable"
        assert one.records_in == one.stored + one.quarantined
        return "stored" if one.stored else "turned away" if one.records_in else "empty"

    def close(self) -> None:
        self.site.store.close()
        self.site.vault.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 11))
def test_five_thousand_damaged_files_are_read_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], part: int
) -> None:
    with caplog.at_level(logging.DEBUG):
        outcomes = one_after_another(part, 500, tmp_path, read_alone)
    silent(caplog.text)
    silent("".join(capfd.readouterr()))
    assert outcomes.total() == 500


@pytest.mark.slow
@pytest.mark.parametrize("part", range(101, 106))
def test_a_node_takes_damaged_files_in_or_turns_them_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], part: int
) -> None:
    node = Node(tmp_path / "node")
    with caplog.at_level(logging.DEBUG):
        outcomes = one_after_another(part, 100, tmp_path, lambda case, path: node.taken(path))
    silent(caplog.text)
    silent("".join(capfd.readouterr()))
    assert not _leaks(node.site)
    assert {outcome for _, outcome in outcomes} <= {
        "stored", "turned away", "unreadable", "not read", "empty", "MalformedMapping", "UnreadableSource",
    }  # fmt: skip
    node.close()


def _leaks(site: Hospital) -> list[Any]:
    with closing(site.store.cursor()) as cursor:
        return cursor.execute(
            "SELECT * FROM fedtwin_quarantine WHERE contains(lower(CAST(fedtwin_quarantine AS VARCHAR)), ?)",
            [WORD.lower()],
        ).fetchall()
