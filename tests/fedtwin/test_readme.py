"""The README's commands, read from the README and run in its order: four hospitals, one coordinator, TLS."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.world import World, write_world
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
SIZES = (300, 200, 150, 120)
LIMIT_S = 120.0


def readme_commands() -> list[str]:
    """Return the lines of the README's plain code blocks below "The same by hand", without comments."""
    section = (ROOT / "README.md").read_text().split("## The same by hand")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


class Person:
    """Types commands in one working directory, as one role, and can leave servers running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True)

    def types(self, line: str, *more: str) -> str:
        done = subprocess.run(
            self._command(line, *more),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def leaves_running(self, line: str) -> None:
        with (self.folder / "serve.log").open("ab") as log:
            self.running.append(
                subprocess.Popen(
                    self._command(line),
                    cwd=self.folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def stops(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _command(self, line: str, *more: str) -> list[str]:
        words = shlex.split(line)
        assert words[0] == "fedtwin"
        return [str(Path(sys.executable).with_name("fedtwin")), *words[1:], *more]

    def _environment(self) -> dict[str, str]:
        homes = {
            "FEDTWIN_NODE_HOME": str(self.folder / "node"),
            "FEDTWIN_COORDINATOR_HOME": str(self.folder / "coordinator"),
        }
        return {**os.environ, **homes}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Hospitals, a cohort and a plan that the cautious policy allows."""
    made = write_world(tmp_path / "world", seed=3, sizes=SIZES)
    plan = made.study.read_text()
    for old, new in (
        ('project = "demo"', 'project = "stroke"'),
        ("epsilon = 1.0", "epsilon = 0.8"),
        ("delta = 1e-5", "delta = 1e-6"),
        ("max_sites_per_patient = 1", "max_sites_per_patient = 2"),
        ("rounds = 3", "rounds = 2"),
    ):
        assert old in plan
        plan = plan.replace(old, new)
    made.study.write_text(plan)
    return made


@pytest.fixture
def people(tmp_path: Path, world: World) -> Iterator[dict[str, Person]]:
    """The lead at the coordinator's machine, and staff at each hospital."""
    found = {name: Person(tmp_path / name) for name in ("lead", *(site.slug for site in world.hospitals))}
    for person in found.values():
        for name in ("cohort.json", "study.toml"):
            (person.folder / name).write_bytes((world.folder / name).read_bytes())
    yield found
    for person in reversed(found.values()):
        person.stops()


def wait_until_serving(person: Person) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if json.loads(person.types("fedtwin coordinator status --json"))["serving"]:
            return
        time.sleep(0.5)
    raise AssertionError("the coordinator does not serve")


def wait_for_nodes(person: Person, count: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        nodes = json.loads(person.types("fedtwin coordinator nodes --json"))["nodes"]
        if sum(node["connected"] for node in nodes) == count:
            return
        time.sleep(0.5)
    raise AssertionError(f"{count} nodes did not connect")


def at_the_coordinator(line: str, lead: Person, world: World, said: dict[str, str]) -> None:
    """Run a line as the lead or the researcher; what it says goes into `said`."""
    if line.startswith("fedtwin coordinator init"):
        options = ("--enrolment-port", "--broker-port", "--fleet-port")
        ports = [word for pair in zip(options, map(str, free_ports(3)), strict=True) for word in pair]
        lead.types(line.replace("coordinator.example.org", "127.0.0.1"), *ports)
    elif line == "fedtwin coordinator serve":
        lead.leaves_running(line)
        wait_until_serving(lead)
    elif line.startswith("fedtwin coordinator invite"):
        for site in world.hospitals:
            named = line.replace("Northgate University Hospital", site.title)
            said[site.slug] = json.loads(lead.types(named, "--json"))["token"]
    else:
        said[line] = lead.types(line)


def at_each_hospital(line: str, people: dict[str, Person], world: World, said: dict[str, str]) -> None:
    """Run a line as the staff of every hospital."""
    for site in world.hospitals:
        own = line.replace("TOKEN", said[site.slug]).replace("DATA", str(site.files))
        if line == "fedtwin node serve":
            people[site.slug].leaves_running(own)
        else:
            people[site.slug].types(own)
    if line == "fedtwin node serve":
        wait_for_nodes(people["lead"], len(world.hospitals))


def test_the_readme_runs_as_it_stands(people: dict[str, Person], world: World) -> None:
    lead = people["lead"]
    said: dict[str, str] = {}
    for line in readme_commands():
        if line.startswith("fedtwin node"):
            at_each_hospital(line, people, world, said)
        else:
            at_the_coordinator(line, lead, world, said)

    asked = {line: text for line, text in said.items() if line.startswith("fedtwin query")}
    previewed, counted = (text for line, text in asked.items() if " count " in line)
    assert "nothing was spent" in previewed
    assert "95 % interval" in counted
    (spent,) = (text for line, text in asked.items() if " budget " in line)
    assert "2 releases" in spent
    runs = json.loads(lead.types("fedtwin train list --json"))
    assert "finished" in json.dumps(runs)
    for site in world.hospitals:
        left = json.loads(people[site.slug].types("fedtwin node budget --json"))
        assert 0.8 < left["projects"]["stroke"]["spent"]["epsilon"] <= 1.0


def test_at_a_hospital_three_commands_lead_from_install_to_serving() -> None:
    lines = readme_commands()
    serving = lines.index("fedtwin node serve")
    assert [line.split()[2] for line in lines[: serving + 1] if line.startswith("fedtwin node")] == [
        "join",
        "ingest",
        "serve",
    ]
