"""What the guides show is read by the code it is shown for."""

import re
import tomllib
from pathlib import Path

from fedtwin.study_file import read_study
from node.ingest.mapping import parse_mapping
from node.signals import belonging
from protocols.cohort import Cohort
from protocols.study import Study
from tests.protocols.exact_forms import exact_form
from tests.protocols.study_forms import study_form

DOCS = Path(__file__).parents[2] / "docs"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.DOTALL | re.MULTILINE)


def test_the_mapping_in_the_hospital_guide_is_a_mapping_and_the_wearers_are_wearers() -> None:
    mapping, wearers = blocks("hospital.md", "toml")
    assert parse_mapping(mapping.encode(), file="hospital.md").identifiers == {"surname"}
    assert belonging.parse(wearers.encode()).patient("anna/export.xml") == "0042"


def test_the_cohort_in_the_researcher_guide_is_a_cohort() -> None:
    (shown,) = blocks("researcher.md", "json")
    assert len(Cohort.parse(shown).include) == 3


def test_the_sections_of_statistical_modes_in_the_guide_are_those_of_plans() -> None:
    one, exact = blocks("training.md", "toml")
    plan = study_form() | tomllib.loads(one)
    del plan["privacy"]["clip_norm"]
    assert Study.from_json(plan).one_shot is not None
    plan = exact_form("cox") | tomllib.loads(exact)
    plan["outcome"]["until_days"] = 1095
    assert Study.from_json(plan).exact is not None


def test_the_feature_set_and_the_study_in_the_guide_are_a_study(tmp_path: Path) -> None:
    features, plan, looks = blocks("studies.md", "toml")
    (tmp_path / "heart-failure.toml").write_text(features)
    (tmp_path / "study.toml").write_text(plan)
    study = read_study(tmp_path / "study.toml")
    assert [m.name for m in study.modalities] == ["person", "codes", "labs", "genomics"]
    (tmp_path / "looking.toml").write_text(plan.replace("rounds = 1\n", "rounds = 4\n") + looks)
    assert read_study(tmp_path / "looking.toml").validation is not None
