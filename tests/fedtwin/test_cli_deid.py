"""`fedtwin deid` by itself: no node, its own key, and exit codes that mean something."""

import csv
import json
import os
import re
import stat
from importlib.util import find_spec
from pathlib import Path

import pytest

from deid.evaluation_peers import MODEL_PACKAGE
from node.deid_standing import deid_standing
from node.running import SOFTWARE_VERSION
from tests.deid.dicom.objects import base
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.test_cli_genomes import LABS

NOTE = "Ann Lee was seen on 3/4/2019; her phone is (415) 555-2671. Ann Lee left.\n"
GOLD = [
    {
        "id": "a",
        "text": NOTE,
        "spans": [
            {"start": 0, "end": 7, "label": "NAME"},
            {"start": 20, "end": 28, "label": "DATE"},
            {"start": 43, "end": 57, "label": "PHONE"},
            {"start": 59, "end": 66, "label": "NAME"},
        ],
        "neutral": [],
    },
    {"id": "b", "text": "Blood pressure 120/80, no acute distress.", "spans": [], "neutral": []},
]
FINDERS = [
    "ours",
    pytest.param(
        "presidio",
        marks=pytest.mark.skipif(find_spec(MODEL_PACKAGE) is None, reason="needs Presidio's language model"),
    ),
]


@pytest.fixture
def note(tmp_path: Path) -> Path:
    (tmp_path / "note.txt").write_text(NOTE)
    return tmp_path / "note.txt"


def test_several_processes_find_what_one_finds(fedtwin: Fedtwin, note: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("MRN: 4711902. Seen by Dr. Oswin Tarrow on 3/9/2019.\n")
    alone = fedtwin("deid", "text", note, other, "--spans", "--json")
    together = fedtwin("deid", "text", note, other, "--spans", "--json", "--processes", "2")
    assert alone.code == together.code == 0
    assert together.json == alone.json
    assert together.json[1]["spans"]


@pytest.mark.parametrize("finder", FINDERS)
def test_evaluate_prints_the_promised_figures_and_no_word_of_a_text(
    fedtwin: Fedtwin, tmp_path: Path, finder: str
) -> None:
    gold, page = tmp_path / "gold.json", tmp_path / "page.html"
    gold.write_text(json.dumps(GOLD))
    said = fedtwin("deid", "evaluate", gold, "--finder", finder, "--html", page, "--errors", "--json")
    assert said.code == 0
    promised = ("char_recall", "over_redaction", "fully_masked_documents", "token_precision", "entity_recall")
    for name in (*promised, "notes_per_second"):
        assert isinstance(said.json[name], float), name
    assert said.json["by_category"]["name"]["entity_recall"]["whole"] == 2
    assert said.json["char_recall"] > 0.9
    digits = r"(?<![\d.])2671(?![\d.])"  # no figure with a fraction
    assert not re.search(rf"\bAnn\b|\bLee\b|415\D*555\D*2671|{digits}", said.out)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert fedtwin("deid", "evaluate", gold, "--finder", finder, "--half", "dev").code in (0, 2)


def test_an_evaluation_may_be_kept_for_the_policy(fedtwin: Fedtwin, tmp_path: Path, hospital: Path) -> None:
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps(GOLD))
    said = fedtwin("deid", "evaluate", gold, "--home", hospital, "--json")
    assert said.code == 0
    known = deid_standing(hospital / "deid.json", version=SOFTWARE_VERSION)
    assert known.char_recall == said.json["char_recall"]
    assert known.over_redaction == said.json["over_redaction"]
    assert fedtwin("deid", "evaluate", gold, "--home", hospital, "--finder", "presidio").code in (1, 2)


def test_evaluate_refuses_a_file_that_is_no_gold(fedtwin: Fedtwin, note: Path) -> None:
    said = fedtwin("deid", "evaluate", note)
    assert said.code == 2
    assert "Ann" not in said.err


def test_text_replaces_identity_the_same_for_a_patient_and_otherwise_for_another(
    fedtwin: Fedtwin, note: Path, tmp_path: Path
) -> None:
    key = ("--key", tmp_path / "deid" / "key")
    first = fedtwin("deid", "text", note, *key, "--patient", "7")
    assert first.code == 0
    assert not re.search(r"\bAnn\b|\bLee\b|415\D*555\D*2671|3/4/2019", first.out)
    assert "was seen on" in first.out
    assert fedtwin("deid", "text", note, *key, "--patient", "7").out == first.out
    assert fedtwin("deid", "text", note, *key, "--patient", "8").out != first.out
    assert fedtwin("deid", "text", note, *key, "--patient", "7", "--project", "a").out != first.out
    for file in ("key", "key.vault"):
        assert stat.S_IMODE((tmp_path / "deid" / file).stat().st_mode) == 0o600
    (tmp_path / "deid" / "key").chmod(0o644)
    assert fedtwin("deid", "text", note, *key).code == 2


def test_rotating_a_projects_key_changes_its_exports_and_no_others(fedtwin: Fedtwin, tmp_path: Path) -> None:
    source, key = tmp_path / "in.csv", ("--key", tmp_path / "key")
    source.write_text("mrn,date\n8404915,2020-01-02\n")

    def export(name: str, project: str) -> str:
        command = ("deid", "table", source, tmp_path / name, "--no-text", "--project", project, *key)
        assert fedtwin(*command).code == 0
        return (tmp_path / name).read_text()

    a, b = export("a1.csv", "a"), export("b1.csv", "b")
    assert a != b
    assert fedtwin("deid", "rotate", "a", *key, "--json").json == {"project": "a", "rotated": 1}
    assert export("a2.csv", "a") not in (a, b)
    assert export("b2.csv", "b") == b
    assert fedtwin("deid", "rotate", "", *key).code == 2


def test_text_by_tags_bars_and_spans_needs_no_key(fedtwin: Fedtwin, note: Path, tmp_path: Path) -> None:
    tagged = fedtwin("deid", "text", note, "--style", "tag", "--key", tmp_path / "never")
    assert tagged.out.startswith("[NAME] was seen on [DATE]; her phone is [PHONE].")
    assert "Ann" not in fedtwin("deid", "text", note, "--style", "redact").out
    spans = fedtwin("deid", "text", note, "--spans", "--json").json
    assert (spans[0]["start"], spans[0]["end"], spans[0]["category"]) == (0, 7, "name")
    assert not (tmp_path / "never").exists()


def test_several_texts_go_to_a_folder(fedtwin: Fedtwin, note: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Seen by Dr. Tarrow.")
    assert fedtwin("deid", "text", note, other, "--style", "tag").code == 2
    assert fedtwin("deid", "text", note, other, "--style", "tag", "--out", tmp_path / "out").code == 0
    assert "Tarrow" not in (tmp_path / "out" / "other.txt").read_text()


def test_what_is_known_of_the_patient_is_found_wherever_it_stands(fedtwin: Fedtwin, tmp_path: Path) -> None:
    text, known = tmp_path / "t.txt", tmp_path / "known.json"
    text.write_text("the zyxqvar family lives near the mill")
    known.write_text(json.dumps([{"category": "name", "value": "Zyxqvar"}]))
    said = fedtwin("deid", "text", text, "--known", known, "--style", "tag")
    assert "zyxqvar" not in said.out
    known.write_text("[1]")
    assert fedtwin("deid", "text", text, "--known", known, "--style", "tag").code == 2


def test_a_table_by_rules_of_the_hospital(fedtwin: Fedtwin, tmp_path: Path) -> None:
    source, rules = tmp_path / "in.csv", tmp_path / "rules.toml"
    source.write_text("chart,name,zip,ward,shoe\n8404915,Ann Lee,02139,3B,44\n8404915,Ann Lee,03601,3B,44\n")
    rules.write_text('patient = "chart"\n[columns]\nward = "keep"\n')
    command = ("deid", "table", source, tmp_path / "out.csv", "--rules", rules, "--no-text", "--json")
    said = fedtwin(*command, "--key", tmp_path / "key")
    assert said.code == 0
    assert said.json["unknown"] == {"shoe": 2}
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["zip"] for row in rows] == ["021", "000"]
    assert rows[0]["chart"] == rows[1]["chart"] != "8404915"
    assert rows[0].keys() == {"chart", "zip", "ward"}
    again = fedtwin(*command, "--key", tmp_path / "key")
    assert again.code == 2  # it is there already
    rules.write_text('[columns]\nnothing = "keep"\n')
    wrong = fedtwin("deid", "table", source, tmp_path / "b.csv", "--rules", rules, "--key", tmp_path / "key")
    assert wrong.code == 2
    assert not (tmp_path / "b.csv").exists()


def test_an_export_of_resources_through_the_finder(fedtwin: Fedtwin, tmp_path: Path) -> None:
    source, target = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    resource = {
        "resourceType": "Condition",
        "subject": {"reference": "Patient/8404915"},
        "note": [{"text": "Mr. Oswin Tarrow felt well."}],
        "recordedDate": "2020-01-02",
    }
    source.write_text(json.dumps(resource))
    assert fedtwin("deid", "table", source, target, "--key", tmp_path / "key").code == 0
    out = json.loads(target.read_text())
    assert re.fullmatch(r"Mr\. \w+ \w+ felt well\.", out["note"][0]["text"])
    assert "Tarrow" not in target.read_text()
    assert out["recordedDate"] != "2020-01-02"


def test_report_says_the_risk_and_writes_a_table_that_has_k(fedtwin: Fedtwin, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [f"{'FM'[n % 2]},{1940 + n % 17},{'ab'[n % 3 == 0]}" for n in range(60)]
    source.write_text("sex,birth_year,illness\n" + "\n".join(rows) + "\n")
    quasi = ("--quasi", "sex", "--quasi", "birth_year")
    said = fedtwin(
        "deid", "report", source, *quasi, "--sensitive", "illness", "-k", "5", "--out", out, "--json"
    )
    assert said.code == 0
    assert said.json["k"] < 5
    assert said.json["prosecutor_risk"]["highest"] == 1 / said.json["k"]
    assert said.json["to_reach_k"]["k"] == 5
    assert fedtwin("deid", "report", out, *quasi, "--json").json["k"] >= 5
    assert fedtwin("deid", "report", source).code == 2
    assert fedtwin("deid", "report", source, "--quasi", "nothing").code == 2
    assert fedtwin("deid", "report").code == 2


def test_report_on_a_nodes_store(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    (tmp_path / "labs.csv").write_text("mrn,yob,day,value\nA,1970,2020-01-05,1\nB,1980,2021-01-05,2\n")
    (tmp_path / "labs.toml").write_text(LABS)
    assert fedtwin("node", "ingest", tmp_path / "labs.csv", "--home", hospital).code == 0
    said = fedtwin("deid", "report", "--home", hospital, "--quasi", "sex", "--quasi", "birth_year", "--quasi",
                   "days_first_to_last", "--quasi", "condition:312327", "--json")  # fmt: skip
    assert said.code == 0
    assert (said.json["records"], said.json["k"], said.json["unique"]) == (2, 1, 2)
    assert said.json["quasi_identifiers"] == ["sex", "birth_year", "days_first_to_last", "condition:312327"]


@pytest.mark.slow
def test_the_command_says_so_and_keeps_it_for_the_policy(fedtwin: Fedtwin, hospital: Path) -> None:
    said = fedtwin("deid", "canary", "--home", hospital, "--json")
    assert said.code == 0, said.json["leaks"]
    assert '"leaks":0' in (hospital / "deid.json").read_text().replace(" ", "")


def test_images_and_what_is_left_out(fedtwin: Fedtwin, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image = base()
    image.PatientName = "Tarrow^Oswin"
    image.save_as(source / "a.dcm", enforce_file_format=True)
    (source / "b.dcm").write_bytes(b"Tarrow is no image")
    command = ("deid", "dicom", source, tmp_path / "out", "--no-text", "--key", tmp_path / "key", "--json")
    said = fedtwin(*command)
    assert said.json["files"] == 2
    assert [one["reason"] for one in said.json["left_out"]] == ["not-dicom"]
    (written,) = (tmp_path / "out").rglob("*.dcm")
    assert b"Tarrow" not in written.read_bytes()
    assert said.code == 0
    assert fedtwin(*command, "--option", "nothing").code == 2
    (source / "a.dcm").unlink()
    assert fedtwin(*command).code == 3


def test_images_with_odd_names_are_listed_as_they_are_called(fedtwin: Fedtwin, tmp_path: Path) -> None:
    """A name may look like markup, steer a terminal, or be no text: once it ended the run or went out raw."""
    source = tmp_path / "in"
    source.mkdir()
    for name in (b"a[bold].dcm", b"b[[]red].dcm", b"\x1b[2Jc.dcm", b"\xff.dcm", b"line\nbreak.dcm"):
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(b"no image")
    command = ("deid", "dicom", source, tmp_path / "out", "--no-text", "--key", tmp_path / "key")
    said = fedtwin(*command)
    assert said.code == 3
    assert "a[bold].dcm" in said.out
    assert "b[[]red].dcm" in said.out
    assert "\x1b" not in said.out
    listed = fedtwin(*command, "--json").json["left_out"]
    assert {os.fsencode(Path(one["file"]).name) for one in listed} == {
        os.fsencode(path.name) for path in source.iterdir()
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "names no columns"),
        ("a.csv", b"mrn,name\n1,Tarrow\xff\n", "not text in UTF-8"),
        ("a.parquet", b"PAR1 Tarrow", "no whole Parquet file"),
        ("a.parquet", b"", "no whole Parquet file"),
        ("a.ndjson", b'{"resourceType": "Patient", "name": [{"family": "Tarrow"', ""),
    ],
)
def test_a_damaged_table_is_the_callers_mistake_and_none_of_it_is_told(
    fedtwin: Fedtwin, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    source, target = tmp_path / name, tmp_path / "out"
    source.write_bytes(content)
    said = fedtwin("deid", "table", source, target, "--no-text", "--key", tmp_path / "key")
    assert said.code == 2, said.err
    assert words in said.err
    assert "Tarrow" not in said.out + said.err
    assert not target.exists()
    if source.suffix != ".ndjson":
        assert fedtwin("deid", "report", source, "--quasi", "name").code == 2
