"""Marked texts are read in the forms that data sets come in, and never misread in silence."""

import json
from pathlib import Path

import pytest

from deid.errors import MalformedGold
from deid.gold_formats import GoldDocument, document_of, is_dev, labels, read
from deid.spans import Category

I2B2 = """<?xml version="1.0" encoding="UTF-8" ?>
<deIdi2b2>
<TEXT><![CDATA[
Record date: 2069-04-07

Mr. Oswin Tarrow, 91 yo, MRN 0371843 & wife, a farmer from Tallwick.
]]></TEXT>
<TAGS>
<DATE id="P0" start="14" end="24" text="2069-04-07" TYPE="DATE" comment="" />
<NAME id="P1" start="30" end="42" text="Oswin Tarrow" TYPE="PATIENT" comment="" />
<AGE id="P2" start="44" end="46" text="91" TYPE="AGE" comment="" />
<ID id="P3" start="55" end="62" text="0371843" TYPE="MEDICALRECORD" comment="" />
<PROFESSION id="P4" start="73" end="79" text="farmer" TYPE="PROFESSION" comment="" />
<LOCATION id="P5" start="85" end="93" text="Tallwick" TYPE="CITY" comment="" />
</TAGS>
</deIdi2b2>
"""


def written(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def marked(document: GoldDocument) -> list[tuple[str, Category]]:
    return [(document.text[span.start : span.end], span.category) for span in document.spans]


def test_i2b2_xml_gives_its_marks_with_their_types(tmp_path: Path) -> None:
    (document,) = read(written(tmp_path / "110-01.xml", I2B2))
    assert document.id == "110-01"
    assert marked(document) == [
        ("2069-04-07", Category.DATE),
        ("Oswin Tarrow", Category.NAME),
        ("91", Category.AGE),
        ("0371843", Category.MRN),
        ("Tallwick", Category.ADDRESS),
    ]
    assert [document.text[start:end] for start, end in document.neutral] == ["farmer"]


def test_a_folder_of_i2b2_files_is_a_set(tmp_path: Path) -> None:
    for name in ("b", "a"):
        written(tmp_path / f"{name}.xml", I2B2)
    assert [document.id for document in read(tmp_path)] == ["a", "b"]


def test_json_gives_spans_neutral_spans_and_ids(tmp_path: Path) -> None:
    one = {
        "id": "n1",
        "text": "Ann Lee, 88, of Acme",
        "spans": [{"start": 0, "end": 7, "label": "NAME"}, {"start": 9, "end": 11, "label": "AGE"}],
        "neutral": [{"start": 16, "end": 20}],
    }
    (document,) = read(written(tmp_path / "gold.json", [one]))
    assert marked(document) == [("Ann Lee", Category.NAME)]
    assert document.neutral == ((16, 20), (9, 11))  # an age below ninety is nobody's matter


@pytest.mark.parametrize(
    ("age", "identity"), [("89", False), ("90", True), ("107 años", True), ("92-year-old", True),
                          ("nonagenarian", True), ("elderly", False)]
)  # fmt: skip
def test_only_ages_of_ninety_and_above_are_identity(age: str, identity: bool) -> None:
    assert bool(document_of("d", age, [(0, len(age), "AGE")], []).spans) is identity


def test_an_unknown_label_is_identity_and_named() -> None:
    document = document_of("d", "xyzzy", [(0, 5, "MAGIC")], [])
    assert marked(document) == [("xyzzy", Category.ID)]
    assert document.unknown_labels == ("MAGIC",)


@pytest.mark.parametrize(
    "value",
    [
        "{",
        {"id": "x"},
        [{"id": "x"}],
        [{"text": "Ann", "spans": [{"start": 0, "end": 4, "label": "NAME"}]}],
        [{"text": "Ann", "spans": [{"start": 2, "end": 2, "label": "NAME"}]}],
        [{"text": "Ann", "spans": [{"start": "0", "end": 2, "label": "NAME"}]}],
        [{"text": "Ann", "spans": [{"start": 0, "end": 2}]}],
        [{"text": "Ann", "spans": {}}],
        [{"text": "Ann", "spans": ["NAME"]}],
        [{"text": "Ann", "spans": [], "neutral": [[1]]}],
        [{"id": "a", "text": "Ann"}, {"id": "a", "text": "Bo"}],
    ],
)
def test_json_that_breaks_the_form_is_refused_without_a_word_of_the_text(
    tmp_path: Path, value: object
) -> None:
    with pytest.raises(MalformedGold) as malformed:
        read(written(tmp_path / "gold.json", value))
    assert "Ann" not in str(malformed.value)


@pytest.mark.parametrize(
    "text",
    [
        "<a",
        "<deIdi2b2><TEXT>Ann</TEXT></deIdi2b2>",
        '<deIdi2b2><TEXT>Ann</TEXT><TAGS><NAME start="0" TYPE="PATIENT"/></TAGS></deIdi2b2>',
        '<!DOCTYPE a [<!ENTITY b "Ann">]><deIdi2b2><TEXT>&b;</TEXT><TAGS/></deIdi2b2>',
    ],
)
def test_xml_that_breaks_the_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedGold) as malformed:
        read(written(tmp_path / "gold.xml", text))
    assert "Ann" not in str(malformed.value)


def test_a_document_does_not_print_its_text() -> None:
    assert "Ann" not in repr(document_of("d", "Ann", [(0, 3, "NAME")], []))


def test_every_label_of_the_table_is_a_kind_and_a_rule_that_exist_and_stands_once() -> None:
    from importlib import resources

    lines = resources.files("deid").joinpath("gold_labels.csv").read_text(encoding="utf-8").splitlines()
    assert len(labels()) == len(lines) - 1
    assert {label.rule for label in labels().values()} == {"identity", "age", "neutral"}
    assert all(name == name.upper() for name in labels())


def test_the_two_halves_are_of_about_the_same_size_and_do_not_depend_on_order() -> None:
    halves = [is_dev(f"note-{number}") for number in range(2_000)]
    assert 900 < sum(halves) < 1_100
    assert is_dev("note-7") is is_dev("note-7")


def test_the_shared_sets_are_read_whole(shared_data: Path) -> None:
    folder = shared_data / "deid_text"
    sizes = {}
    for name in ("dev_outis_cc0", "dev_presidio_synth_v2", "meddocan_dev_es"):
        documents = read(folder / f"{name}.json")
        assert not any(document.unknown_labels for document in documents)
        sizes[name] = (len(documents), sum(len(one.spans) for one in documents))
    assert sizes["dev_outis_cc0"] == (600, 5607)
    assert sizes["dev_presidio_synth_v2"][0] == 1500
    assert sizes["meddocan_dev_es"][0] == 250
