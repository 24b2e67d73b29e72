"""`fedtwin node listen-dicom` as a hospital starts it: a process that takes images, loads and keeps them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pynetdicom")

from pydicom.uid import CTImageStorage  # noqa: E402 (after the skips)
from pynetdicom import AE  # noqa: E402

from node.home import NodeHome  # noqa: E402
from tests.fedtwin.conftest import Fedtwin  # noqa: E402
from tests.node.ingest.test_dicom import SERIES, STUDY, image  # noqa: E402
from tests.node.ingest.test_dicom_stow import KIND, TOKEN, body, encoded  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def listening(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "fedtwin", "node", "listen-dicom", "--home", str(home), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def token_of(folder: Path) -> Path:
    path = folder / "stow.token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def test_images_that_come_by_both_ways_are_loaded_and_kept_without_identity(
    hospital: Path, tmp_path: Path
) -> None:
    token = token_of(tmp_path)
    options = ["--sender", "CT1", "--port", "0", "--stow-port", "0", "--token-file", str(token)]
    with listening(hospital, *options, "--keep-images", "--load-every-s", "600") as (process, said):
        entity = AE(ae_title="CT1")
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", said["c_store"], ae_title="FEDTWIN")
        assert association.is_established
        assert association.send_c_store(image()).Status == 0
        association.release()
        answer = httpx.post(
            f"http://127.0.0.1:{said['stow']}/studies",
            content=body(encoded()),
            headers={"content-type": KIND, "authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert json.loads(out.strip().splitlines()[-1]) == {"listening": False, "stored": 2, "refused": 0}
    assert list((hospital / "inbox" / "dicom").glob("*.dcm")) == []
    with duckdb.connect(str(NodeHome(hospital).store), read_only=True) as store:
        rows = store.execute(
            "SELECT person_id, image_study_uid, image_series_uid, number_of_instances"
            " FROM fedtwin_waiting_image_occurrence"
        ).fetchall()
    assert [row[3] for row in rows] == [2]
    person, study, series, _ = rows[0]
    kept = sorted((hospital / "images").rglob("*.dcm"))
    assert [path.parent for path in kept] == [hospital / "images" / str(person) / study / series] * 2
    for path in kept:
        made = pydicom.dcmread(path)
        assert made.PatientID == str(person)
        assert made.PatientIdentityRemoved == "YES"
        written = path.read_bytes()
        assert not any(word in written for word in (b"Secret", STUDY.encode(), SERIES.encode(), b"P-0042"))
    log = (hospital / "logs" / "listen-dicom.log").read_text()
    assert not any(word in log for word in ("Secret", STUDY, SERIES, "P-0042", TOKEN))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--sender"),
        (("--sender", "CT1", "--host", "0.0.0.0"), "--tls"),
        (("--stow-port", "0"), "--token-file"),
        (("--sender", "a title that is too long"), "16 characters"),
        (("--sender", "CT1", "--host", "everywhere"), "address"),
    ],
)
def test_wrong_options_are_told(
    fedtwin: Fedtwin, hospital: Path, options: tuple[str, ...], told: str
) -> None:
    said = fedtwin("node", "listen-dicom", "--home", hospital, *options)
    assert said.code == 2
    assert said.code == 2
    assert told in said.err.replace("\n", " ")


def test_a_token_that_others_may_read_is_refused(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    token = token_of(tmp_path)
    token.chmod(0o644)
    options = ("--stow-port", "0", "--token-file", token)
    said = fedtwin("node", "listen-dicom", "--home", hospital, *options)
    assert said.code == 2
    assert said.code == 2
    assert "others may read it" in said.err.replace("\n", " ")
