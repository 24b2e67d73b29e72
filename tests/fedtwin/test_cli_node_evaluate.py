"""`fedtwin node evaluate`: a model on held-out patients only, kept at the hospital, signed models only."""

import asyncio
import contextlib
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin import model_package
from fedtwin.model_export import packaged
from fedtwin.screen import Exit
from node import audit
from node.audit_events import AuditEvent
from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.home import NodeHome
from node.keys import NodeKeys
from node.omop.store import OmopStore
from node.serve import split_key
from node.training import models
from privacy.budget import Account
from privacy.descent import initial
from privacy.exact_state import State, Verdict
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from protocols.study import Study
from sim.federation import Noise, federate
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.trained import RUN, trained
from tests.network.consortium import Consortium
from tests.node.patients import AF, DAY, HEART_FAILURE, SBP, Patient, fill
from tests.protocols.exact_forms import exact_form
from tests.protocols.study_forms import study_form

PATIENTS = 400


def people(count: int) -> list[Patient]:
    """Patients whose outcome goes with their age and their atrial fibrillation."""
    rng = np.random.default_rng(11)
    found = []
    for number in range(1, count + 1):
        born, af = int(rng.integers(1930, 2000)), bool(rng.random() < 0.3)
        sick = rng.random() < 1 / (1 + np.exp(-((1975 - born) / 10 + 1.5 * af - 1.0)))
        conditions = [(AF, DAY)] * af + [(HEART_FAILURE, DAY)] * bool(sick)
        pressure = [(SBP, float(rng.normal(130, 15)), DAY)]
        sex = 8507 if number % 3 else 8532
        found.append(Patient(number, born=born, sex=sex, conditions=conditions, measurements=pressure))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """A consortium with one hospital that has joined; nothing serves any more."""
    consortium = Consortium(tmp_path_factory.mktemp("evaluating"), sites=1)

    async def found() -> None:
        consortium.found()
        async with consortium.coordinator():
            await consortium.enrol(0)

    asyncio.run(found())
    home = consortium.node(0)
    home.store.unlink()
    with contextlib.closing(OmopStore.open(home.store)) as store:
        fill(store, people(PATIENTS))
    return consortium


@pytest.fixture(scope="module")
def package(place: Consortium) -> Path:
    trained(place.home.path, Study.from_json(study_form()))
    path = place.folder / "package.zip"
    model_package.write(packaged(RUN, home=place.home.path, clock=SystemClock()), path)
    return path


def test_a_model_is_tried_on_held_out_patients_only(
    fedtwin: Fedtwin, place: Consortium, package: Path
) -> None:
    home = place.node(0)
    found = fedtwin("node", "evaluate", package, "--home", home.path, "--json").json
    model = model_package.read(package)
    with contextlib.closing(OmopStore.open(home.store, read_only=True)) as store:
        table = feature_table(model.study, store)
    key = split_key(NodeKeys.load(home.keys).pseudonym)
    rest = table.rows(~in_training(table.person_ids, key=key, fraction=0.8))
    assert found["overall"]["patients"] == len(rest) < PATIENTS / 2
    logits = models.logits(model.study, model.parameters, rest.x)
    assert found["overall"]["accuracy"] == pytest.approx(((logits > 0) == (rest.y > 0.5)).mean())
    assert model.predict(rest) == pytest.approx(1 / (1 + np.exp(-logits)))
    everyone = models.logits(model.study, model.parameters, table.x)
    assert found["overall"]["brier"] != pytest.approx(((1 / (1 + np.exp(-everyone)) - table.y) ** 2).mean())
    for groups in found["groups"].values():
        assert sum(row["patients"] for row in groups) == len(rest)
    assert {row["group"] for row in found["groups"]["sex"]} == {"male", "female"}
    assert sum(row["patients"] for row in found["calibration"]) == len(rest)


def test_what_is_found_is_kept_here_for_the_owner_and_named_in_the_trail(
    fedtwin: Fedtwin, place: Consortium, package: Path
) -> None:
    home = place.node(0)
    said = fedtwin("node", "evaluate", package, "--home", home.path)
    assert said.code == Exit.OK
    assert "not to leave the hospital" in " ".join(said.err.split())
    assert "held-out patients" in said.out
    (*_, kept) = sorted(home.evaluations.iterdir())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.evaluations.stat().st_mode) == 0o700
    assert "not to leave" in json.loads(kept.read_text())["stays"]
    last = list(audit.lines(NodeHome(home.path).audit))[-1]
    assert last.event == AuditEvent.MODEL_EVALUATED


def test_a_model_that_no_lead_of_the_roster_signed_is_refused(
    fedtwin: Fedtwin, place: Consortium, package: Path, tmp_path: Path
) -> None:
    home = place.node(0)
    elsewhere = trained(tmp_path, Study.from_json(study_form()))
    assert elsewhere.path.is_dir()
    model_package.write(packaged(RUN, home=tmp_path, clock=SystemClock()), tmp_path / "unsigned")
    refused = fedtwin("node", "evaluate", tmp_path / "unsigned", "--home", home.path)
    assert refused.code == Exit.REFUSED
    allowed = fedtwin("node", "evaluate", tmp_path / "unsigned", "--unsigned", "--home", home.path, "--json")
    assert allowed.code == Exit.OK
    files = model_package.signed(
        packaged(RUN, home=tmp_path, clock=SystemClock()),
        signer="lead",
        key=NodeKeys.load(home.keys).identity,  # somebody's, not the lead's
    )
    model_package.write(files, tmp_path / "forged")
    forged = fedtwin("node", "evaluate", tmp_path / "forged", "--home", home.path)
    assert forged.code == Exit.USAGE
    assert "roster" in forged.err


@pytest.fixture(scope="module")
def fits(place: Consortium, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Packages of exact studies: fits of this hospital and two others; "elsewhere" is one without it."""
    found = {}
    for model, form in exact_forms().items():
        study = Study.from_json(form)
        with contextlib.closing(OmopStore.open(place.node(0).store, read_only=True)) as store:
            here = feature_table(study, store)
        parts = [here, here.rows(np.arange(len(here)) % 2 == 0), here.rows(np.arange(len(here)) % 3 == 0)]
        run = federate(study, parts, noise=Noise.SHARES, bits=SecureBits())
        home = tmp_path_factory.mktemp(model)
        trained(home, study, model=run.params)
        found[model] = home / "package.zip"
        model_package.write(packaged(RUN, home=home, clock=SystemClock()), found[model])
        if model != "elsewhere":
            with Ledger(place.node(0).ledger, clock=SystemClock()) as ledger:
                plan_hash = study.plan_hash().hex()
                ledger.release_exact(f"exact/{model}", account=Account("demo", "a"), study=plan_hash, step=0)
    return found


def exact_forms() -> dict[str, dict[str, Any]]:
    age = {"name": "age", "kind": "age", "range": [20, 100]}
    forms = {
        "logistic": exact_form("logistic"),
        "cox": exact_form("cox", grid_days=[100, 200, 300]),
        "kaplan-meier": exact_form("kaplan-meier"),
    }
    forms["logistic"]["training"]["train_fraction"] = 0.7
    forms["elsewhere"] = exact_form("cox")
    forms["elsewhere"]["study"]["name"] = "elsewhere"
    for model in ("logistic", "cox", "elsewhere"):
        forms[model]["features"] = [age]
    return forms


def test_an_exact_fit_is_tried_on_those_it_left_out_or_held_against_its_own(
    fedtwin: Fedtwin, place: Consortium, fits: dict[str, Path]
) -> None:
    home = place.node(0)

    def evaluated(model: str) -> dict[str, Any]:
        return fedtwin("node", "evaluate", fits[model], "--unsigned", "--home", home.path, "--json").json

    study = model_package.read(fits["logistic"]).study
    with contextlib.closing(OmopStore.open(home.store, read_only=True)) as store:
        table = feature_table(study, store)
    key = split_key(NodeKeys.load(home.keys).pseudonym)
    rest = table.rows(~in_training(table.person_ids, key=key, fraction=0.7))
    said = evaluated("logistic")
    assert said["exact"] == {"model": "logistic", "in_fit": False, "curve": []}
    assert said["overall"]["patients"] == len(rest) < PATIENTS / 2
    assert said["held_out_share"] == pytest.approx(0.3)
    predicted = model_package.read(fits["logistic"]).predict(rest)
    assert said["overall"]["brier"] == pytest.approx(((predicted - rest.y) ** 2).mean())
    for groups in said["groups"].values():
        assert sum(row["patients"] for row in groups) == len(rest)
    said = evaluated("cox")
    assert said["exact"]["in_fit"] is True
    assert said["overall"]["patients"] == PATIENTS
    assert 0.5 < said["overall"]["concordance"] < 1.0
    assert said["overall"]["with_outcome"] > 0
    assert len(said["calibration"]) == 10
    said = evaluated("kaplan-meier")
    assert len(said["exact"]["curve"]) == 10
    assert said["exact"]["curve"][-1]["events_here"] == 0  # all came on the first day
    assert said["calibration"] == []
    assert said["task"] == "days"
    assert said["held_out_share"] == 0.0
    said = evaluated("elsewhere")  # no sum of it ever left this hospital: all of its people are new to it
    assert said["exact"]["in_fit"] is False
    assert (said["overall"]["patients"], said["held_out_share"]) == (PATIENTS, 1.0)


@pytest.mark.parametrize("model", ["logistic", "cox", "kaplan-meier", "elsewhere"])
def test_what_is_found_of_a_fit_is_shown_kept_and_put_on_its_page(
    fedtwin: Fedtwin, place: Consortium, fits: dict[str, Path], tmp_path: Path, model: str
) -> None:
    home = place.node(0)
    said = fedtwin("node", "evaluate", fits[model], "--unsigned", "--home", home.path)
    assert said.code == Exit.OK
    words = " ".join(said.err.split())
    assert "not to leave the hospital" in words
    assert ("how well it describes them" in words) == (model in ("cox", "kaplan-meier"))
    shown = {"logistic": "deviance explained", "cox": "concordance", "kaplan-meier": "all hospitals"}.get(
        model, "concordance"
    )
    assert shown in said.out
    kept = max(home.evaluations.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    to = tmp_path / "page.html"
    assert fedtwin("train", "report", fits[model], "--local", kept, "--to", to).code == Exit.OK
    page = to.read_text()
    assert "must not leave" in page or "not to leave" in page
    assert ("all of whom the fit took" in page) == (model in ("cox", "kaplan-meier"))
    assert ("all hospitals</text>" in page) == (model == "kaplan-meier")


def test_a_fit_without_an_answer_is_refused_in_its_own_words(
    fedtwin: Fedtwin, place: Consortium, tmp_path: Path
) -> None:
    study = Study.from_json(exact_forms()["logistic"])
    state = replace(State.of(study, initial(study)), verdict=Verdict.SEPARATED)
    trained(tmp_path, study, model=state.params(study))
    model_package.write(packaged(RUN, home=tmp_path, clock=SystemClock()), tmp_path / "package")
    said = fedtwin("node", "evaluate", tmp_path / "package", "--unsigned", "--home", place.node(0).path)
    assert said.code == Exit.REFUSED
    assert "tells the outcome without fail" in said.err


def test_a_plan_that_trains_on_everybody_leaves_nobody_to_try_it_on(
    fedtwin: Fedtwin, place: Consortium, tmp_path: Path
) -> None:
    trained(tmp_path, Study.from_json(study_form(training__train_fraction=1.0)))
    model_package.write(packaged(RUN, home=tmp_path, clock=SystemClock()), tmp_path / "package")
    said = fedtwin(
        "node", "evaluate", tmp_path / "package", "--unsigned", "--home", place.node(0).path, "--json"
    )
    assert said.code == Exit.USAGE
    assert "trains on all patients" in said.err
