"""A mapping says what columns mean; what it does not know it refuses, naming file and key."""

import pytest

from node.ingest.errors import MalformedMapping
from node.ingest.mapping import packaged, parse_mapping

GOOD = """
[source]
name = "labs"
version = 1
files = ["labs*.csv"]

[patient]
column = "mrn"

[date]
column = "taken"

[[events]]
table = "measurement"
column = "value"
kind = "number"
concept_id = 3004249
"""


def refused(text: str) -> MalformedMapping:
    with pytest.raises(MalformedMapping) as caught:
        parse_mapping(text.encode(), file="labs.toml")
    assert caught.value.file == "labs.toml"
    return caught.value


def test_a_good_mapping_is_read() -> None:
    mapping = parse_mapping(GOOD.encode(), file="labs.toml")
    assert mapping.fits("labs-2020.csv")
    assert not mapping.fits("visits.csv")
    assert mapping.used_columns() == {"mrn", "taken", "value"}


def test_the_hash_follows_the_meaning_not_the_layout() -> None:
    one = parse_mapping(GOOD.encode(), file="a")
    spaced = parse_mapping(("# a comment\n\n" + GOOD.replace(" = ", "=")).encode(), file="b")
    other = parse_mapping(GOOD.replace("3004249", "3012888").encode(), file="a")
    assert one.sha256 == spaced.sha256 != other.sha256


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("version = 1", "version = 1\nsheet = 2", "source.sheet"),
        ("version = 1", 'version = "1"', "source.version"),
        ("version = 1", "", "source.version"),
        ('files = ["labs*.csv"]', 'files = "labs.csv"', "source.files"),
        ("version = 1", 'version = 1\ndelimiter = ";;"', "source.delimiter"),
        ("version = 1", "version = 1\nheader = false", "source.columns"),
        ("version = 1", 'version = 1\ncolumns = ["mrn"]', "source.columns"),
        ("[patient]", "[patients]", "patient"),
        ('column = "mrn"', 'column = "mrn"\nrow = true', "patient.column"),
        ('column = "taken"', 'column = "taken"\nconstant = 2020-01-01', "date.column"),
        ('column = "taken"', "constant = 2020-01-01T00:00:00", "date.constant"),
        ("[date]", "[person]\nsex = { column = 's', map = {} }\n[date]", "person.age"),
        ("[date]", "[person]\nage = 'a'\nheight = 'h'\n[date]", "person.height"),
        ("[date]", "[visit]\n[date]", "visit.concept_id"),
        ("[date]", "[columns.mrn]\nsecret = true\n[date]", "columns.mrn.secret"),
        ("[date]", "[columns.value]\nidentifier = true\n[date]", "columns.value"),
        ("[date]", "[columns.taken]\nignore = true\n[date]", "columns.taken"),
        ('table = "measurement"', 'table = "note"', "events[0].table"),
        ('column = "value"', "", "events[0].column"),
        ('kind = "number"', 'kind = "float"', "events[0].kind"),
        ('kind = "number"', 'kind = "text"', "events[0].kind"),
        ('kind = "number"', 'kind = "category"', "events[0].values"),
        ('kind = "number"', 'kind = "number"\nabove = 0', "events[0].present"),
        ("concept_id = 3004249", "", "events[0].concept_id"),
        ("concept_id = 3004249", "concept_id = -1", "events[0].concept_id"),
        ("concept_id = 3004249", "concept_id = 2000000001", "events[0].name"),
        ("concept_id = 3004249", "concept_id = 3004249\nrange = [2, 1]", "events[0].range"),
        ("concept_id = 3004249", "concept_id = 3004249\nrange = [nan, 1]", "events[0].range"),
        ("concept_id = 3004249", "concept_id = 3004249\nout_of_range = 'drop'", "events[0].out_of_range"),
        ("concept_id = 3004249", "concept_id = 3004249\nend = { column = 'e' }", "events[0].end"),
        ("concept_id = 3004249", "concept = { column = 'c', map = { a = 'b' } }", "events[0].concept.map.a"),
        ("concept_id = 3004249", "concept = { column = 'c', map = {}, x = 1 }", "events[0].concept.x"),
    ],
)
def test_a_wrong_key_is_named(old: str, new: str, key: str) -> None:
    assert old in GOOD
    assert refused(GOOD.replace(old, new)).key == key


def test_records_need_dates() -> None:
    assert refused(GOOD.replace('[date]\ncolumn = "taken"', "")).key == "events[0].date"


def test_what_is_no_toml_is_refused() -> None:
    assert refused("a = = b").key == "$"
    assert refused("x" * 1_000_001).key == "$"
    with pytest.raises(MalformedMapping):
        parse_mapping(b"\xff", file="labs.toml")


def test_the_heart_mapping_comes_with_the_package_and_names_its_local_concepts() -> None:
    heart = next(mapping for mapping in packaged() if mapping.name == "heart")
    assert heart.fits("processed.cleveland.data")
    assert {concept.concept_id for concept in heart.local_concepts()} == set(range(2000100001, 2000100011))
    assert all(concept.name for concept in heart.local_concepts())
    standard = {event.concept_id for event in heart.events} - set(range(2000100001, 2000100011))
    assert standard == {3004249, 3027114, 317576}
