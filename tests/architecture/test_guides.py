"""What the guides show is read by the code it is shown for."""

import re
from pathlib import Path

from node.ingest.mapping import parse_mapping
from protocols.cohort import Cohort

DOCS = Path(__file__).parents[2] / "docs"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / document).read_text(), re.DOTALL | re.MULTILINE)


def test_the_mapping_in_the_hospital_guide_is_a_mapping() -> None:
    (shown,) = blocks("hospital.md", "toml")
    assert parse_mapping(shown.encode(), file="hospital.md").identifiers == {"surname"}


def test_the_cohort_in_the_researcher_guide_is_a_cohort() -> None:
    (shown,) = blocks("researcher.md", "json")
    assert len(Cohort.parse(shown).include) == 3
