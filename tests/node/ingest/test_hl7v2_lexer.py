"""Splitting, escapes, character sets and times of HL7 v2."""

from datetime import UTC, datetime

import pytest

from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_lexer import CHARSETS, Malformed, lex
from node.ingest.readers.hl7v2_times import moment
from node.ingest.readers.hl7v2_types import compared, concept, identifier, number, reference_range
from tests.node.ingest.hl7v2_made import PID, message


def text_of(written: str, charset: str = "", codec: str = "utf-8") -> str:
    header = f"MSH|^~\\&|A|B|C|D|20200101||ORU^R01|1|P|2.5||||||{charset}"
    found = lex(f"{header}\rNTE|1||{written}\r".encode(codec))
    return found.text(found.field(found.segments[1], 3))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\F\b\S\c\R\d\T\e\E\f", r"a|b^c~d&e\f"),
        (r"\H\bold\N\ ", "bold "),
        (r"one\.br\two\.sp+2\three", "one\ntwo\n\nthree"),
        (r"\X41426F\!", "ABo!"),
        (r"\Xc3a9\ ", "é "),
        (r"\X00\ ", r"\X00\ "),  # would make a NUL: stays as it is
        (r"\X4\ ", r"\X4\ "),
        (r"50\% of C:\dir", r"50\% of C:\dir"),
        (r"\Zlocal\ ", r"\Zlocal\ "),
        (r"\.sp99999999999\x", "\nx"),
        (r"\E\F\E\ ", r"\F\ "),
        ("\\", "\\"),
    ],
)
def test_escapes_are_read_and_what_is_none_stays(written, meant):
    assert text_of(written) == meant


def test_other_delimiters_are_the_ones_of_the_header():
    found = lex(b"MSH$%*!+$A$B$C$D$20200101$$ORU%R01$1$P$2.5\rPID$1$$M1%%%G+1.2+ISO%MR*X$$a!F!b")
    pid = found.segments[1]
    assert found.repetitions(pid, 3) == ["M1%%%G+1.2+ISO%MR", "X"]
    assert found.components(found.repetitions(pid, 3)[0]) == ["M1", "", "", "G+1.2+ISO", "MR"]
    assert identifier(found, found.repetitions(pid, 3)[0]) == ("M1", "G", "MR")
    assert identifier(found, "M1%%%+1.2+ISO%MR") == ("M1", "1.2", "MR")
    assert found.text(found.field(pid, 5)) == "a$b"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_end_with_cr_lf_or_both(end):
    data = message("ADT^A28", PID, "NK1|1").replace(b"\r", end.encode())
    assert [segment[0] for segment in lex(data).segments] == ["MSH", "PID", "NK1"]


def test_a_line_that_is_no_segment_belongs_to_the_one_before():
    found = lex(message("ORU^R01", PID, "OBX|1|TX|1^a||first", "second line", "OBX|2"))
    assert [segment[0] for segment in found.segments] == ["MSH", "PID", "OBX", "OBX"]
    assert found.field(found.segments[2], 5) == "first\nsecond line"


def test_a_null_says_nothing():
    found = lex(message("ADT^A08", 'PID|1||M1^^^""^MR~""||""|'))
    pid = found.segments[1]
    assert found.field(pid, 5) == ""
    assert found.repetitions(pid, 3) == ['M1^^^""^MR']
    assert found.components('M1^^^""^MR') == ["M1", "", "", "", "MR"]


@pytest.mark.parametrize(
    ("charset", "codec", "word"),
    [
        ("", "ascii", "Muller"),
        ("", "utf-8", "Müller"),
        ("ASCII", "utf-8", "Müller"),
        ("8859/1", "latin-1", "Müller"),
        ("8859/15", "iso8859_15", "Müller €"),
        ("8859/2", "iso8859_2", "Dvořák"),
        ("8859/5", "iso8859_5", "Иванов"),
        ("UNICODE UTF-8", "utf-8", "山田"),
        ("ISO IR87", "iso2022_jp", "山田"),
        ("~ISO IR87", "iso2022_jp", "山田"),
        ("GB 18030-2000", "gb18030", "张伟"),
        ("KS X 1001", "euc_kr", "김"),
        ("BIG-5", "big5", "功許"),  # whose second byte is a backslash
        ("WINDOWS-1252", "cp1252", "“Müller”"),
    ],
)
def test_a_character_set_is_read_as_the_header_says(charset, codec, word):
    assert text_of(word, charset, codec) == word


@pytest.mark.parametrize(
    ("charset", "codec"), [("", "latin-1"), ("UNICODE UTF-8", "latin-1"), ("KLINGON", "utf-8")]
)
def test_what_is_not_of_the_character_set_is_turned_away_and_not_mangled(charset, codec):
    with pytest.raises(Malformed) as caught:
        text_of("Müller", charset, codec)
    assert caught.value.reason == reasons.ENCODING
    assert "M" not in str(caught.value).replace("MSH", "")


def test_every_character_set_has_its_codec():
    for name, codec in CHARSETS.items():
        assert text_of("plain", name, codec) == "plain"


def test_an_unknown_character_set_does_no_harm_to_ascii():
    assert text_of("plain", "KLINGON") == "plain"


@pytest.mark.parametrize(
    "header",
    [
        b"MSH",
        b"MSH|",
        b"MSH|^~",
        b"MSH|^~\\&",
        b"MSH|^^\\&|A",
        b"MSHA^~\\&|A",
        b"MSH|^a\\&|x",
        b"MSH |^~\\&|",
        b"MSH\x00",
    ],
)
def test_a_header_without_five_different_signs_is_refused(header):
    with pytest.raises(Malformed):
        lex(header)


def us(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "when", "precision"),
    [
        ("2020", us(2020, 1, 1), "year"),
        ("202005", us(2020, 5, 1), "month"),
        ("20200501", us(2020, 5, 1), "day"),
        ("2020050114", us(2020, 5, 1, 14), "second"),
        ("202005011406", us(2020, 5, 1, 14, 6), "second"),
        ("20200501140643.25", us(2020, 5, 1, 14, 6, 43) + 250_000, "second"),
        ("20200501140643+0200", us(2020, 5, 1, 12, 6, 43), "second"),
        ("20200501000000-0330", us(2020, 5, 1, 3, 30), "second"),
    ],
)
def test_a_time_has_the_precision_of_its_length(text, when, precision):
    found = moment(text)
    assert (found.us, found.precision) == (when, precision)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "20201",
        "20200230",
        "20201301",
        "2020050124",
        "202005011460",
        "17000101",
        "99991231",
        "2020-05-01",
        "20200501T10",
        "20200501+9900",
        "２０２０",
        "20200501140643.1234567",
        " 2020",
    ],
)
def test_what_is_no_time_is_none(text):
    assert moment(text) is None


def test_a_time_without_offset_takes_the_messages_else_the_hospitals():
    assert moment("20200501140000", 120) == (us(2020, 5, 1, 12), "second", 120)
    assert moment("20200701140000", None, "Europe/Berlin") == (us(2020, 7, 1, 12), "second", 120)
    assert moment("20200101140000", None, "Europe/Berlin") == (us(2020, 1, 1, 13), "second", 60)
    assert moment("20200501140000") == (us(2020, 5, 1, 14), "second", None)
    assert moment("20200501", 120) == (us(2020, 5, 1), "day", None)


def test_numbers_operators_and_ranges():
    assert [number(text) for text in ("4.06", "-1", ".5", "1e3", "1,5", "nan", "1e999", "٣", "0x1")] == [
        4.06,
        -1.0,
        0.5,
        1000.0,
        None,
        None,
        None,
        None,
        None,
    ]
    assert compared("<15") == ("<", 15.0)
    assert compared(">= 3.5") == (">=", 3.5)
    assert compared("=7") == (None, 7.0)
    assert compared("98.00") == (None, 98.0)
    assert compared("1:128") is None
    assert reference_range("49 - 92") == (49.0, 92.0)
    assert reference_range("4.3 to 6.2") == (4.3, 6.2)
    assert reference_range("-5--1") == (-5.0, -1.0)
    assert reference_range("<5") == (None, 5.0)
    assert reference_range(">60") == (60.0, None)
    assert reference_range("[ ]") == (None, None)
    assert reference_range("92-49") == (None, None)
    assert reference_range("9" * 10_000 + "-") == (None, None)


def test_a_coded_element_gives_all_codings_and_says_whose_local_codes_are():
    found = lex(message("ORU^R01"))
    said = concept(found, "57021-8^CBC^LN^4456^CBC old^99LAB^^^Blood count", where="OBX-3")
    assert said.codings == [("http://loinc.org", "57021-8", "CBC"), ("local:99LAB", "4456", "CBC old")]
    assert said.text == "Blood count"
    assert concept(found, "GLU", where="OBX-3").codings == [("local:OBX-3", "GLU", None)]
    assert concept(found, "^only words", where="OBX-3") == ([], "only words")
    assert concept(found, "71596^OA^", where="DG1-3", system="I9").codings[0][0].endswith("icd-9-cm")
    assert not concept(found, "^^", where="x").said
