"""Each kind of HL7 v2 message, made by hand, to the facts that it means."""

from datetime import UTC, date, datetime

import pytest

from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_record import cells, table
from node.omop.units import ucum_of, units
from tests.node.ingest.hl7v2_made import PID, PV1, kinds, message, one, read


def us(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000


def reasons_of(turned_away) -> list[tuple[str, str, bool]]:
    return [(note.field, note.reason, note.whole_record) for note in turned_away]


def test_an_admission_gives_person_and_visit():
    rows, turned_away = read(message("ADT^A01", "EVN|A01|20200501080100", PID, PV1))
    assert turned_away == []
    assert kinds(rows) == {"person": 1, "visit": 1}
    person, visit = rows
    assert (person["patient"], person["patient_namespace"]) == ("M1", "GHH")
    assert (person["sex"], person["birth"], person["precision"]) == (
        "female",
        date(1961, 6, 15).toordinal() - 719163,
        "day",
    )
    assert person["race"] == ("urn:oid:2.16.840.1.113883.6.238", "2106-3", "White")
    assert person["ethnicity"][1] == "N"
    assert person["version"] == us(2020, 5, 1, 10)
    assert (visit["key"], visit["encounter"]) == ("V1", "V1")
    assert (visit["start"], visit["utc_offset_min"]) == (us(2020, 5, 1, 6), 120)  # the offset of MSH-7
    assert visit["end"] is None
    assert [coding[:2] for coding in visit["codes"]] == [
        ("HL70004", "I"),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "IMP"),
    ]
    assert visit["details"] == {
        "class": "I",
        "service": "MED",
        "admitted_from": "7",
        "discharged_to": "01",
        "care_site": "W1",
    }


@pytest.mark.parametrize(
    "event",
    [
        *("A02", "A04", "A06", "A07", "A08", "A09", "A10", "A12", "A15", "A16", "A17", "A21", "A22"),
        *("A25", "A26", "A32", "A33", "A52", "A53", "A54", "A55"),
    ],
)
def test_what_happens_in_a_visit_gives_the_visit_as_it_stands(event):
    rows, _ = read(message(f"ADT^{event}", PID, PV1))
    visit = one(rows, "visit")
    assert (visit["action"], visit["key"], visit["start"]) == ("assert", "V1", us(2020, 5, 1, 6))


def test_a_discharge_ends_the_visit_when_the_message_says_or_when_it_happened():
    rows, _ = read(message("ADT^A03", "EVN||20200503|||", PID, PV1 + "20200502090000+0200"))
    assert one(rows, "visit")["end"] == us(2020, 5, 2, 7)
    rows, _ = read(message("ADT^A03", "EVN||20200503080000+0000", PID, PV1))
    visit = one(rows, "visit")
    assert (visit["end"], visit["status"]) == (us(2020, 5, 3, 8), "finished")


@pytest.mark.parametrize("event", ["A02", "A08", "A21"])
def test_what_says_neither_when_a_visit_began_nor_when_it_ended_says_nothing_of_it(event):
    pv1 = PV1.replace("20200501080000", "")
    rows, turned_away = read(message(f"ADT^{event}", "EVN||20200503", PID, pv1))
    assert kinds(rows) == {"person": 1}
    assert reasons_of(turned_away) == [("PV1-44", reasons.NO_START, False)]
    assert one(read(message("ADT^A01", "EVN||20200503", PID, pv1))[0], "visit")["start"] == us(2020, 5, 3)


@pytest.mark.parametrize(
    ("event", "evn", "end", "expected"),
    [
        ("A03", "EVN||20200504|||OP|20200503080000+0000", "", us(2020, 5, 3, 8)),  # EVN-6, when it happened
        ("A03", "EVN||20200504070000+0000", "", us(2020, 5, 4, 7)),  # EVN-2, when it was recorded
        ("A03", "EVN||", "", us(2020, 5, 1, 10)),  # MSH-7
        ("A03", "EVN||20200504", "20200502090000+0200", us(2020, 5, 2, 7)),  # PV1-45 goes before
        ("A08", "EVN||20200504", "20200502090000+0200", us(2020, 5, 2, 7)),
    ],
)
def test_a_discharge_that_says_not_when_the_visit_began_tells_its_end(event, evn, end, expected):
    pv1 = PV1.replace("20200501080000", "") + end
    rows, turned_away = read(message(f"ADT^{event}", evn, PID, pv1))
    visit = one(rows, "visit")
    assert (visit["end"], visit["details"]["start"], visit["status"]) == (expected, "unsaid", "finished")
    assert visit["version"] == us(2020, 5, 1, 10) + 1
    assert turned_away == []


@pytest.mark.parametrize("event", ["A13", "A16", "A25"])
def test_a_discharge_that_was_not_opens_a_visit_whose_beginning_it_does_not_say(event):
    pv1 = PV1.replace("20200501080000", "") + "20200502090000+0200"
    visit = one(read(message(f"ADT^{event}", PID, pv1))[0], "visit")
    assert (visit["end"], visit["details"]["start"]) == (None, "unsaid, open")


@pytest.mark.parametrize("event", ["A13", "A16", "A25"])
def test_a_discharge_that_was_not_or_is_not_yet_ends_no_visit(event):
    visit = one(read(message(f"ADT^{event}", PID, PV1 + "20200502090000+0200"))[0], "visit")
    assert (visit["action"], visit["end"], visit["status"]) == ("assert", None, "in-progress")


def test_why_a_patient_came_is_an_observation_of_the_visit():
    coded = "PV2|||140004^Chronic pharyngitis^SCT"
    why = one(read(message("ADT^A01", PID, PV1, coded))[0], "observation")
    assert why["codes"][0][:2] == ("http://loinc.org", "29299-5")
    assert why["value_codes"] == [("http://snomed.info/sct", "140004", "Chronic pharyngitis")]
    assert (why["encounter"], why["start"], why["type_concept_id"]) == ("V1", us(2020, 5, 1, 6), 32822)
    later = one(read(message("ADT^A08", PID, PV1, "PV2|||^CHEST PAIN"))[0], "observation")
    assert (later["key"], later["value_text"]) == (why["key"], "CHEST PAIN")
    gone = one(read(message("ADT^A11", PID, PV1, coded))[0], "observation")
    assert (gone["action"], gone["key"]) == ("retract", why["key"])
    assert kinds(read(message("ADT^A05", PID, PV1, coded))[0]) == {"person": 1}


def test_a_cancelled_discharge_opens_the_visit_again():
    visit = one(read(message("ADT^A13", PID, PV1 + "20200502090000+0200"))[0], "visit")
    assert (visit["action"], visit["end"]) == ("assert", None)


@pytest.mark.parametrize("event", ["A11", "A23", "A38"])
def test_a_cancelled_visit_is_taken_back(event):
    visit = one(read(message(f"ADT^{event}", PID, PV1))[0], "visit")
    assert (visit["action"], visit["key"]) == ("retract", "V1")


@pytest.mark.parametrize("event", ["A05", "A14", "A27"])
def test_a_visit_to_come_is_turned_away_and_the_person_kept(event):
    rows, turned_away = read(message(f"ADT^{event}", PID, PV1))
    assert kinds(rows) == {"person": 1}
    assert reasons_of(turned_away) == [("PV1", reasons.PLANNED, False)]


@pytest.mark.parametrize("event", ["A28", "A31"])
def test_person_messages_give_no_visit(event):
    assert kinds(read(message(f"ADT^{event}", PID, PV1))[0]) == {"person": 1}


def test_a_deleted_person_is_taken_back():
    assert kinds(read(message("ADT^A29", PID))[0]) == {"retract person": 1}


def test_the_trigger_of_an_old_message_stands_in_evn():
    rows, _ = read(message("ADT", "EVN|A01|20200501", PID, PV1, version="2.3"))
    assert kinds(rows) == {"person": 1, "visit": 1}


def test_a_visit_without_a_number_is_known_by_its_admission():
    pv1 = PV1.replace("V1^^^GHH^VN", "")
    admitted = one(read(message("ADT^A01", PID, pv1))[0], "visit")
    discharged = one(read(message("ADT^A03", PID, pv1))[0], "visit")
    assert admitted["key"] == discharged["key"]
    assert one(read(message("ADT^A01", PID + "|" * 8 + "|", pv1.replace("20200501080000", "")))[0], "visit")[
        "key"
    ]


def test_the_medical_record_number_is_chosen_and_others_stand_beside_it():
    pid = "PID|1|OLD|9^^^NHS^NH~123-45-6789^^^SSA^SS~M7^^^G&1.2.3&ISO^MR||Doe||1961|M"
    person = one(read(message("ADT^A28", pid))[0], "person")
    assert (person["patient"], person["patient_namespace"]) == ("M7", "G")
    assert person["details"] == {"identifier.NHS": "9"}  # a social security number is nobody's to keep
    assert person["precision"] == "year"


def test_an_old_pid_with_its_number_in_pid_2_is_read():
    person = one(read(message("ADT^A28", "PID||M9|||Doe||19610615|M", version="2.3"))[0], "person")
    assert (person["patient"], person["patient_namespace"]) == ("M9", "mrn")


@pytest.mark.parametrize(
    "pid", ["PID|1||", "PID|1||^^^GHH^MR||Doe||1961|M", "PID|1||123-45-6789^^^SSA^SS||x||1961|M"]
)
def test_without_a_hospitals_number_nothing_is_taken(pid):
    rows, turned_away = read(message("ORU^R01", pid, "OBR|1||F1|1^a^LN", "OBX|1|NM|1^a^LN||5||||||F"))
    assert rows == []
    assert reasons_of(turned_away)[-1] == ("PID-3", reasons.NO_PATIENT, True)


@pytest.mark.parametrize(
    ("sex", "said"),
    [("F", "female"), ("m", "male"), ("A", "other"), ("U", "unknown"), ("F^Female^HL70001", "female")],
)
def test_sexes(sex, said):
    assert one(read(message("ADT^A28", f"PID|1||M1^^^G^MR||Doe||1961|{sex}"))[0], "person")["sex"] == said


def test_a_death_is_told_and_taken_back():
    tail = "|" * 20
    rows, _ = read(message("ADT^A08", f"PID|1||M1^^^G^MR||Doe||1961|M{tail}|20200510101500+0000|Y"))
    death = one(rows, "death")
    assert (death["action"], death["start"], death["precision"]) == (
        "assert",
        us(2020, 5, 10, 10, 15),
        "second",
    )
    rows, _ = read(message("ADT^A08", f"PID|1||M1^^^G^MR||Doe||1961|M{tail}||Y"))
    assert one(rows, "death")["start"] is None
    rows, _ = read(message("ADT^A08", f"PID|1||M1^^^G^MR||Doe||1961|M{tail}||N"))
    assert one(rows, "death")["action"] == "retract"


@pytest.mark.parametrize("event", ["A18", "A34", "A36", "A40"])
def test_a_merge_says_who_they_really_are(event):
    rows, _ = read(message(f"ADT^{event}", "PID|1||NEW^^^GHH^MR||Doe||1961|F", "MRG|OLD^^^GHH^MR"))
    merge = next(row for row in rows if row["action"] == "merge")
    assert (merge["patient"], merge["patient_namespace"], merge["other_patient"]) == ("OLD", "GHH", "NEW")
    assert merge["details"] is None


def test_merges_of_several_patients_and_authorities():
    rows, turned_away = read(
        message(
            "ADT^A40",
            "PID|1||N1^^^A^MR~X1^^^B^MR||Doe||1961|F",
            "MRG|O1^^^A^MR~Y1^^^B^MR~Z1^^^C^MR",
            "PID|1||N2^^^A^MR||Roe||1962|F",
            "MRG|N2^^^A^MR",
        )
    )
    merges = [row for row in rows if row["action"] == "merge"]
    assert [(row["patient"], row["patient_namespace"], row["other_patient"]) for row in merges] == [
        ("O1", "A", "N1"),
        ("Y1", "B", "X1"),
        ("Z1", "C", "N1"),
    ]
    assert merges[2]["details"] == {"other_patient_namespace": "A"}
    assert reasons_of(turned_away) == [("MRG-1", reasons.SELF_MERGE, False)]


@pytest.mark.parametrize("event", ["A35", "A41", "A43", "A44", "A49", "A51"])
def test_accounts_that_merge_or_move_change_no_patient_and_no_visit(event):
    rows, turned_away = read(message(f"ADT^{event}", PID, "MRG|M1^^^GHH^MR||ACC2", PV1))
    assert kinds(rows) == {"person": 1}
    assert reasons_of(turned_away) == [("MRG", reasons.ACCOUNT_MERGE, False)]


@pytest.mark.parametrize("event", ["A42", "A45", "A50"])
def test_a_visit_that_gets_another_number_is_that_visit(event):
    rows, turned_away = read(message(f"ADT^{event}", PID, "MRG|M1^^^GHH^MR||||V0^^^GHH^VN", PV1))
    assert kinds(rows) == {"person": 1, "visit": 1, "retract visit": 1, "move visit": 1}
    new, gone, moved = (row for row in rows if row["kind"] == "visit")
    assert (new["key"], gone["key"], gone["patient"]) == ("V1", "V0", "M1")
    assert (moved["encounter"], moved["patient"], moved["other_key"]) == ("V0", "M1", "V1")
    assert turned_away == []
    rows, turned_away = read(message(f"ADT^{event}", PID, "MRG|M1^^^GHH^MR||||V1^^^GHH^VN", PV1))
    assert kinds(rows) == {"person": 1, "visit": 1}  # its own number: there is nothing to take back
    no_start = PV1.replace("20200501080000", "")
    rows, turned_away = read(message(f"ADT^{event}", PID, "MRG|M1^^^GHH^MR||||V0^^^GHH^VN", no_start))
    assert kinds(rows) == {"person": 1}  # the old one stays until it is known what takes its place
    assert reasons_of(turned_away) == [("PV1-44", reasons.NO_START, False)]


def test_a_visit_that_moves_to_another_patient_leaves_the_wrong_one_with_what_was_told_in_it():
    rows, turned_away = read(message("ADT^A45", PID, "MRG|M9^^^GHH^MR||||V1^^^GHH^VN", PV1))
    new, gone, moved = (row for row in rows if row["kind"] == "visit")
    assert (new["action"], new["patient"], new["key"]) == ("assert", "M1", "V1")
    assert (gone["action"], gone["patient"], gone["key"]) == ("retract", "M9", "V1")
    assert (moved["action"], moved["patient"], moved["encounter"]) == ("move", "M9", "V1")
    assert (moved["other_patient"], moved["other_key"]) == ("M1", "V1")
    assert turned_away == []


@pytest.mark.parametrize("event", ["A24", "A37"])
def test_patients_that_are_linked_are_not_merged(event):
    rows, turned_away = read(message(f"ADT^{event}", PID, PID.replace("M1", "M2")))
    assert [(row["patient"], row["action"]) for row in rows] == [("M1", "assert"), ("M2", "assert")]
    assert reasons_of(turned_away) == [("PID", reasons.LINK, False)]


def test_allergies_of_al1_and_iam():
    rows, _ = read(
        message(
            "ADT^A60",
            PID,
            "AL1|1|DA|1191^Aspirin^RXNORM|SV|hives~wheeze|20150301",
            "IAM|1|FA|762952008^Peanut^SCT|MO|rash|A|77||||201601",
            "IAM|2|FA|3^Milk^L|MO||D",
            "IAM|3|FA|4^Egg^L|MO||A|||||||||||E",
        )
    )
    assert kinds(rows) == {"person": 1, "observation": 2, "retract observation": 2}
    aspirin, peanut = (row for row in rows if row["kind"] == "observation" and row["action"] == "assert")
    assert aspirin["value_text"] == "hives; wheeze"
    assert aspirin["details"] == {"type": "allergy", "category": "DA", "criticality": "SV"}
    assert (peanut["start"], peanut["precision"]) == (us(2016, 1, 1), "month")


OBR = "OBR|1|P1|F1^LAB|24323-8^Panel^LN|||20200501070000|||||||||||||||20200501090000||CH|F"


def results(*obx: str, **named) -> tuple[list[dict], list]:
    rows, turned_away = read(message("ORU^R01", PID, OBR, *obx, **named))
    return [row for row in rows if row["kind"] != "person"], turned_away


def test_a_number_with_unit_range_and_flag():
    (row,), turned_away = results(
        "OBX|1|NM|2160-0^Creatinine^LN|1|98.00|umol/L^micromole per liter^UCUM|49 - 92|H|||F|||20200501073000"
    )
    assert turned_away == []
    assert row["codes"] == [("http://loinc.org", "2160-0", "Creatinine")]
    assert (row["value_number"], row["value_operator"], row["unit"]) == (98.0, None, "umol/L")
    assert (row["range_low"], row["range_high"], row["details"]) == (49.0, 92.0, {"interpretation": "H"})
    assert row["start"] == us(2020, 5, 1, 5, 30)  # OBX-14 before OBR-7
    assert (row["type_concept_id"], row["status"], row["place"]) == (32856, "final", "OBX[1]")


def test_the_time_is_obr_7_where_the_result_says_none():
    (row,), _ = results("OBX|1|NM|2160-0^C^LN||98|||||F")
    assert row["start"] == us(2020, 5, 1, 5)


@pytest.mark.parametrize(
    ("value_type", "value", "number", "operator", "text"),
    [
        ("NM", "<15", 15.0, "<", None),
        ("NM", "HEMOLYZED", None, None, "HEMOLYZED"),
        ("NM", "-0.5", -0.5, None, None),
        ("SN", ">^100", 100.0, ">", None),
        ("SN", "^7.5", 7.5, None, None),
        ("SN", "=^7.5", 7.5, None, None),
        ("SN", "^1^:^128", None, None, "1:128"),
        ("SN", "^2^-^4", None, None, "2-4"),
        ("SN", "<>^4", None, None, "<>4"),
        ("ST", "Positive", None, None, "Positive"),
        ("", "Negative", None, None, "Negative"),
        ("CQ", "5.5^mL", 5.5, None, None),
        ("FT", r"One\T\two", None, None, "One&two"),
    ],
)
def test_values_by_type(value_type, value, number, operator, text):
    (row,), turned_away = results(f"OBX|1|{value_type}|1^a^LN||{value}|||||F".replace("|||||F", "||||||F"))
    assert (row["value_number"], row["value_operator"], row["value_text"]) == (number, operator, text)
    assert turned_away == []


def test_a_text_with_a_unit_is_a_number_if_it_is_one():
    (row,), _ = results("OBX|1|ST|1^a^LN||4.2|mmol/L|||||F")
    assert (row["value_number"], row["value_text"]) == (4.2, None)
    (row,), _ = results("OBX|1|ST|1^a^LN||4.2||||||F")
    assert (row["value_number"], row["value_text"]) == (None, "4.2")


def test_coded_values_and_their_repetitions():
    rows, _ = results(
        "OBX|1|CWE|600-7^Culture^LN||112283007^E coli^SCT^EC^Escherichia^L~3092008^Staph^SCT||||||F"
    )
    assert [row["value_codes"][0][1] for row in rows] == ["112283007", "3092008"]
    assert len(rows[0]["value_codes"]) == 2
    assert len({row["key"] for row in rows}) == 2


@pytest.mark.parametrize(
    ("value_type", "reason"),
    [
        *((name, reasons.BINARY) for name in ("ED", "RP", "NA")),
        *((name, reasons.IDENTITY) for name in ("XPN", "XAD", "CX", "EI")),
        *((name, reasons.VALUE_IS_TIME) for name in ("DT", "TS")),
        ("QQ", reasons.VALUE_TYPE),
    ],
)  # fmt: skip
def test_values_that_facts_have_no_place_for_are_turned_away(value_type, reason):
    rows, turned_away = results(f"OBX|1|{value_type}|1^a^LN||20200101||||||F")
    assert rows == []
    assert reasons_of(turned_away) == [("OBX-5", reason, False)]


def test_a_correction_has_the_key_of_what_it_corrects():
    first = results("OBX|1|NM|1^a^LN|1|5||||||F")[0][0]
    second = results("OBX|9|NM|1^a^LN|1|6||||||C", sent="20200502120000+0200")[0][0]
    assert first["key"] == second["key"]
    assert second["version"] > first["version"]
    other = results("OBX|1|NM|1^a^LN|2|5||||||F")[0][0]
    assert other["key"] != first["key"]


@pytest.mark.parametrize("status", ["D", "W", "X"])
def test_a_deleted_wrong_or_impossible_result_is_taken_back(status):
    first = results("OBX|1|NM|1^a^LN|1|5||||||F")[0][0]
    (row,), _ = results(f"OBX|1|NM|1^a^LN|1|||||||{status}")
    assert (row["action"], row["kind"], row["key"]) == ("retract", "measurement", first["key"])


@pytest.mark.parametrize(
    ("status", "reason"),
    [("P", "not-final"), ("I", "not-final"), ("S", "not-final"), ("O", "not-final"), ("N", "not-done")],
)
def test_what_is_not_final_is_turned_away(status, reason):
    rows, turned_away = results(f"OBX|1|NM|1^a^LN|1|5||||||{status}")
    assert rows == []
    assert reasons_of(turned_away) == [("OBX-11", reason, False)]


def test_the_orders_status_holds_where_the_result_says_none():
    rows, turned_away = read(message("ORU^R01", PID, OBR[:-1] + "P", "OBX|1|NM|1^a^LN||5"))
    assert kinds(rows) == {"person": 1}
    assert reasons_of(turned_away) == [("OBX-11", "not-final", False)]


def test_two_results_of_one_code_are_two():
    rows, _ = results("OBX|1|NM|1^a^LN||5||||||F", "OBX|2|NM|1^a^LN||6||||||F")
    assert len({row["key"] for row in rows}) == 2


def test_lines_of_a_report_are_one_note():
    rows, _ = results(
        "OBX|1|TX|18782-3^Report^LN||FINDINGS: clear.||||||F",
        "OBX|2|TX|18782-3^Report^LN||No effusion.~None.||||||F",
        "OBX|3|NM|1^a^LN||5||||||F",
        "OBX|4|FT|2^Other^LN||" + "long " * 20 + "||||||F",
    )
    assert [row["kind"] for row in rows] == ["note", "measurement", "note"]
    assert rows[0]["text"] == "FINDINGS: clear.\nNo effusion.\nNone."
    assert rows[0]["details"] == {"title": "Report"}
    assert rows[0]["type_concept_id"] == 32831


def test_a_comment_is_a_note_about_its_result():
    rows, _ = results(
        "OBX|1|NM|1^a^LN||5||||||F", "NTE|1||Sample was", "NTE|2||old.", "OBX|2|NM|2^b^LN||5||||||F"
    )
    note = one(rows, "note")
    assert note["text"] == "Sample was\nold."
    assert note["other_key"] == rows[0]["key"]


def test_an_empty_result_and_one_without_a_code_are_turned_away():
    rows, turned_away = results("OBX|1|NM|1^a^LN||||||||F", "OBX|2|NM|||5||||||F", "OBX|3|TX|3^c||||||||F")
    assert rows == []
    assert reasons_of(turned_away) == [
        ("OBX-5", "no-value", False),
        ("OBX-3", "no-content", False),
        ("OBX-5", "no-value", False),
    ]


def test_results_of_radiology_are_not_a_laboratorys():
    rows, _ = read(message("ORU^R01", PID, OBR.replace("|CH|", "|RAD|"), "OBX|1|NM|1^a||5||||||F"))
    assert one(rows, "measurement")["type_concept_id"] == 32817


def test_two_patients_in_one_message_keep_their_own_results():
    rows, _ = read(
        message(
            "ORU^R01", PID, PV1, OBR, "OBX|1|NM|1^a||5||||||F", "PID|2||M2^^^GHH^MR||Roe||1970|M", OBR,
            "OBX|1|NM|1^a||6||||||F",
        )
    )  # fmt: skip
    found = [
        (row["patient"], row["encounter"], row["value_number"])
        for row in rows
        if row["kind"] == "measurement"
    ]
    assert found == [("M1", "V1", 5.0), ("M2", None, 6.0)]


@pytest.mark.parametrize("kind", ["ORM^O01", "OML^O21", "OMG^O19"])
def test_an_order_is_no_result(kind):
    rows, turned_away = read(
        message(kind, PID, "ORC|NW|P1", OBR, "DG1|1||I21.9^MI^I10C", "OBX|1|NM|1^a||70||||||F")
    )
    assert kinds(rows) == {"person": 1, "condition": 1, "measurement": 1}
    assert reasons_of(turned_away) == [("OBR", reasons.ORDER, False)]
    rows, turned_away = read(message(kind, "PID|1||M1^^^G^MR", "ORC|NW|P1", OBR))
    assert reasons_of(turned_away) == [("OBR", reasons.ORDER, False), ("message", reasons.NO_CONTENT, True)]


def test_diagnoses_problems_and_procedures():
    rows, _ = read(
        message(
            "ADT^A01", PID, PV1,
            "DG1|1|I9|71596^OSTEOARTHROS^|words|20200430|A",
            "DG1|2||I21.9^MI^I10C|||||||||||||||||77^GHH|D",
            "PR1|1||0SR90J9^Hip^I10P||20200502090000+0000|A|90",
        )
    )  # fmt: skip
    condition = next(row for row in rows if row["kind"] == "condition" and row["action"] == "assert")
    assert condition["codes"][0][:2] == ("http://hl7.org/fhir/sid/icd-9-cm", "71596")
    assert (condition["start"], condition["status"], condition["encounter"]) == (us(2020, 4, 30), None, "V1")
    assert condition["details"] == {"diagnosis_type": "A"}
    assert kinds(rows)["retract condition"] == 1
    procedure = one(rows, "procedure")
    assert procedure["end"] - procedure["start"] == 90 * 60_000_000
    rows, _ = read(
        message("PPR^PC1", PID, "PRB|AD|20200101|596.5^Bladder^I9|26744|||20191201||||||ACTIVE|||201911")
    )
    problem = one(rows, "condition")
    assert (problem["start"], problem["precision"], problem["type_concept_id"]) == (
        us(2019, 11, 1),
        "month",
        32840,
    )
    rows, _ = read(message("PPR^PC3", PID, "PRB|DE|20200101|596.5^Bladder^I9|26744"))
    assert (one(rows, "condition")["action"], one(rows, "condition")["key"]) == ("retract", problem["key"])


RXE = "RXE|^^D10^20200501080000^20200511|0143963401^Nicardipine^NDC|5||mg^mg|TAB||||30|TAB|2|||RX77"


def test_a_prescription():
    rows, _ = read(message("RDE^O11", PID, PV1, "ORC|NW|P1|F1", RXE, "RXR|PO^Oral^HL70162"))
    drug = one(rows, "drug")
    assert (drug["start"], drug["end"]) == (us(2020, 5, 1, 6), us(2020, 5, 11))
    assert (drug["quantity"], drug["refills"], drug["days_supply"], drug["dose"]) == (30.0, 2, 10, "5 mg")
    assert (drug["route"], drug["type_concept_id"]) == (("HL70162", "PO", "Oral"), 32838)
    cancelled, _ = read(message("RDE^O11", PID, PV1, "ORC|CA|P1|F1", RXE))
    assert (one(cancelled, "drug")["action"], one(cancelled, "drug")["key"]) == ("retract", drug["key"])
    rows, _ = read(
        message("RDE^O11", PID, "ORC|NW|P1|F1", "RXE||1^A^NDC|5||mg", "TQ1|1||||||20200601|20200610")
    )
    assert (one(rows, "drug")["start"], one(rows, "drug")["end"]) == (us(2020, 6, 1), us(2020, 6, 10))


def test_a_discontinued_prescription_ends():
    rows, _ = read(message("RDE^O11", PID, "ORC|DC|P1|F1||||||20200503", "RXE||1^A^NDC|5||mg"))
    assert (one(rows, "drug")["action"], one(rows, "drug")["end"]) == ("assert", us(2020, 5, 3))


def test_dispensed_and_given_drugs():
    rows, _ = read(message("RDS^O13", PID, "ORC|RE||F1", "RXD|1|1^A^NDC|20200502|30|TAB|||R9"))
    drug = one(rows, "drug")
    assert (drug["quantity"], drug["type_concept_id"], drug["start"]) == (30.0, 32825, us(2020, 5, 2))
    rows, _ = read(
        message(
            "RAS^O17",
            PID,
            "ORC|RE||F1",
            "RXA|0|1|20200502080000+0000|20200502083000+0000|1^A^NDC|500|mg",
            "RXR|IV",
        )
    )
    drug = one(rows, "drug")
    assert (drug["dose"], drug["type_concept_id"], drug["route"][1]) == ("500 mg", 32818, "IV")
    assert drug["end"] - drug["start"] == 1800 * 1_000_000


def test_vaccines_refusals_and_corrections():
    given = "RXA|0|1|20150624||88^influenza^CVX|0.5|mL^mL^UCUM||00^New^NIP001|||||||||||CP|A"
    rows, turned_away = read(
        message(
            "VXU^V04", PID, "ORC|RE||F1", given,
            "ORC|RE||F2", "RXA|0|1|20141012||88^influenza^CVX|999|||01^Historical^NIP001|||||||||||CP|A",
            "ORC|RE||F3", "RXA|0|1|20150625||48^Hib^CVX|999||||||||||||00^Parental^NIP002||RE",
            "ORC|RE||F4", "RXA|0|1|20150625||998^none^CVX|999",
            "OBX|1|CE|64994-7^Eligibility^LN|1|V02^Medicaid^HL70064||||||F",
        )
    )  # fmt: skip
    first, second = (row for row in rows if row["kind"] == "drug")
    assert (first["quantity"], first["unit"], first["type_concept_id"]) == (0.5, "mL", 32818)
    assert (second["quantity"], second["type_concept_id"]) == (None, 32817)
    assert reasons_of(turned_away) == [("RXA", reasons.NOT_DONE, False)] * 2
    assert one(rows, "observation")["value_codes"][0][1] == "V02"
    rows, _ = read(message("VXU^V04", PID, "ORC|RE||F1", given[:-1] + "D"))
    assert (one(rows, "drug")["action"], one(rows, "drug")["key"]) == ("retract", first["key"])


TXA = "TXA|1|DS^Discharge summary|TX|20200502||20200502||||||DOC2^GHH|DOC1^GHH||||AU||AV"


def test_a_document_is_a_note_of_its_lines():
    rows, turned_away = read(
        message(
            "MDM^T02", PID, PV1, TXA, "OBX|1|TX|1^Text||Line one||||||F",
            "OBX|2|TX|2^More||Line\\.br\\two||||||F",
            "OBX|3|ED|3^PDF||^application^pdf^Base64^AAAA||||||F", "OBX|4|NM|8867-4^Pulse^LN||72||||||F",
        )
    )  # fmt: skip
    note = one(rows, "note")
    assert note["text"] == "Line one\nLine\ntwo"
    assert (note["status"], note["start"], note["details"]) == (
        "AU",
        us(2020, 5, 2),
        {"title": "Discharge summary"},
    )
    assert one(rows, "measurement")["value_number"] == 72.0
    assert reasons_of(turned_away) == [("OBX-5", reasons.BINARY, False)]


def test_documents_are_replaced_and_cancelled():
    line = "OBX|1|TX|1^Text||Hello||||||F"
    rows, _ = read(message("MDM^T10", PID, TXA, line))
    assert kinds(rows) == {"person": 1, "note": 1, "retract note": 1}
    gone = next(row for row in rows if row["action"] == "retract")
    assert gone["key"].endswith("DOC1^GHH")
    assert kinds(read(message("MDM^T11", PID, TXA))[0]) == {"person": 1, "retract note": 1}
    assert kinds(read(message("MDM^T02", PID, TXA.replace("AV", "CA"), line))[0])["retract note"] == 1
    rows, turned_away = read(message("MDM^T01", PID, TXA))
    assert (kinds(rows), reasons_of(turned_away)) == ({"person": 1}, [("TXA", reasons.NO_CONTENT, False)])


def test_local_and_unknown_segments_are_counted():
    rows, turned_away = read(message("ADT^A28", PID, "ZPI|1|secret", "ZZZ|2", "QQQ|3", "NK1|1|Roe", "IN2|1"))
    assert kinds(rows) == {"person": 1}
    assert reasons_of(turned_away) == [("Z", "local-segment", False)] * 2 + [
        ("segment", "unknown-segment", False)
    ]


@pytest.mark.parametrize("kind", ["SIU^S12", "QBP^Q11", "ACK", "MFN^M02", "XYZ^A01"])
def test_messages_that_are_not_about_care_are_turned_away(kind):
    rows, turned_away = read(message(kind, PID))
    assert (rows, reasons_of(turned_away)) == ([], [("MSH-9", reasons.NOT_CLINICAL, True)])


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("2.3", True),
        ("2.3.1", True),
        ("2.5.1^USA", True),
        ("2.8", True),
        ("", True),
        ("3.0", False),
        ("2", True),
        ("two", False),
    ],
)
def test_versions(version, taken):
    rows, turned_away = read(message("ADT^A28", PID, version=version))
    assert bool(rows) is taken
    assert reasons_of(turned_away) == ([] if taken else [("MSH-12", reasons.VERSION, True)])


def test_a_bad_date_is_noted_and_the_rest_is_kept():
    rows, turned_away = read(
        message("ADT^A01", "PID|1||M1^^^G^MR||Doe||19619999|F", PV1.replace("20200501080000", "2020-05"))
    )
    assert one(rows, "person")["birth"] is None
    assert reasons_of(turned_away) == [("PID-7", "bad-time", False), ("PV1-44", "bad-time", False)]
    rows, turned_away = read(message("ADT^A28", "PID|1||M1^^^G^MR||Doe||00000000|F"))
    assert turned_away == []  # zeros are how senders write that they do not know


def test_every_fact_fits_the_schema():
    rows, _ = read(
        message(
            "RDE^O11", PID, PV1, "AL1|1|DA|1^a^L", OBR, "OBX|1|NM|1^a||5||||||F", "ORC|NW|1|2", RXE, "RXR|PO"
        )
    )
    facts = table(cells(rows))
    facts.validate(full=True)
    assert facts.num_rows == len(rows) == 4
    assert table([]).num_rows == 0


@pytest.mark.parametrize(
    ("written", "ucum"),
    [
        ("x10*9/L", "10*9/L"),
        ("x10*12/L", "10*12/L"),
        ("UMOLL", "umol/L"),
        ("MLMIN", "mL/min"),
        ("MDC_DIM_MMHG", "mm[Hg]"),
        ("MDC_DIM_DEGC", "Cel"),
        ("MDC_DIM_BEAT_PER_MIN", "/min"),
        ("MDC_DIM_X_L_PER_MIN", "L/min"),
    ],
)
def test_units_as_devices_and_laboratories_write_them(written, ucum):
    (row,), _ = results(f"OBX|1|NM|1^a^LN||5|{written}|||||F")
    assert ucum_of(row["unit"]) == ucum
    assert units()[ucum].concept_id > 0
