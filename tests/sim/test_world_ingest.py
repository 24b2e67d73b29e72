"""What the node takes in from a world is what its truth says, dirty rows and dialects included."""

from datetime import UTC, datetime
from importlib import resources

import numpy as np
import pytest

from deid.vault import PseudonymKey, Vault
from fedtwin.yardsticks import metrics
from node.features.study_rows import feature_table
from node.ingest.pipeline import Pipeline, Report
from node.omop.store import OmopStore
from node.queries.cohort import count
from node.training import inputs, models
from privacy.rng import SecureBits
from protocols.clock import FixedClock
from protocols.cohort import Cohort
from protocols.study import Study
from sim.federation import Noise, federate
from sim.world import World, write_world
from tests.privacy.seeded_bits import SeededBits

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
SIZES = (200, 120, 90, 80)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), seed=2, sizes=SIZES)


@pytest.fixture(scope="module")
def stores(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[OmopStore, Report]]:
    found = {}
    for hospital in world.hospitals:
        home = tmp_path_factory.mktemp(hospital.slug)
        bits = SecureBits()
        vault = Vault.open(home / "vault.sqlite", key=PseudonymKey(bits.bytes(32)), bits=bits)
        store = OmopStore.open(home / "omop.duckdb")
        found[hospital.slug] = (store, Pipeline(store, vault, CLOCK).ingest([hospital.files]))
    return found


def test_every_patient_and_no_other_is_found(
    world: World, stores: dict[str, tuple[OmopStore, Report]]
) -> None:
    for hospital in world.hospitals:
        store, _ = stores[hospital.slug]
        assert store.counts()["person"] == hospital.patients, hospital.slug


def test_the_count_is_the_recorded_truth(world: World, stores: dict[str, tuple[OmopStore, Report]]) -> None:
    cohort = Cohort.parse(world.cohort.read_bytes())
    found = {slug: count(cohort, store) for slug, (store, _) in stores.items()}
    assert found == world.truth["count"]["by_hospital"]


def test_dirty_rows_are_quarantined(stores: dict[str, tuple[OmopStore, Report]]) -> None:
    for slug, (_, report) in stores.items():
        assert sum(f.quarantined + f.values_quarantined for f in report.sources) >= 5, slug
        assert not report.without_reader
        assert not any(f.delimited and f.delimited.unknown_columns for f in report.sources)


def test_no_direct_identifier_reaches_a_store(
    world: World, stores: dict[str, tuple[OmopStore, Report]]
) -> None:
    for hospital in world.hospitals:
        store, _ = stores[hospital.slug]
        people = (hospital.files / "patients.csv").read_text().splitlines()[1:40]
        content = store.path.read_bytes()
        for line in people:
            number, name, address, *_ = line.split(",")
            assert name.encode() not in content
            assert address.encode() not in content
            assert number.encode() not in content or number.isdigit()  # digits alone may occur by chance


def test_the_plan_reads_every_feature_and_the_outcome(
    world: World, stores: dict[str, tuple[OmopStore, Report]]
) -> None:
    study = Study.parse(world.study.read_bytes())
    tables = [feature_table(study, store) for store, _ in stores.values()]
    assert sum(len(table) for table in tables) == sum(SIZES)
    rate = float(np.concatenate([table.y for table in tables]).mean())
    assert rate == pytest.approx(world.truth["outcome_rate"], abs=1e-6)
    seen = {name: [float(t.mask[:, i].mean()) for t in tables] for i, name in enumerate(study.columns)}
    assert seen["systolic-pressure"] == [1.0] * 4
    assert seen["cholesterol"][3] == 0.0  # never recorded at the fourth hospital
    assert seen["body-mass-index"][2] == 0.0  # nor this at the third


def test_a_fusion_plan_is_trained_on_what_each_hospital_records(
    stores: dict[str, tuple[OmopStore, Report]],
) -> None:
    study = Study.parse(resources.files("sim").joinpath("studies", "heart_failure_fusion.toml").read_bytes())
    tables = [feature_table(study, store) for store, _ in stores.values()]
    names = [modality.name for modality in study.modalities]
    assert names == ["person", "vitals", "labs", "history"]
    assert all(inputs.presence(study, table)[:, 0].all() for table in tables)
    run = federate(study, tables, noise=Noise.SHARES, bits=SeededBits(1))
    assert run.epsilon <= study.privacy.epsilon
    assert [len(own) for own in run.own] == [1, 1, 1, 1]
    logits = np.concatenate([models.outputs(study, run.params, table)[:, 0] for table in tables])
    assert metrics(logits, np.concatenate([table.y for table in tables]))[1] > 0.65  # of .8 without privacy
