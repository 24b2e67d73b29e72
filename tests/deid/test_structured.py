"""The one table of fields: every field that a reader takes stands in it, and nothing else passes."""

import ast
import csv
import json
import re
import typing
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deid.errors import MalformedRules
from deid.structured import NO_RULES, Action, Source, TableRules, restricted_zip3, rules_of, table
from node.ingest import facts
from node.ingest.readers import fhir_catalogue
from node.ingest.readers.fhir_elements import Resource

READERS = Path(__file__).parents[2] / "node" / "ingest" / "readers"


def test_every_line_has_a_reason_and_stands_once() -> None:
    assert all(rule.why.strip() for rule in table())
    named = [(rule.source, rule.field) for rule in table()]
    assert len(named) == len(set(named))


def test_the_facts_that_readers_give_are_exactly_those_of_the_table() -> None:
    listed = {rule.field for rule in table() if rule.source is Source.FACTS}
    assert listed == set(facts.SCHEMA.names)


def leaves(kind: Any, path: str, above: tuple[Any, ...] = ()) -> set[str]:
    """The paths of everything that msgspec reads of a type; a type inside itself once."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if above.count(kind) > 1:
            return set()
        found: set[str] = set()
        for part in msgspec.structs.fields(kind):
            found |= leaves(part.type, f"{path}.{part.encode_name}", (*above, kind))
        return found
    inner = [one for one in typing.get_args(kind) if one not in (type(None), ...)]
    if not inner or typing.get_origin(kind) is typing.Literal:
        return {path}
    found = set()
    for one in inner:
        found |= leaves(one, path, above) if not isinstance(one, msgspec.Meta) else set()
    return found


def fhir_resources() -> list[type[msgspec.Struct]]:
    """The classes of resources that the reader knows: importing its catalogue has made them all."""
    assert fhir_catalogue
    found: list[type[msgspec.Struct]] = []
    waiting: list[type[msgspec.Struct]] = [Resource]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__struct_config__.tag and kind.__module__.startswith("node."):
            found.append(kind)
    return found


def test_every_element_that_the_fhir_reader_takes_stands_in_the_table() -> None:
    rules = rules_of(Source.FHIR)
    kinds = fhir_resources()
    assert {"Patient", "Observation", "Encounter", "MedicationRequest"} <= {
        str(kind.__struct_config__.tag) for kind in kinds
    }
    paths = {path for kind in kinds for path in leaves(kind, str(kind.__struct_config__.tag))}
    # a contained resource has the paths of its own type
    unknown = {path for path in paths if path not in rules and not path.endswith(".contained")}
    assert not unknown


def test_every_field_that_the_hl7_reader_names_stands_in_the_table() -> None:
    named: set[str] = set()
    for file in READERS.glob("hl7v2*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"\A[A-Z][A-Z0-9]{2}-\d+\Z", node.value))
    named -= {"BIG-5", "UTF-8"}
    assert len(named) > 30
    rules = rules_of(Source.HL7V2)
    unknown = {
        name
        for name in named
        if name not in rules and not any(rule.field.startswith(f"{name}.") for rule in table())
    }
    # what says only that there is more: an insurance, a death by another message, a number without a meaning
    assert unknown <= {"INS-12", "PAT-6"}


VOCABULARY = frozenset(  # about words, not about patients
    ("concept", "concept_ancestor", "concept_class", "concept_relationship", "concept_synonym", "domain",
     "drug_strength", "relationship", "vocabulary", "source_to_concept_map")
)  # fmt: skip


def test_every_column_of_the_cdm_stands_in_the_table() -> None:
    rules = rules_of(Source.OMOP)
    text = resources.files("node.omop").joinpath("cdm54.csv").read_text()
    columns = [
        f"{row['table']}.{row['field']}"
        for row in csv.DictReader(text.splitlines())
        if row["table"] not in VOCABULARY
    ]
    assert len(columns) > 200
    assert not [column for column in columns if column not in rules]


def test_the_claims_columns_of_the_reader_stand_in_the_table() -> None:
    named = set()
    for file in READERS.glob("claims*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"\A[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\Z", node.value))
    assert len(named) > 20
    rules = rules_of(Source.CLAIMS)
    assert not {name for name in named if name not in rules}


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("Patient.name.family", Action.DROP),
        ("Patient.telecom.value", Action.DROP),
        ("Patient.contact.name.family", Action.DROP),
        ("Patient.birthDate", Action.BIRTH),
        ("Patient.address.postalCode", Action.ZIP3),
        ("Patient.identifier.value", Action.DROP),
        ("Patient.id", Action.PSEUDONYM),
        ("Observation.id", Action.RECORD),
        ("Observation.identifier.value", Action.DROP),
        ("Observation.valueQuantity.value", Action.KEEP),
        ("Condition.onsetAge.value", Action.AGE),
        ("Condition.note.text", Action.TEXT),
        ("Practitioner.id", Action.DROP),
        ("Practitioner.name.text", Action.DROP),
    ],
)
def test_the_most_exact_line_wins_and_a_dropped_branch_drops_all_of_it(path: str, action: Action) -> None:
    rule = rules_of(Source.FHIR).of(path)
    assert rule is not None
    assert rule.action is action


@pytest.mark.parametrize("path", ["Patient.religion", "Patient.address.line", "Patient.address.city",
                                  "Observation.performer.favourite"])  # fmt: skip
def test_what_nobody_named_is_not_in_the_table(path: str) -> None:
    assert path not in rules_of(Source.FHIR)


def test_restricted_areas_are_the_union_of_three_censuses(shared_data: Path) -> None:
    told = json.loads((shared_data / "deid_text" / "zip3_restricted.json").read_text())
    assert restricted_zip3() == {*told["2000"], *told["2010"], *told["2020"]}


def rules(tmp_path: Path, text: str) -> TableRules:
    (tmp_path / "rules.toml").write_text(text)
    return TableRules.load(tmp_path / "rules.toml")


def test_a_hospitals_own_lines_come_before_the_tables(tmp_path: Path) -> None:
    own = rules(tmp_path, 'patient = "chart"\nquasi = ["zip"]\n[columns]\nzip = "drop"\nward = "keep"\n')
    actions = own.of(["chart", "zip", "ward", "DOB", "shoe size"], Source.TABLE)
    assert actions == {
        "chart": Action.PSEUDONYM, "zip": Action.DROP, "ward": Action.KEEP, "DOB": Action.BIRTH,
        "shoe size": None,
    }  # fmt: skip
    assert own.quasi == ("zip",)
    assert NO_RULES.of(["zip"], Source.TABLE) == {"zip": Action.ZIP3}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x", "$"),
        ("a = 1", "a"),
        ("[columns]\na = 'shred'", "columns.a"),
        ("columns = 1", "columns"),
        ("patient = 'a'\n[columns]\na = 'keep'", "patient"),
        ("quasi = 'a'", "quasi"),
    ],
)
def test_rules_that_break_the_form_are_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(MalformedRules) as malformed:
        rules(tmp_path, text)
    assert malformed.value.key == key


def test_rules_for_a_column_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedRules, match="no such column"):
        rules(tmp_path, "[columns]\nzap = 'drop'").of(["zip"], Source.TABLE)
