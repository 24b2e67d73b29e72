"""`fedtwin node features`: a study's features are kept at the hospital, and that is in its audit trail."""

from pathlib import Path

import pytest
import tomli_w

from node import audit
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.omop.store import OmopStore
from privacy import private_files
from tests.fedtwin.conftest import Fedtwin
from tests.node.test_feature_sets import COHORT, OUTCOME, SET, history, person
from tests.protocols.feature_set_forms import feature_set_form
from tests.protocols.study_forms import fusion_form, study_form


@pytest.fixture
def holding(hospital: Path) -> Path:
    """A hospital with one patient who has everything and one who has nothing but an age."""
    path = NodeHome(hospital).store
    private_files.make_folder(path.parent)
    with OmopStore.open(path, threads=1) as store:
        history(store, 1, first=100)
        person(store, 2)
    return hospital


def test_features_are_kept_and_the_modalities_counted(
    fedtwin: Fedtwin, holding: Path, tmp_path: Path
) -> None:
    form = fusion_form("early")
    del form["features"]
    form |= {"feature_set": "made-up.toml", "outcome": OUTCOME, "cohort": COHORT.to_json()}
    (tmp_path / "study.toml").write_text(tomli_w.dumps(form))
    (tmp_path / "made-up.toml").write_text(tomli_w.dumps(feature_set_form()))
    found = fedtwin("node", "features", tmp_path / "study.toml", "--home", holding, "--json").json
    assert (found["patients"], found["hash"]) == (2, SET.hash().hex())
    listed = {row["modality"]: (row["columns"], row["patients_with_it"]) for row in found["modalities"]}
    assert listed["person"] == (1, 2)
    assert listed["labs"] == (3, 1)
    assert len(list(NodeHome(holding).features.glob("*.parquet"))) == 1
    (line,) = audit.lines(NodeHome(holding).audit)
    assert line.event == AuditEvent.EVENTS_EXPORTED
    shown = fedtwin("node", "features", tmp_path / "study.toml", "--home", holding)
    assert "made-up version 1" in shown.out


def test_a_study_without_a_set_has_no_features_as_of_a_date(
    fedtwin: Fedtwin, holding: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(tomli_w.dumps(study_form()))
    refused = fedtwin("node", "features", tmp_path / "study.toml", "--home", holding)
    assert refused.code == 2
    assert "no feature set" in refused.err
    assert not NodeHome(holding).features.exists()
