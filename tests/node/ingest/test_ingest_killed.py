"""An ingest that is killed wherever it is, and started again, gives the same store."""

import multiprocessing
import shutil
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from node.omop.store import OmopStore
from tests.node.ingest.test_ingest_order import EARLY, LATE, close, merge, retract
from tests.node.made_facts import HEART, LAB, event, hospital, person, reopened


def big(where: Path) -> list[Path]:
    """Files whose ingest takes a moment."""
    site = hospital(where)
    rng = np.random.default_rng(7)
    for number in range(3):
        who = [f"P{n}" for n in range(40)]
        records = [[person(patient, version=EARLY)] for patient in who] if number == 1 else []
        records += [
            [event("measurement", who[int(rng.integers(40))], LAB, value_number=float(rng.integers(100)),
                   key=f"k{int(rng.integers(1500))}", version=EARLY if number else LATE)]
            for _ in range(600)
        ]  # fmt: skip
        records.append([merge("P1", "P2")] if number == 0 else [retract("k5", None)])
        site.write(f"part{number}", *records)
    close(site)
    return sorted((where / "in").glob("*.facts"))


def ingest(where: str, files: list[str], told: Connection) -> None:
    """In a process of its own: take files in, and tell when that begins and what came of it."""
    site = reopened(Path(where))
    told.send("ready")
    site.take(*map(Path, files), batch_records=150)
    told.send(site.store.content_hash())
    close(site)


def ingest_in_a_process(where: Path, files: list[Path]) -> tuple[BaseProcess, Connection]:
    """Start it, by a server that has the modules loaded already and no store open; wait until it begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=ingest, args=(str(where), [str(file) for file in files], its))
    process.start()
    its.close()
    assert mine.recv() == "ready"
    return process, mine


def site_with_known_patients(where: Path) -> None:
    """The vault draws secrets in this order, wherever the ingest is killed."""
    site = hospital(where)
    for n in range(40):
        site.person_id(f"P{n}")
    close(site)


def test_killed_after_its_last_file_and_started_again_it_ends_in_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are in the store then, and nothing that follows from them."""

    def killed(store: OmopStore) -> None:
        raise KeyboardInterrupt

    stores = {}
    for name in ("whole", "killed"):
        site = hospital(tmp_path / name)
        site.write("part", [person("P1", version=EARLY)], [event("condition", "P1", HEART, key="k")])
        if name == "killed":
            with monkeypatch.context() as patch:
                patch.setattr(OmopStore, "derive", killed)
                with pytest.raises(KeyboardInterrupt):
                    site.take()
            assert not site.rows("SELECT * FROM observation_period")
            close(site)
            site = reopened(tmp_path / name)
        site.take()
        stores[name] = (site.rows("SELECT * FROM observation_period"), site.store.content_hash())
        close(site)
    assert stores["killed"] == stores["whole"]
    assert stores["whole"][0]


@pytest.mark.parametrize("points", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_killed_anywhere_and_started_again_it_ends_in_the_same_store(tmp_path: Path, points: int) -> None:
    files = big(tmp_path / "made")
    whole = tmp_path / "whole"
    site_with_known_patients(whole)
    process, told = ingest_in_a_process(whole, files)
    began = time.monotonic()
    expected = told.recv()
    took = time.monotonic() - began
    process.join()
    rng = np.random.default_rng(11)
    killed = 0
    for point in range(points):
        where = tmp_path / str(point)
        site_with_known_patients(where)
        process, told = ingest_in_a_process(where, files)
        time.sleep(took * float(rng.uniform(0.02, 0.98)))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        told.close()
        site = reopened(where)
        names = {name for (name,) in site.rows("SELECT table_name FROM duckdb_tables()")}
        assert not {name for name in names if name.startswith("stage_")}, point
        site.take(*files, batch_records=150)
        assert site.store.content_hash() == expected, point
        close(site)
        shutil.rmtree(where)
    assert killed
