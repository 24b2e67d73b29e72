"""A fusion model through a whole deployment (processes, TLS, Flower, stores, ledgers), and kills in a look.

The plan names a feature set's file, has three modalities, a head of each site's own, and looks at the model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.flower.run_folder import RunFolder, Status
from privacy import validation
from privacy.budget import Selection
from privacy.ledger import Ledger
from protocols.clock import SystemClock
from sim.network import LocalNetwork, Site
from sim.world import write_world
from tests.network.test_training_crashes import LIMIT_S, runs, until

SIZES = (160, 130, 110)
SET = """
[feature_set]
name = "heart"
version = 1

[[modalities]]
name = "person"

[[modalities]]
name = "vitals"

[[modalities]]
name = "labs"

[[features]]
name = "age"
kind = "age"
range = [30, 90]
modality = "person"

[[features]]
name = "male"
kind = "sex"
concept_id = 8507
modality = "person"

[[features]]
name = "pressure"
kind = "value"
table = "measurement"
concept_id = 3004249
unit_concept_id = 8876
range = [90, 190]
window = [-365, 0]
modality = "vitals"

[[features]]
name = "creatinine"
kind = "value"
table = "measurement"
concept_id = 3016723
unit_concept_id = 8840
range = [0.5, 3]
fill = 1.0
window = [-365, 0]
modality = "labs"
"""
STUDY = """
feature_set = "heart.toml"

[study]
name = "fused"
project = "demo"
model = "fusion"
hidden = [6]
local = "head"

[fusion]
kind = "intermediate"
width = 4
modality_dropout = 0.15

[cohort]
index = { kind = "measurement", concepts = [3004249] }

[outcome]
kind = "present"
table = "condition_occurrence"
concept_id = 316139
window = [1, 3650]

[privacy]
epsilon = 4.0
delta = 1e-5
clip_norm = 1.0
max_sites_per_patient = 2

[training]
rounds = ROUNDS
steps_per_round = STEPS
optimizer = "adam"
learning_rate = 0.05
momentum = 0.9
expected_patients = 300
train_fraction = 0.6

[validation]
every = 1
fraction = 0.2
share = 0.3
loss_bound = 2.0
patience = 0

[sites]
minimum = 3
tolerance = 1
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    world = write_world(tmp_path / "world", seed=6, sizes=SIZES)
    sites = [Site(hospital.slug, hospital.title, hospital.files) for hospital in world.hospitals]
    with LocalNetwork(tmp_path / "network", sites) as found:
        found.up()
        yield found


def approve(network: LocalNetwork, *, rounds: int, steps: int) -> Path:
    """Write the plan beside its feature set and let every hospital approve it."""
    (network.folder / "heart.toml").write_text(SET)
    plan = network.folder / "fused.toml"
    text = STUDY.replace("ROUNDS", str(rounds)).replace("STEPS", str(steps))
    plan.write_text(text)
    for slug in network.sites:
        network.fedtwin(["node", "approve", str(plan), "--home", str(network.node_home(slug))])
    return plan


def start(network: LocalNetwork, plan: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedtwin", "train", "run", str(plan), *more]
    command += ["--home", str(network.coordinator_home), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(running: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, err = running.communicate(timeout=LIMIT_S)
    finally:
        running.kill()
        running.wait()
    return running.returncode, err


def status(network: LocalNetwork) -> tuple[RunFolder, Status]:
    (run,) = runs(network)
    folder = RunFolder(network.coordinator_home, str(run["run"]))
    found = folder.status()
    assert found is not None
    return folder, found


def committed(network: LocalNetwork, slug: str) -> dict[str, int]:
    """Return a ledger's releases by purpose; its chain is checked on the way."""
    ledger = Ledger(network.node_home(slug) / "ledger.sqlite", clock=SystemClock(), read_only=True)
    try:
        ledger.verify()
        return {word: ledger.committed_for(f"{word}:") for word in ("training", "validation")}
    finally:
        ledger.close()


def held(network: LocalNetwork, slug: str) -> int:
    ledger = Ledger(network.node_home(slug) / "ledger.sqlite", clock=SystemClock(), read_only=True)
    try:
        return ledger.open_reservations(Selection())
    finally:
        ledger.close()


def looking(network: LocalNetwork, slug: str) -> int:
    """Return how many looks a hospital's audit trail shows as charged."""
    lines = (network.node_home(slug) / "audit.jsonl").read_bytes().splitlines()
    events: list[Any] = [json.loads(line) for line in lines if line.endswith(b"}")]
    return sum(
        event["event"] == "budget-committed"
        and str(event["fields"].get("request_id", "")).startswith("validation:")
        for event in events
    )


@pytest.mark.slow
def test_three_hospitals_end_with_one_model_and_keep_their_own_parts(network: LocalNetwork) -> None:
    plan = approve(network, rounds=3, steps=5)
    code, err = finished(start(network, plan))
    assert code == 0, err
    folder, found = status(network)
    assert (found.state, found.steps, found.sites, found.refusals) == ("finished", 15, 3, {})
    study = folder.study()
    model = folder.checkpoint(study)
    assert model is not None
    assert study.fusion is not None
    assert model.parameters.shape == (study.parameters,)
    assert [modality.name for modality in study.modalities] == ["person", "vitals", "labs"]
    assert {metric.round for metric in found.metrics} == {1, 2, 3}
    patients = next(metric for metric in found.metrics if metric.name == "patients")
    assert patients.value == pytest.approx(sum(SIZES), abs=6.0 * patients.noise_sd)
    for slug in network.sites:
        assert committed(network, slug) == {"training": 15, "validation": 3}
        assert not held(network, slug)
        home = network.node_home(slug)
        own = np.load(home / "own_parts" / f"{study.plan_hash().hex()}.npy")
        assert own.shape == (study.local_parameters,)
        assert (own != 0).all()
        everywhere = [path for path in network.coordinator_home.rglob("*") if path.is_file()]
        everywhere += [
            p
            for other in network.sites
            if other != slug
            for p in network.node_home(other).rglob("*")
            if p.is_file()
        ]
        assert not any(own[:2].tobytes() in path.read_bytes() for path in everywhere)
        lines = (home / "looks" / f"{study.plan_hash().hex()}.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in lines] == [1, 2, 3]
        assert not list(network.coordinator_home.rglob("looks"))
        network.fedtwin(["node", "audit", "verify", "--home", str(home)])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["node", "coordinator"])
def test_a_kill_in_a_look_costs_no_look_twice_and_the_run_goes_on(network: LocalNetwork, who: str) -> None:
    """Rounds of two steps: with a look at each end, a third of all charges are looks."""
    rounds, steps = 8, 2
    plan = approve(network, rounds=rounds, steps=steps)
    victim, *others = network.sites
    running = start(network, plan)
    try:
        until("the first looks", lambda: looking(network, victim) >= 1)
        network.kill(victim if who == "node" else "coordinator")
        before = {slug: committed(network, slug) for slug in network.sites}
        network.restart(victim if who == "node" else "coordinator")
        network.wait_for_nodes()
    except BaseException:
        running.kill()
        running.wait()
        raise
    code, err = finished(running)
    if who == "coordinator":
        assert code != 0
        (run,) = runs(network)
        code, err = finished(start(network, plan, "--resume", str(run["run"])))
    assert code in (0, 3), err  # what was lost in the kill stays spent: the plan may end a round early
    folder, found = status(network)
    looks = validation.looks(folder.study())
    for slug in network.sites:
        after = committed(network, slug)
        assert before[slug]["validation"] <= after["validation"] <= looks
        assert before[slug]["training"] <= after["training"] <= rounds * steps
        assert not held(network, slug)
    if who == "node":  # of a step that broke with the victim, the charge may stand at the others too
        assert all(found.steps <= committed(network, s)["training"] <= found.steps + 1 for s in others)
    assert found.state == "finished"
    kept = folder.checkpoint(folder.study())
    assert kept is not None
    assert np.isfinite(kept.parameters).all()
