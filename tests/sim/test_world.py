"""A world is files on disk: the same seed gives the same bytes, and everything in it parses."""

import json
from pathlib import Path

import pytest

from node.ingest.mapping import read_mapping
from protocols.cohort import Cohort
from protocols.study import Study
from sim.world import World, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), seed=5, sizes=(120, 60, 40, 30, 20))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes(world: World, tmp_path: Path) -> None:
    again = write_world(tmp_path / "again", seed=5, sizes=(120, 60, 40, 30, 20))
    other = write_world(tmp_path / "other", seed=6, sizes=(120, 60, 40, 30, 20))
    assert contents(again.folder) == contents(world.folder)
    assert contents(other.folder) != contents(world.folder)


def test_a_fifth_hospital_gets_its_own_name(world: World) -> None:
    slugs = [hospital.slug for hospital in world.hospitals]
    assert len(set(slugs)) == 5
    assert slugs[4] == "northgate-2"


def test_every_file_has_exactly_one_mapping(world: World) -> None:
    for hospital in world.hospitals:
        mappings = [read_mapping(path) for path in sorted(hospital.files.glob("*.toml"))]
        for file in hospital.files.glob("*.csv"):
            assert sum(mapping.fits(file.name) for mapping in mappings) == 1, file.name


def test_question_and_plan_parse(world: World) -> None:
    assert Cohort.parse(world.cohort.read_bytes()).index is not None
    assert Study.parse(world.study.read_bytes()).privacy.epsilon == 1.0


def test_the_truth_stands_beside_the_files(world: World) -> None:
    truth = json.loads((world.folder / "truth.json").read_text())
    assert truth == world.truth
    assert truth["count"]["recorded"] == sum(truth["count"]["by_hospital"].values())
    assert 0 < truth["count"]["in_fact"] < sum(truth["patients"].values())
