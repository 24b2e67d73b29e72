"""Studies without noise by the commands that people use, with everything real: TLS, Flower, masks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.study import Study
from sim.network import LocalNetwork, NetworkFault, Site
from sim.world import write_world

SIZES = (150, 110, 70)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    world = write_world(tmp_path / "world", seed=6, sizes=SIZES)
    sites = [Site(hospital.slug, hospital.title, hospital.files) for hospital in world.hospitals]
    with LocalNetwork(tmp_path / "network", sites) as found:
        found.up()
        yield found


def plan(network: LocalNetwork, name: str) -> tuple[Path, Study]:
    path = network.folder / name
    path.write_bytes(resources.files("sim").joinpath("studies", name).read_bytes())
    return path, Study.parse(path.read_bytes())


def tables(network: LocalNetwork, study: Study) -> list[FeatureTable]:
    """What each hospital's own store holds; nothing of it leaves in the test either."""
    found = []
    for slug in network.sites:
        with OmopStore.open(network.node_home(slug) / "store" / "omop.duckdb", read_only=True) as store:
            found.append(feature_table(study, store))
    return found


def approve(network: LocalNetwork, path: Path) -> None:
    for slug in network.sites:
        network.fedtwin(["node", "approve", str(path), "--home", str(network.node_home(slug))])


def name_in_policies(network: LocalNetwork, *studies: Study) -> None:
    hashes = ", ".join(f'"{study.plan_hash().hex()}"' for study in studies)
    for slug in network.sites:
        policy = network.node_home(slug) / "policy.toml"
        text = policy.read_text().partition("\n[exact]\n")[0]
        policy.write_text(f"{text}\n[exact]\nstudies = [{hashes}]\nminimum_people = 20\n")


def train(network: LocalNetwork, path: Path) -> dict:
    found: dict = network.fedtwin_json(["train", "run", str(path), "--home", str(network.coordinator_home)])
    return found


def evaluated(network: LocalNetwork, package: str) -> list[dict]:
    """What each hospital finds of its own people."""
    homes = [str(network.node_home(slug)) for slug in network.sites]
    return [network.fedtwin_json(["node", "evaluate", package, "--home", home]) for home in homes]


@pytest.mark.slow
@pytest.mark.timeout(900)  # four runs through Flower, about 20 s each on a machine of its own
def test_studies_without_noise_from_proposal_to_result(network: LocalNetwork) -> None:
    home = str(network.coordinator_home)
    odds, curve = (plan(network, f"heart_failure_{name}.toml") for name in ("exact", "survival"))
    network.fedtwin(["train", "propose", str(odds[0]), "--home", home])
    approve(network, odds[0])
    with pytest.raises(NetworkFault, match=r"exact-not-named|not-approved|too-few-sites"):
        train(network, odds[0])  # approved, and named by nobody
    approve(network, curve[0])
    name_in_policies(network, odds[1], curve[1])

    found = train(network, odds[0])
    rows = tables(network, odds[1])
    x, y = (np.concatenate([getattr(t, name) for t in rows]).astype(float) for name in "xy")
    fit = sm.GLM(y, np.column_stack([x, np.ones(len(x))]), family=sm.families.Binomial()).fit(tol=1e-14)
    got = found["result"]["coefficients"]
    assert found["result"]["verdict"] == "converged"
    assert np.abs(np.array([one["estimate"] for one in got]) - fit.params).max() < 1e-8
    assert np.abs(np.array([one["standard_error"] for one in got]) - fit.bse).max() < 1e-8
    assert found["epsilon"] is None
    again = network.fedtwin_json(["train", "show", found["run"], "--home", home])
    assert again["result"] == found["result"]
    shown = network.fedtwin(["train", "show", found["run"], "--home", home])
    assert "odds ratio" in shown
    assert "systolic-pressure" in shown

    at_home = evaluated(network, found["package"])
    assert all(one["exact"]["in_fit"] for one in at_home)
    fitted = sum(one["overall"]["mean_prediction"] * one["overall"]["patients"] for one in at_home)
    assert fitted == pytest.approx(y.sum())  # a fit with an intercept predicts as many as there were

    run = train(network, curve[0])
    at_home, survival = evaluated(network, run["package"]), run["result"]
    expected = sum(one["overall"]["expected_events"] for one in at_home)
    assert expected == pytest.approx(survival["events"])
    assert [len(one["exact"]["curve"]) for one in at_home] == [len(survival["curve"])] * len(SIZES)
    rows = tables(network, curve[1])
    y = np.concatenate([table.y for table in rows]).astype(float)
    grid = np.array(curve[1].exact.grid_days)
    fit = sm.SurvfuncRight(grid[np.searchsorted(grid, y[:, 0])], y[:, 1])
    on = {point["day"]: point["survival"] for point in survival["curve"]}
    assert [on[int(day)] for day in fit.surv_times] == pytest.approx(list(fit.surv_prob), abs=1e-8)

    one, noisy = plan(network, "heart_failure_one_shot.toml")
    approve(network, one)
    private = train(network, one)
    assert private["steps"] == 1
    assert 0.99 < private["epsilon"] <= 1.0
    assert len(private["parameters"]) == noisy.parameters

    with pytest.raises(NetworkFault, match="replayed"):
        train(network, curve[0])  # once
    for slug in list(network.sites)[:1]:  # what the commands say is the same at each
        node = str(network.node_home(slug))
        spent = network.fedtwin_json(["node", "budget", "--home", node])
        assert spent["spent"]["events"] == 1  # that of the one noisy sum
        assert spent["exact_releases"][curve[1].plan_hash().hex()] == 1
        assert set(spent["exact_releases"]) == {s.plan_hash().hex() for _, s in (odds, curve)}
        assert "No epsilon covers them" in network.fedtwin(["node", "budget", "--home", node])
        network.fedtwin(["node", "audit", "verify", "--home", node])
