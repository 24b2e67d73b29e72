"""A network of real processes on loopback, through the real command, from nothing to answers and back."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import fedtwin
from fedtwin.screen import Exit
from protocols.refusal import RefusalCode, Refused
from sim.network import LocalNetwork, NetworkFault, Site, free_ports
from sim.world import World, write_world

SIZES = (60, 40, 30, 20)
GONE_WITHIN_S = 10.0  # after SIGKILL, on a busy machine


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), seed=4, sizes=SIZES)


@pytest.fixture(scope="module")
def network(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    sites = [Site(hospital.slug, hospital.title, hospital.files) for hospital in world.hospitals]
    with LocalNetwork(tmp_path_factory.mktemp("network"), sites) as found:
        found.up()
        yield found


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedtwin", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(8))) == 8


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with LocalNetwork(tmp_path, []) as empty, pytest.raises(NetworkFault, match="left with code 2"):
        empty.fedtwin(["coordinator", "status", "--home", str(tmp_path / "nothing")])


def test_a_count_through_the_command_lies_near_the_truth(network: LocalNetwork, world: World) -> None:
    done = command(
        "query", "count", world.cohort, "--epsilon", 2, "--project", "demo", "--max-sites-per-patient", 1,
        "--profile", network.researcher_profile, "--json",
    )  # fmt: skip
    assert done.returncode == Exit.OK, done.stderr
    answer = json.loads(done.stdout)
    assert answer["contributors"] == len(SIZES)
    # six standard deviations: once in 500 million runs it lies farther off
    assert abs(answer["estimate"] - world.truth["count"]["recorded"]) < 6.5 * answer["standard_deviation"]


def test_each_hospital_was_charged_the_same_and_its_trail_holds(network: LocalNetwork) -> None:
    client = fedtwin.connect(network.researcher_profile)
    before = [_budget(network, slug)["spent"]["events"] for slug in network.sites]
    stages: list[str] = []
    client.count(
        {"index": {"kind": "condition", "concepts": [201826]}},
        epsilon=0.2,
        project="demo",
        max_sites_per_patient=1,
        progress=lambda stage, sites: stages.append(stage),
    )
    after = [_budget(network, slug)["spent"]["events"] for slug in network.sites]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1] * len(SIZES)
    assert stages
    for slug in network.sites:
        home = network.node_home(slug)
        assert network.fedtwin_json(["node", "audit", "verify", "--home", str(home)])["holds"]


def test_a_question_of_another_project_is_refused_with_exit_code_3(
    network: LocalNetwork, world: World
) -> None:
    done = command(
        "query", "count", world.cohort, "--epsilon", 0.1, "--project", "other",
        "--profile", network.researcher_profile, "--json",
    )  # fmt: skip
    assert done.returncode == Exit.REFUSED, done.stderr
    assert json.loads(done.stdout)["refused"] == RefusalCode.NOT_ALLOWED


def test_a_researcher_may_not_list_hospitals(network: LocalNetwork) -> None:
    with pytest.raises(Refused) as refused:
        fedtwin.connect(network.researcher_profile).nodes()
    assert refused.value.code in (RefusalCode.UNKNOWN_SIGNER, RefusalCode.NOT_ALLOWED)


def test_a_plan_nobody_approved_does_not_run(network: LocalNetwork, world: World) -> None:
    done = command("train", "run", world.study, "--home", network.coordinator_home, "--json")
    assert done.returncode == Exit.REFUSED, done.stderr
    assert json.loads(done.stdout)["refused"] == RefusalCode.NOT_APPROVED
    home = network.node_home("northgate")
    (plan,) = network.fedtwin_json(["node", "studies", "--home", str(home)])["studies"]
    assert (plan["status"], plan["proposed_by"]) == ("pending", "lead")


def test_status_budget_doctor_and_audit_work_beside_a_serving_node(network: LocalNetwork) -> None:
    home = network.node_home("northgate")
    status = network.fedtwin_json(["node", "status", "--home", str(home)])
    assert (status["serving"], status["connected"], status["patients"]) == (True, True, SIZES[0])
    done = command("node", "doctor", "--home", home, "--json")
    assert done.returncode == Exit.OK, done.stdout
    assert json.loads(done.stdout)["healthy"]
    assert network.fedtwin_json(["coordinator", "status", "--home", str(network.coordinator_home)])["serving"]


def test_ingest_beside_a_serving_node_is_refused_with_words(network: LocalNetwork, world: World) -> None:
    home = network.node_home("northgate")
    done = command("node", "ingest", world.hospitals[0].files, "--home", home)
    assert done.returncode == Exit.REFUSED
    assert "stop it" in done.stderr


def test_a_token_works_once(network: LocalNetwork, tmp_path: Path) -> None:
    invited = network.fedtwin_json(["coordinator", "invite", "Late", "--home", str(network.coordinator_home)])
    token = invited["token"]
    assert command("node", "join", token, "--home", tmp_path / "first").returncode == Exit.OK
    again = command("node", "join", token, "--home", tmp_path / "second", "--json")
    assert again.returncode == Exit.REFUSED
    assert json.loads(again.stdout)["refused"] == RefusalCode.INVITATION_USED
    assert not (tmp_path / "second").exists()


def test_a_killed_node_is_missed_and_comes_back(network: LocalNetwork) -> None:
    before = _budget(network, "valley")
    network.kill("valley")
    network.wait_for_nodes(count=3)
    network.restart("valley")
    network.wait_for_nodes()
    assert _budget(network, "valley")["spent"] == before["spent"]


def test_everything_is_stopped_at_the_end_even_what_a_killed_process_left(tmp_path: Path) -> None:
    with LocalNetwork(tmp_path, []) as network:
        network.start_coordinator()
        assert len(_working_in(tmp_path)) >= 2  # the coordinator and its SuperLink
        network.kill("coordinator")  # its SuperLink dies with it, or is ended below
    ends = time.monotonic() + GONE_WITHIN_S
    while _working_in(tmp_path) and time.monotonic() < ends:  # killed, and not yet gone
        time.sleep(0.05)
    assert not _working_in(tmp_path)


def _budget(network: LocalNetwork, slug: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = network.fedtwin_json(
        ["node", "budget", "--home", str(network.node_home(slug))]
    )
    return found


def _working_in(folder: Path) -> list[int]:
    """Return the processes whose command line names `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in w for w in process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found
