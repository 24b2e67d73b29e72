"""A run that its lead stops in the middle of a round: what it leaves at the hospitals; it goes on."""

from __future__ import annotations

import json

import pytest

from coordinator.flower.run_folder import AFTER_STEP
from fedtwin.screen import Exit
from fedtwin.training_run import folder_of, stop_run
from privacy.budget import Selection
from privacy.ledger import Ledger
from protocols.clock import SystemClock
from sim.network import LocalNetwork
from tests.network import test_training_crashes as crashes
from tests.network.test_training_crashes import LIMIT_S, ROUNDS, STEPS, committed, start, until

network = crashes.network
AT_HAND = 1  # step that a hospital may have paid for in the milliseconds before it was told of the end


def held(network: LocalNetwork, slug: str) -> int:
    """Return how many reservations a hospital's ledger holds that nothing has ended."""
    ledger = Ledger(network.node_home(slug) / "ledger.sqlite", clock=SystemClock(), read_only=True)
    try:
        return ledger.open_reservations(Selection())
    finally:
        ledger.close()


def run_names(network: LocalNetwork) -> list[str]:
    """Return the runs that the coordinator keeps. Read there: a command would take as long as a round."""
    return [plan.parent.name for plan in (network.coordinator_home / "runs").glob("*/study.json")]


def steps_done(network: LocalNetwork) -> int:
    """Return the steps whose sums were opened, as the run's status says."""
    found = [folder_of(run, home=network.coordinator_home).status() for run in run_names(network)]
    return sum(status.steps for status in found if status is not None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_run_holds_no_budget_at_the_hospitals_and_goes_on(network: LocalNetwork) -> None:
    home = ["--home", str(network.coordinator_home)]
    running = start(network)
    try:
        until("the first steps", lambda: steps_done(network) >= 5)
        (run,) = run_names(network)
        stopped = stop_run(run, home=network.coordinator_home, after=AFTER_STEP)
        assert stopped.state == "stopped"
        out, err = running.communicate(timeout=LIMIT_S)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == Exit.OK, err
    kept = json.loads(out)
    assert kept["state"] == "stopped"
    assert 5 <= kept["steps"] < ROUNDS * STEPS
    assert kept["parameters"]
    until("the reservations to end", lambda: not any(held(network, slug) for slug in network.sites))
    before = {slug: committed(network, slug) for slug in network.sites}
    assert all(paid <= kept["steps"] + AT_HAND for paid in before.values())
    assert sum(paid >= kept["steps"] for paid in before.values()) >= 3
    resumed = start(network, "--resume", run)
    try:
        out, err = resumed.communicate(timeout=LIMIT_S)
    finally:
        resumed.kill()
        resumed.wait()
    assert all(committed(network, slug) <= ROUNDS * STEPS for slug in network.sites)
    again = network.fedtwin_json(["train", "show", run, *home])
    assert again["steps"] > kept["steps"]
    assert sum(row["steps"] for row in again["history"]) == again["steps"] <= ROUNDS * STEPS
    assert resumed.returncode == Exit.OK, err
    assert (again["state"], again["round"]) == ("finished", ROUNDS)
    assert [row["round"] for row in again["history"]] == [1, 2, 3]
