"""Raw exports field by field: nothing of the person comes out, and what the study needs does."""

import csv
import json
import re
import stat
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid.dates import DatePractice
from deid.errors import MalformedRules, NotRedacted
from deid.spans import Category, Finder, Known, Span, merged
from deid.structured import NO_RULES, Source, TableRules
from deid.structured_records import clean_fhir, clean_hl7v2, clean_message, clean_resource
from deid.structured_tables import clean_csv, clean_parquet, report_of
from deid.structured_values import Cleaner, Tally, Unfit, capped_age, is_plain_value, shifted, zip3
from deid.surrogates import Style
from deid.vault import PseudonymKey, Vault
from tests.privacy.seeded_bits import SeededBits

KEY = PseudonymKey(bytes(range(32)))
TODAY = date(2026, 11, 21)
SECRETS = (
    "Oswin",
    "Tarrow",
    "8404915",
    "415-555-2671",
    "oswin@tarrow.net",
    "12 Quill",
    "078-05-1120",
    "1984-03-05",
)


class Listed:
    """Finds the names of a list, and what is known of the patient."""

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        found = []
        for place, text in enumerate(texts):
            if "unreadable" in text:
                raise NotRedacted("cannot be analysed")
            values = [(one.value, one.category) for one in (known[place] if known else ())]
            values += [("Oswin Tarrow", Category.NAME), ("Tarrow", Category.NAME)]
            found.append(
                merged(
                    Span(match.start(), match.end(), kind)
                    for value, kind in values
                    for match in re.finditer(re.escape(value), text)
                )
            )
        return found


def cleaner(folder: Path, finder: Finder | None = None, *, seed: int = 3, **changes: object) -> Cleaner:
    vault = Vault.open(folder / "vault", key=KEY, bits=SeededBits(seed))
    return Cleaner(vault, TODAY, finder=finder or Listed(), **changes)  # type: ignore[arg-type]


PATIENT = {
    "resourceType": "Patient",
    "id": "8404915",
    "identifier": [{"system": "http://h", "value": "8404915"}],
    "name": [{"family": "Tarrow", "given": ["Oswin"]}],
    "telecom": [{"value": "415-555-2671"}, {"value": "oswin@tarrow.net"}],
    "gender": "male",
    "birthDate": "1984-03-05",
    "address": [{"line": ["12 Quill"], "city": "Tallwick", "state": "VT", "postalCode": "05901"}],
    "text": {"status": "generated", "div": "<div>Oswin Tarrow</div>"},
    "religion": "Tarrow",
}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o-1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "Hb of Oswin Tarrow"},
    "subject": {"reference": "Patient/8404915", "display": "Oswin Tarrow"},
    "effectiveDateTime": "2020-02-28T10:15:00Z",
    "valueQuantity": {"value": 7.4, "unit": "g/dL"},
    "performer": [{"display": "Tarrow"}],
    "note": [{"text": "Mr Oswin Tarrow felt well"}],
    "component": [{"code": {"coding": [{"code": "1"}]}, "valueBoolean": False}],
}


def test_a_resource_keeps_what_is_measured_and_loses_who_it_is_about(tmp_path: Path) -> None:
    tally = Tally()
    clean = cleaner(tmp_path)
    person = clean_resource(PATIENT, clean, tally)
    result = clean_resource(OBSERVATION, clean, tally)
    assert person is not None
    assert result is not None
    out = json.dumps([person, result])
    assert not [secret for secret in SECRETS if secret in out]
    assert person["gender"] == "male"
    assert person["address"] == [{"state": "VT", "postalCode": "000"}]  # 059 is a restricted area
    assert re.fullmatch(r"198[3-5]", person["birthDate"])
    assert result["subject"] == {"reference": f"Patient/{person['id']}"}
    assert result["valueQuantity"] == {"value": 7.4, "unit": "g/dL"}
    assert result["component"][0]["valueBoolean"] is False
    assert re.fullmatch(r"Hb of \w+ \w+", result["code"]["text"])
    assert result["effectiveDateTime"].endswith("T10:15:00Z")
    assert result["effectiveDateTime"] != OBSERVATION["effectiveDateTime"]
    report = report_of(tally)
    assert report["unknown"].keys() == {"Patient.religion", "Patient.address.line", "Patient.address.city"}
    assert report["dropped"]["Patient.name.family"] == {"by-rule": 1}
    assert not [secret for secret in SECRETS if secret in json.dumps(report)]


def test_a_file_of_resources_is_written_for_its_owner_and_never_over_another(tmp_path: Path) -> None:
    source, target = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    practitioner = {"resourceType": "Practitioner", "id": "p", "name": [{"family": "Tarrow"}]}
    source.write_text("\n".join(json.dumps(one) for one in (PATIENT, practitioner, OBSERVATION)) + "\n\n")
    clean_fhir(source, target, cleaner(tmp_path))
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["resourceType"] for line in lines] == ["Patient", "Observation"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        clean_fhir(source, target, cleaner(tmp_path))
    source.write_text('{"Tarrow"\n')
    with pytest.raises(ValueError, match="line 1") as error:
        clean_fhir(source, tmp_path / "other", cleaner(tmp_path))
    assert "Tarrow" not in str(error.value)


def test_a_bundle_is_cleaned_entry_by_entry(tmp_path: Path) -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": "x/8404915", "resource": PATIENT}, {}]}
    cleaned = clean_resource(bundle, cleaner(tmp_path), Tally())
    assert cleaned is not None
    assert len(cleaned["entry"]) == 1
    assert "8404915" not in json.dumps(cleaned)


def test_without_a_patient_dates_and_texts_do_not_pass(tmp_path: Path) -> None:
    tally = Tally()
    orphan = {name: value for name, value in OBSERVATION.items() if name != "subject"}
    cleaned = clean_resource(orphan, cleaner(tmp_path), tally)
    assert cleaned is not None
    assert "effectiveDateTime" not in cleaned
    assert "note" not in cleaned
    assert tally.dropped["Observation.effectiveDateTime", "no-patient"] == 1


MESSAGE = "\r".join(
    (
        "MSH|^~\\&|LAB|TALLWICK|X|Y|20200228101500||ORU^R01|m-1|P|2.5",
        "PID|1||8404915^^^H^MR~99^^^X||Tarrow^Oswin||19840305|M"
        "|||12 Quill^^Tallwick^VT^05901^USA||415-555-2671",
        "OBR|1|o1|o2|718-7^Hb for Oswin Tarrow^LN|||20200228101500",
        "OBX|1|NM|718-7^Hb^LN||7.4|g/dL|12-16|L|||F|||20200228101500",
        "OBX|2|TX|9999^Comment||Mr Oswin Tarrow felt well||||||F",
        "NTE|1||Seen by Tarrow",
        "ZZZ|8404915|Tarrow",
        "Oswin Tarrow was here",
    )
)


def test_a_message_keeps_its_form_and_its_results(tmp_path: Path) -> None:
    tally = Tally()
    cleaned = clean_message(MESSAGE, cleaner(tmp_path), tally)
    assert not [
        secret for secret in (*SECRETS, "TALLWICK", "Tallwick", "19840305", "20200228") if secret in cleaned
    ]
    segments = {line[:5]: line.split("|") for line in cleaned.split("\r")}
    assert segments["MSH|^"][1] == "^~\\&"
    assert segments["MSH|^"][8] == "ORU^R01"
    pid = segments["PID|1"]
    assert re.fullmatch(r"\d+~\d+", pid[3])
    assert pid[5] == ""
    assert pid[11] == "^^^VT^000^USA"
    assert segments["OBX|1"][5:8] == ["7.4", "g/dL", "12-16"]
    assert re.fullmatch(r"Mr \w+ \w+ felt well", segments["OBX|2"][5])
    assert "ZZZ" not in cleaned
    moved = date.fromisoformat(segments["OBR|1"][7][:8]) - date(2020, 2, 28)
    sent = date.fromisoformat(segments["MSH|^"][6][:8]) - date(2020, 2, 28)
    assert moved == sent != timedelta(0)
    assert tally.unknown["segment"] == 1


def test_a_file_of_messages_comes_out_as_one(tmp_path: Path) -> None:
    source, target = tmp_path / "in.hl7", tmp_path / "out.hl7"
    source.write_bytes(b"\x0b" + MESSAGE.encode() + b"\x1c\r" + MESSAGE.replace("\r", "\n").encode())
    clean_hl7v2(source, target, cleaner(tmp_path))
    assert target.read_text().count("MSH|") == 2
    source.write_bytes(MESSAGE.replace("Tarrow", "Tärrow").encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        clean_hl7v2(source, tmp_path / "other.hl7", cleaner(tmp_path))
    assert not (tmp_path / "other.hl7").exists()


ROWS = [
    {"mrn": "8404915", "name": "Oswin Tarrow", "dob": "1984-03-05", "zip": "05901", "age": "97", "sex": "M",
     "visit_date": "2/28/2020", "note": "Oswin Tarrow: 415-555-2671", "phone": "415-555-2671", "shoe": "44"},
    {"mrn": "8404915", "name": "Oswin Tarrow", "dob": "1984-03-05", "zip": "02139", "age": "35", "sex": "M",
     "visit_date": "3/1/2020", "note": "", "phone": "", "shoe": "44"},
]  # fmt: skip


def written(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_comes_out_without_identity_and_with_its_intervals(tmp_path: Path) -> None:
    tally = clean_csv(written(tmp_path / "in.csv"), tmp_path / "out.csv", NO_RULES, cleaner(tmp_path))
    first, second = rows_of(tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text()
    assert not [secret for secret in SECRETS if secret in text]  # the telephone is known from its column
    assert set(first) == {"mrn", "dob", "zip", "age", "sex", "visit_date", "note"}
    assert first["mrn"] == second["mrn"]
    assert (first["zip"], second["zip"]) == ("000", "021")
    assert (first["age"], second["age"]) == ("90", "35")
    days = [date(*map(int, (*row["visit_date"].split("/")[2:], *row["visit_date"].split("/")[:2])))
            for row in (first, second)]  # fmt: skip
    assert days[1] - days[0] == timedelta(days=2)
    report = report_of(tally)
    assert report["unknown"] == {"shoe": 2}
    assert report["dropped"]["phone"] == {"by-rule": 2}


def test_parquet_keeps_the_types_of_what_passes_as_it_is(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {
                "person_id": [1, 2],
                "visit_date": [date(2020, 2, 28), None],
                "score": pa.array([1.5, 2.5], pa.float32()),
                "name": ["Oswin Tarrow", "B"],
            }
        ),
        tmp_path / "in.parquet",
    )
    (tmp_path / "rules.toml").write_text('[columns]\nscore = "keep"\n')
    rules = TableRules.load(tmp_path / "rules.toml")
    clean_parquet(tmp_path / "in.parquet", tmp_path / "out.parquet", rules, cleaner(tmp_path))
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["person_id", "visit_date", "score"]
    assert found.schema.field("score").type == pa.float32()
    assert found["visit_date"][1].as_py() is None
    assert found["visit_date"][0].as_py() != "2020-02-28"
    assert stat.S_IMODE((tmp_path / "out.parquet").stat().st_mode) == 0o600


def test_the_cdms_own_names_are_read_as_such(tmp_path: Path) -> None:
    rows = [
        {"person.person_id": "7", "person.year_of_birth": "1920", "person.person_source_value": "8404915"}
    ]
    clean_csv(
        written(tmp_path / "in.csv", rows),
        tmp_path / "out.csv",
        NO_RULES,
        cleaner(tmp_path),
        named=Source.OMOP,
    )
    (row,) = rows_of(tmp_path / "out.csv")
    assert row.keys() == {"person.person_id", "person.year_of_birth"}
    assert row["person.year_of_birth"] == str(2026 - 90)


def test_year_only_practice_keeps_years_and_no_days(tmp_path: Path) -> None:
    clean = cleaner(tmp_path, practice=DatePractice.YEAR_ONLY, style=Style.TAG)
    clean_csv(written(tmp_path / "in.csv"), tmp_path / "out.csv", NO_RULES, clean)
    first = rows_of(tmp_path / "out.csv")[0]
    assert first["visit_date"] == "2020"
    assert first["dob"] == "1984"
    assert first["note"].startswith("[NAME]")


def test_two_projects_exports_share_no_id_no_date_and_no_surrogate(tmp_path: Path) -> None:
    people = [{**ROWS[0], "mrn": str(8_404_915 + n)} for n in range(60)]
    source, found = written(tmp_path / "in.csv", people), []
    for seed, project in enumerate(("a", "b")):
        cleaned = cleaner(tmp_path, seed=seed, project=project)
        clean_csv(source, tmp_path / f"{project}.csv", NO_RULES, cleaned)
        found.append(rows_of(tmp_path / f"{project}.csv"))
    a, b = found
    assert not {row["mrn"] for row in a} & {row["mrn"] for row in b}
    assert sum(x["visit_date"] == y["visit_date"] for x, y in zip(a, b, strict=True)) <= 3
    assert sum(x["note"] == y["note"] for x, y in zip(a, b, strict=True)) <= 3


def test_a_text_that_cannot_be_analysed_does_not_pass(tmp_path: Path) -> None:
    rows = [{"mrn": "1", "note": "unreadable Tarrow"}]
    tally = clean_csv(written(tmp_path / "in.csv", rows), tmp_path / "out.csv", NO_RULES, cleaner(tmp_path))
    assert "Tarrow" not in (tmp_path / "out.csv").read_text()
    assert tally.dropped["note", "not-redacted"] == 1


def test_a_row_that_does_not_fit_its_columns_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("mrn,note\n1,a,Tarrow\n")
    with pytest.raises(MalformedRules, match="row 1") as malformed:
        clean_csv(tmp_path / "in.csv", tmp_path / "out.csv", NO_RULES, cleaner(tmp_path))
    assert "Tarrow" not in str(malformed.value)


def test_values_by_themselves() -> None:
    assert zip3("03601-1234") == "000"
    assert capped_age("90") == capped_age("104.5") == "90"
    assert capped_age("89") == "89"
    for wrong, call in (("abc", zip3), ("1234", zip3), ("-1", capped_age), ("old", capped_age)):
        with pytest.raises(Unfit):
            call(wrong)
    for raw, days, then in (("2020-02", 20, "2020-03"), ("2020", 400, "2021"), ("20200228101500+0100", 2,
                            "20200301101500+0100"), ("12/31/2019", 1, "1/1/2020")):  # fmt: skip
        assert shifted(raw, days) == then
    for raw in ("soon", "2020-13-01", "99/99/2020", "2020-02-30"):
        with pytest.raises(Unfit):
            shifted(raw, 1)
    assert not is_plain_value("Tarrow")
    assert not is_plain_value("Lee")
    assert not is_plain_value("8404915123")
