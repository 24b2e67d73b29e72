"""`fedtwin demo`, whole: on invented hospitals, on the public heart data, and when somebody stops it."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedtwin.screen import Exit

TIME_LIMIT_S = 290  # the issue's limit is about five minutes; alone on two cores it takes one


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedtwin", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


def check(found: dict[str, Any], *, hospitals: int) -> None:
    """Check what the issue asks of the one JSON object."""
    assert len(found["hospitals"]) == hospitals
    low, high = found["count"]["ci95"]
    assert low < found["count"]["estimate"] < high
    assert found["count"]["epsilon"] > 0
    training = found["training"]
    for row in ("local", "federated", "pooled"):
        assert 0.5 < training[row] <= 1.0
    assert training["epsilon"] <= 1.0
    assert training["delta"] == 1e-5
    assert training["rounds"] >= 1
    assert training["seconds_per_round"] > 0
    assert found["query"]["p50_ms"] > 0
    spent = {budget["spent"]["epsilon"] for budget in found["budget"].values()}
    assert len(found["budget"]) == hospitals
    assert found["project"]["epsilon"] == pytest.approx(spent.copy().pop())  # the mirror saw what they paid
    assert set(found["project"]["by_kind"]) == {"breakdown", "count", "training"}
    assert found["project"]["cached"] == 0  # what was timed was asked of the hospitals
    by_sex = found["breakdown"]["consistent"]
    assert set(by_sex) == {"male", "female", "other or unknown"}
    assert sum(cell["value"] for cell in by_sex.values()) == pytest.approx(
        found["breakdown"]["total"]["value"]
    )
    assert len(spent) == 1  # every hospital pays the same
    assert all(audit["holds"] for audit in found["audit"].values())


def working_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in w for w in process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.timeout(TIME_LIMIT_S + 10)
def test_demo_on_invented_hospitals_gives_what_the_issue_asks_for(tmp_path: Path) -> None:
    done = demo("--keep", str(tmp_path))
    assert done.returncode == Exit.OK, done.stderr[-3000:]
    found = json.loads(done.stdout)
    check(found, hospitals=4)
    count = found["count"]
    assert count["truth"]["exact in the stores"] == count["truth"]["recorded in the files"]
    assert abs(count["estimate"] - count["truth"]["exact in the stores"]) < 6.5 * count["standard_deviation"]
    assert found["training"]["auc"]["federated"] > 0.7
    assert all(f"{step}/6" in done.stderr for step in range(1, 7))
    folder = Path(found["folder"])
    assert (folder / "nodes" / "northgate" / "audit.jsonl").is_file()
    page = (folder / "training.html").read_text()
    assert "pooled (not private)" in page
    assert all(f"<td>{group}</td>" in page for group in ("northgate", "female", "65 to 79"))
    assert len(list((folder / "coordinator" / "runs").glob("*/model/signature.json"))) == 1
    assert not working_in(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(TIME_LIMIT_S + 10)
def test_demo_on_the_public_heart_data(tmp_path: Path, shared_data: Path) -> None:
    done = demo("--keep", str(tmp_path), "--data", str(shared_data / "heart"))
    assert done.returncode == Exit.OK, done.stderr[-3000:]
    found = json.loads(done.stdout)
    check(found, hospitals=4)
    assert sum(hospital["patients"] for hospital in found["hospitals"]) == 920
    assert math.isfinite(found["training"]["textbook"])
    assert not working_in(tmp_path)


def test_demo_on_a_folder_without_hospitals_is_a_usage_error(tmp_path: Path) -> None:
    done = demo("--keep", str(tmp_path / "keep"), "--data", str(tmp_path))
    assert done.returncode == Exit.USAGE
    assert "processed.*.data" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_stops_everything_and_says_where_the_logs_are(
    tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fedtwin", "demo", "--keep", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as in a terminal, even where the shell that started the tests turned it off for its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.glob("*/logs/coordinator.log")):
            time.sleep(0.2)
        time.sleep(2)
        running.send_signal(number)
        _, words = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "logs" in words
    assert not working_in(tmp_path)
