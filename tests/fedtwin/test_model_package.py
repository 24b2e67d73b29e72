"""A model's package: what is in it is what was trained, and nothing that is wrong with it goes unseen."""

import hashlib
import json
import pickle  # noqa: TID251 - to show that a package with a pickle in it is refused
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load, save

from coordinator.flower.run_folder import STOPPED
from coordinator.home import CoordinatorHome
from fedtwin import model_package
from fedtwin.model_export import keep_package, packaged
from fedtwin.model_package import MalformedPackage, NotTheLeads, read, write
from fedtwin.screen import Exit
from protocols import canonical
from protocols.clock import FixedClock, SystemClock
from protocols.study import Study
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.trained import RUN, trained
from tests.protocols.study_forms import fusion_form, study_form

CLOCK = FixedClock(datetime(2031, 5, 1, tzinfo=UTC))
PLANS = {
    "logistic": study_form(),
    "mlp": study_form(study__model="mlp", study__hidden=[3, 2]),
    "attention": fusion_form("attention"),
    "late": fusion_form("late", study__local="intercept"),
}


@pytest.fixture
def consortium(tmp_path: Path) -> Path:
    """A coordinator's folder, with a lead."""
    home = tmp_path / "consortium"
    CoordinatorHome.init(home, name="Tests", host="127.0.0.1", clock=SystemClock())
    return home


@pytest.fixture
def package(tmp_path: Path, consortium: Path) -> Path:
    """A package signed by the consortium's lead."""
    trained(consortium, Study.from_json(study_form()))
    path = tmp_path / "package"
    write(packaged(RUN, home=consortium, clock=CLOCK), path)
    return path


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", ["package", "package.zip"])
def test_what_is_read_is_what_was_trained(tmp_path: Path, plan: str, name: str) -> None:
    study = Study.from_json(PLANS[plan])
    folder = trained(tmp_path, study)
    write(packaged(RUN, home=tmp_path, clock=CLOCK), tmp_path / name)
    found = read(tmp_path / name)
    kept = folder.checkpoint(study)
    assert kept is not None
    assert np.array_equal(found.parameters, kept.parameters)
    assert found.study.plan_hash() == study.plan_hash()
    assert found.signer is None  # there is no lead in this folder
    if name == "package":
        layers = load((tmp_path / name / "model.safetensors").read_bytes())
        assert set(layers) == {f"{la.name}.{part}" for la in study.layout for part in ("weight", "bias")}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, consortium: Path) -> None:
    trained(consortium, Study.from_json(study_form()))
    for name in ("a.zip", "b.zip"):
        write(packaged(RUN, home=consortium, clock=CLOCK), tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_card_tells_what_it_cost_and_never_who(package: Path) -> None:
    card = json.loads((package / "card.json").read_text())
    study = Study.from_json(study_form())
    assert card["privacy"]["epsilon"] <= study.privacy.epsilon
    assert card["privacy"]["after_rounds"][-1]["epsilon"] == card["privacy"]["epsilon"]
    assert [record["sites"] for record in card["rounds"]] == [4, 3]
    assert card["refusals"] == {"deadline": 1}
    assert card["columns"] == list(study.columns)
    whole = b"".join(path.read_bytes() for path in package.iterdir())
    assert b"n-abab" not in whole  # the hospital that fell out
    text = (package / "card.md").read_text()
    assert "deadline" in text
    assert "age 0 or more" in text
    assert "as many hospitals as the plan tolerates" in text


def test_sums_that_a_killed_coordinator_kept_no_record_of_are_counted(tmp_path: Path) -> None:
    folder = trained(tmp_path, Study.from_json(study_form(training__rounds=4)))
    whole = json.loads(packaged(RUN, home=tmp_path, clock=CLOCK)["card.json"])["privacy"]["epsilon"]
    lines = (folder.path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (folder.path / "rounds.jsonl").write_bytes(b"".join(lines[:-1]))
    assert json.loads(packaged(RUN, home=tmp_path, clock=CLOCK)["card.json"])["privacy"]["epsilon"] == whole
    kept = folder.checkpoint(folder.study())
    assert kept is not None
    folder.write_checkpoint(folder.study(), replace(kept, round=2, steps=6))  # a model of an earlier round
    assert json.loads(packaged(RUN, home=tmp_path, clock=CLOCK)["card.json"])["privacy"]["epsilon"] == whole


def test_a_run_that_stopped_says_so_on_its_card(tmp_path: Path) -> None:
    trained(tmp_path, Study.from_json(study_form()), state=STOPPED, rounds=1)
    path = keep_package(RUN, home=tmp_path, clock=CLOCK)
    assert "stopped: 1 of 2 rounds" in (path / "card.md").read_text()
    assert keep_package(RUN, home=tmp_path, clock=CLOCK) == path  # in place of the earlier one


@pytest.mark.parametrize("file", model_package.LISTED)
def test_a_changed_file_is_found(package: Path, file: str) -> None:
    data = (package / file).read_bytes()
    (package / file).write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(MalformedPackage):
        read(package)


@pytest.mark.parametrize("file", [*model_package.LISTED, "manifest.json", "signature.json"])
def test_a_missing_file_is_found(package: Path, file: str) -> None:
    (package / file).unlink()
    with pytest.raises(MalformedPackage, match="missing"):
        read(package)


def resealed(package: Path, file: str, data: bytes) -> None:
    """Put another file into the package, with a manifest that fits it and no signature."""
    files = {path.name: path.read_bytes() for path in package.iterdir()} | {file: data}
    manifest = json.loads(files["manifest.json"]) | {"signer": None}
    manifest["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in model_package.LISTED}
    (package / file).write_bytes(data)
    (package / "manifest.json").write_bytes(canonical.encode(manifest))
    (package / "signature.json").unlink()


def weights(package: Path) -> dict[str, np.ndarray]:
    return load((package / "model.safetensors").read_bytes())


def test_a_pickle_in_the_place_of_the_weights_is_never_loaded(package: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(tmp_path / "ran"), "w"))

    resealed(package, "model.safetensors", pickle.dumps(Bomb()))
    with pytest.raises(MalformedPackage, match="safetensors"):
        read(package)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrong", ["layer", "shape", "kind", "nan", "other numbers"])
def test_weights_that_are_not_the_plans_are_refused(package: Path, wrong: str) -> None:
    found = weights(package)
    name = "out.weight"
    if wrong == "layer":
        found["more.weight"] = np.zeros((1, 1))
    elif wrong == "shape":
        found[name] = found[name].reshape(-1, 1).copy()
    elif wrong == "kind":
        found[name] = found[name].astype(np.float32)
    elif wrong == "nan":
        found[name] = np.full_like(found[name], np.nan)
    else:
        found[name] = found[name] + 1.0
    resealed(package, "model.safetensors", save(found))
    with pytest.raises(MalformedPackage):
        read(package)


def test_a_plan_of_another_study_is_refused(package: Path) -> None:
    other = Study.from_json(study_form(study__name="other"))
    resealed(package, "study.json", other.canonical())
    with pytest.raises(MalformedPackage, match="another plan"):
        read(package)


def test_the_signature_is_held_against_the_roster(package: Path, consortium: Path, fedtwin: Fedtwin) -> None:
    checked = fedtwin("train", "check", package, "--roster", consortium, "--json").json
    assert (checked["signed_by"], checked["in_roster"]) == ("lead", True)
    assert not fedtwin("train", "check", package, "--json").json["in_roster"]
    mine = Ed25519PrivateKey.generate()
    files = {path.name: path.read_bytes() for path in package.iterdir()}
    shutil.rmtree(package)
    write(model_package.signed(files, signer="lead", key=mine), package)
    assert (
        read(package).signer is not None
    )  # it holds, by a key that only the roster can tell from the lead's
    said = fedtwin("train", "check", package, "--roster", consortium)
    assert said.code == Exit.USAGE
    assert "roster" in said.err
    with pytest.raises(NotTheLeads):
        read(package, leads={})


def test_a_signature_of_another_manifest_does_not_hold(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    (package / "manifest.json").write_bytes(canonical.encode(manifest | {"made_at": "1999-01-01T00:00:00"}))
    with pytest.raises(NotTheLeads, match="does not hold"):
        read(package)


@pytest.mark.parametrize("extra", ["../evil", "/etc/evil", "model.pkl"])
def test_a_zip_with_other_files_is_refused(package: Path, tmp_path: Path, extra: str) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in package.iterdir():
            archive.write(path, path.name)
        archive.writestr(extra, b"x")
    with pytest.raises(MalformedPackage, match="other files"):
        read(tmp_path / "p.zip")
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(MalformedPackage, match="not a zip"):
        read(tmp_path / "no.zip")


def test_a_link_out_of_the_package_is_not_followed(package: Path, tmp_path: Path) -> None:
    (package / "card.md").rename(tmp_path / "card.md")
    (package / "card.md").symlink_to(tmp_path / "card.md")
    with pytest.raises(MalformedPackage, match="missing"):
        read(package)


def test_exporting_overwrites_nothing_and_needs_a_model(
    fedtwin: Fedtwin, consortium: Path, tmp_path: Path
) -> None:
    home = ("--home", consortium, "--json")
    assert fedtwin("train", "export", "nothing", "--to", tmp_path / "p", *home).code == Exit.USAGE
    trained(consortium, Study.from_json(study_form()), rounds=0)
    none = fedtwin("train", "export", RUN, "--to", tmp_path / "p", *home)
    assert none.code == Exit.USAGE
    assert "no model yet" in none.err
    trained(consortium, Study.from_json(study_form()))
    said = fedtwin("train", "export", RUN, "--to", tmp_path / "p.zip", *home).json
    assert said["signed_by"] == "lead"
    assert fedtwin("train", "export", RUN, "--to", tmp_path / "p.zip", *home).code == Exit.USAGE
