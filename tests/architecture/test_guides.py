"""What the guides show is read by the code it is shown for."""

import re
from pathlib import Path

from node.ingest.mapping import parse_mapping
from node.signals import belonging
from protocols.cohort import Cohort

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
