"""A run that its lead stops in the middle of a round: what it leaves at the hospitals; it goes on."""

from __future__ import annotations

import json

import pytest

from coordinator.flower.run_folder import AFTER_STEP
from fedtwin.screen import Exit
from fedtwin.training_run import stop_run
from privacy.budget import Selection
from privacy.ledger import Ledger
from protocols.clock import SystemClock
from sim.network import LocalNetwork
from tests.network import test_training_crashes as crashes
from tests.network.test_training_crashes import LIMIT_S, ROUNDS, STEPS, committed, runs, start, until

network = crashes.network


def held(network: LocalNetwork, slug: str) -> int:
    """Return how many reservations a hospital's ledger holds that nothing has ended."""
    ledger = Ledger(network.node_home(slug) / "ledger.sqlite", clock=SystemClock(), read_only=True)
    try:
        return ledger.open_reservations(Selection())
    finally:
        ledger.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_run_holds_no_budget_at_the_hospitals_and_goes_on(network: LocalNetwork) -> None:
    home = ["--home", str(network.coordinator_home)]
    running = start(network)
    try:
        # on a busy machine one of the four may come late, and the run begins with the others
        until("the first steps", lambda: max(committed(network, slug) for slug in network.sites) >= 5)
        (run,) = (str(row["run"]) for row in runs(network))
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
    # of the step at hand a hospital may have paid for what was not opened any more
    assert all(paid <= kept["steps"] + 1 for paid in before.values())
    assert sum(paid >= kept["steps"] for paid in before.values()) >= 3
    again = network.fedtwin_json(["train", "resume", run, *home], timeout_s=LIMIT_S)
    assert (again["state"], again["rounds"]) == ("finished", ROUNDS)
    assert again["steps"] > kept["steps"]
    assert all(committed(network, slug) <= ROUNDS * STEPS for slug in network.sites)
    shown = network.fedtwin_json(["train", "show", run, *home])
    assert [row["round"] for row in shown["history"]] == [1, 2, 3]
    assert sum(row["steps"] for row in shown["history"]) == again["steps"] <= ROUNDS * STEPS
