"""What the engine does beyond the table: references, dates, private attributes, texts, reports."""

import io
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from deid.dates import DatePractice
from deid.dicom.engine import Deidentifier
from deid.dicom.files import read
from deid.dicom.forms import formed
from deid.dicom.identities import Identities
from deid.dicom.profile import OPTION_CODES, RESEARCH, Option, Profile
from deid.errors import NotDeidentified
from deid.vault import PseudonymKey, Vault
from tests.deid.dicom.objects import PATIENT_ID, SR, NoPixels, PlantedWords, base, encoded
from tests.privacy.seeded_bits import SeededBits


def cleaned(
    source: FileDataset,
    identities: Identities,
    options: frozenset[Option] = RESEARCH,
    practice: DatePractice = DatePractice.SHIFTED,
) -> Dataset:
    finder = PlantedWords()
    made = Deidentifier(Profile(options), identities, pixels=NoPixels(), finder=finder, practice=practice)
    return made.deidentify(source).dataset


def test_references_lead_to_the_same_objects_in_every_file(identities: Identities) -> None:
    image, report = base(), base(SR, modality="SR")
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedSOPSequence = [reference]
    study = Dataset()
    study.StudyInstanceUID = image.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    report.SOPInstanceUID = "1.2.3.4.5.999"
    report.CurrentRequestedProcedureEvidenceSequence = [study]
    one, other = cleaned(image, identities), cleaned(report, identities)
    evidence = other.CurrentRequestedProcedureEvidenceSequence[0]
    found = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert evidence.StudyInstanceUID == one.StudyInstanceUID != image.StudyInstanceUID
    assert found.ReferencedSOPInstanceUID == one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID
    assert found.ReferencedSOPClassUID == image.SOPClassUID
    assert other.SOPInstanceUID != one.SOPInstanceUID


def test_intervals_stay_and_days_do_not(identities: Identities) -> None:
    early, late = base(), base()
    late.StudyDate, late.SeriesDate = "20240331", "20240401"
    late.AcquisitionDateTime = "20240401131415.123456+0100"
    first, second = cleaned(early, identities), cleaned(late, identities)
    days = [
        datetime.strptime(day, "%Y%m%d") for day in (first.StudyDate, second.StudyDate, second.SeriesDate)
    ]
    assert days[1] - days[0] == timedelta(days=31)
    assert days[2] - days[1] == timedelta(days=1)
    assert first.StudyDate != early.StudyDate
    assert first.StudyTime == early.StudyTime
    moved = str(second.AcquisitionDateTime)
    assert moved[8:] == "131415.123456+0100"
    assert moved[:8] == second.SeriesDate


def test_years_alone_stay_where_the_hospital_chose_so(identities: Identities) -> None:
    made = cleaned(base(), identities, practice=DatePractice.YEAR_ONLY)
    assert (made.StudyDate, made.StudyTime) == ("20240101", "000000")


def test_the_same_input_and_key_give_the_same_output_and_another_key_another(tmp_path: Path) -> None:
    results = []
    for name, key in (("a", 1), ("a", 1), ("b", 2)):
        vault = Vault.open(tmp_path / name, key=PseudonymKey(bytes([key]) * 32), bits=SeededBits(key))
        file = io.BytesIO()
        cleaned(base(), Identities(vault)).save_as(file, enforce_file_format=True)
        results.append(pydicom.dcmread(io.BytesIO(file.getvalue())))
        vault.close()
    assert results[0] == results[1]
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
        assert results[0][name].value != results[2][name].value


def test_exports_of_two_projects_cannot_be_joined(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "v", key=PseudonymKey(bytes(32)), bits=SeededBits(1))
    one, other, again = (
        cleaned(base(), Identities(vault, project=project)) for project in ("lungs", "hearts", "lungs")
    )
    for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert one[name].value == again[name].value != other[name].value
    vault.close()


def test_an_issuer_makes_another_patient_of_the_same_number(identities: Identities) -> None:
    issued = base()
    issued.IssuerOfPatientID = "OTHER HOSPITAL"
    assert cleaned(issued, identities).PatientID != cleaned(base(), identities).PatientID


def test_nothing_of_the_patient_is_in_texts_that_the_table_does_not_name(identities: Identities) -> None:
    source = base()
    source.OtherPatientIDs = "ALT-998877"
    source.ManufacturerModelName = "X9 of Erika MÜSTERMANN"
    source.ProtocolName = "CHEST ALT-998877"
    source.SoftwareVersions = ["v1", "born 04/03/1951"]
    source.FilterMaterial = "MÜSTERMANN"
    source.ConvolutionKernel = "B31f"
    options = RESEARCH | {Option.RETAIN_DEVICE_IDENTITY}
    file = io.BytesIO()
    made = cleaned(source, identities, options)
    made.save_as(file, enforce_file_format=True)
    written = file.getvalue().lower()
    for word in ("müstermann", "erika", "alt-998877", "1951", PATIENT_ID.lower(), "hidden"):
        assert word.encode() not in written, word
    assert made.ConvolutionKernel == "B31f"
    assert made.ManufacturerModelName == "X9 of REMOVED REMOVED"


def test_only_private_attributes_that_are_known_safe_stay(identities: Identities) -> None:
    source = base()
    siemens = source.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0C, "IS", "800")
    siemens.add_new(0x0D, "CS", "Erika was here")
    siemens.add_new(0x12, "SL", 5)
    own = source.private_block(0x0011, "OUR PACS", create=True)
    own.add_new(0x01, "LO", "Erika")
    made = cleaned(source, identities)
    assert made.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value == "800"
    assert sorted(f"{e.tag:08X}" for e in made if e.tag.is_private) == ["00190010", "0019100C"]
    assert not any(e.tag.is_private for e in cleaned(source, identities, frozenset()))


def test_what_no_dictionary_knows_goes_and_is_reported(identities: Identities) -> None:
    source = base()
    source.add_new(0x00091002, "LO", "private without a creator")
    source.add_new(0x00180014 + 0xE000, "LO", "unknown")
    source.add_new(0x00100016, "LO", "named by the table")
    made = Deidentifier(Profile(frozenset()), identities, pixels=NoPixels()).deidentify(source)
    assert made.unknown == ("0018E014",)
    assert 0x0018E014 not in made.dataset
    assert 0x00100016 not in made.dataset


def test_overlays_and_curves_go(identities: Identities) -> None:
    source = base()
    source.add_new(0x60023000, "OW", b"\xff" * 64)
    source.add_new(0x60024000, "LT", "Erika")
    source.add_new(0x50100010, "US", 1)
    source.add_new(0x50103000, "OW", b"\1\2")
    for options in (frozenset[Option](), RESEARCH):
        tags = {f"{element.tag:08X}" for element in cleaned(source, identities, options)}
        assert not tags & {"60023000", "60024000", "50100010", "50103000"}


def test_the_object_says_what_was_done_to_it(identities: Identities) -> None:
    for options in (frozenset[Option](), RESEARCH):
        made = cleaned(base(), identities, options)
        assert made.PatientIdentityRemoved == "YES"
        codes = [str(code.CodeValue) for code in made.DeidentificationMethodCodeSequence]
        assert codes == ["113100", *sorted(OPTION_CODES[option][0] for option in options)]
        assert {str(code.CodingSchemeDesignator) for code in made.DeidentificationMethodCodeSequence} == {
            "DCM"
        }
        modified = Option.RETAIN_MODIFIED_DATES in options
        assert made.LongitudinalTemporalInformationModified == ("MODIFIED" if modified else "REMOVED")
        assert len(made.DeidentificationMethod) <= 64


def item(value_type: str, code: str, **values: object) -> Dataset:
    result, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, "DCM", "as coded"
    result.RelationshipType, result.ValueType, result.ConceptNameCodeSequence = "CONTAINS", value_type, [name]
    for keyword, value in values.items():
        setattr(result, keyword, value)
    return result


def test_reports_are_cleaned_item_by_item(identities: Identities) -> None:
    source = base(SR, modality="SR")
    nested = item("CONTAINER", "121070")
    nested.ContentSequence = [item("TEXT", "121071", TextValue="Nodule, told to MKJohnson by Smith.")]
    source.ContentSequence = [
        item("PNAME", "121008", PersonName="Reader^Rita"),
        item("TEXT", "121029", TextValue="any words"),
        item("DATE", "121031", Date="19510403"),
        item("UIDREF", "121028", UID="1.2.3.4.5.100"),
        item("DATETIME", "111526", DateTime="20240229101112"),
        nested,
    ]
    made = cleaned(source, identities)
    kinds = [str(each.ValueType) for each in made.ContentSequence]
    assert kinds == ["UIDREF", "DATETIME", "CONTAINER"]
    assert made.StudyInstanceUID == made.ContentSequence[0].UID
    assert made.ContentSequence[1].DateTime == f"{made.StudyDate}101112"
    assert made.ContentSequence[2].ContentSequence[0].TextValue == "Nodule, told to [NAME] by [NAME]."
    without = cleaned(source, identities, frozenset())
    assert [str(each.TextValue) for each in without.ContentSequence] == ["REMOVED"]


def test_an_age_over_89_is_90(identities: Identities) -> None:
    source = base()
    source.PatientAge = "097Y"
    assert cleaned(source, identities).PatientAge == "090Y"
    source.PatientAge = "089Y"
    assert cleaned(source, identities).PatientAge == "089Y"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PatientID": ""}, "no-patient"),
        ({"SOPInstanceUID": ""}, "no-uid"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated-document"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "directory"),
    ],
)
def test_what_cannot_be_made_safe_is_refused(
    identities: Identities, change: dict[str, str], reason: str
) -> None:
    source = base()
    for name, value in change.items():
        setattr(source, name, value)
    with pytest.raises(NotDeidentified) as refusal:
        cleaned(source, identities)
    assert refusal.value.reason == reason


def test_sequences_without_end_are_refused(identities: Identities) -> None:
    source = base()
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        inner = outer
    source.ReferencedSeriesSequence = [inner]
    with pytest.raises(NotDeidentified, match="too-deep"):
        cleaned(source, identities)


def test_without_a_finder_texts_are_not_claimed_to_be_clean(identities: Identities) -> None:
    with pytest.raises(ValueError, match="finder"):
        Deidentifier(Profile(RESEARCH), identities, pixels=NoPixels())


def test_the_source_is_left_as_it_is(identities: Identities) -> None:
    source = base()
    before = pydicom.dcmread(io.BytesIO(encoded(source)))
    cleaned(source, identities)
    assert pydicom.dcmread(io.BytesIO(encoded(source))) == before


def test_a_name_in_a_field_of_another_form_goes(identities: Identities, tmp_path: Path) -> None:
    """Numbers, ages, UIDs and terms are not looked into as texts are: 700 attributes let a name by."""
    word = "TARROWSTEIN "
    keep = frozenset(
        option
        for option in Option
        if option.name.startswith("RETAIN_") and option is not Option.RETAIN_MODIFIED_DATES
    )
    fields = [
        (tag, vr)
        for tag, (vr, *_) in sorted(DicomDictionary.items())
        if vr in ("DS", "IS", "AS", "UI", "CS", "DA", "TM", "DT") and tag >> 16 not in (0, 2, 4)
    ]
    assert len(fields) > 1500
    own = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet")
    for options in (frozenset[Option](), RESEARCH, keep):
        source = base()
        source.PatientName = "Tarrowstein^Oswin"
        for tag, vr in fields:
            if keyword_for_tag(tag) not in own:
                source[Tag(tag)] = RawDataElement(Tag(tag), vr, len(word), word.encode(), 0, False, True)
        (tmp_path / "in.dcm").write_bytes(encoded(source))
        made = Deidentifier(Profile(options), identities, pixels=NoPixels(), finder=PlantedWords())
        written = encoded(made.deidentify(read(tmp_path / "in.dcm")).dataset)
        assert b"TARROWSTEIN" not in written.upper()
    assert formed(DataElement(0x00080005, "CS", "TARROWSTEIN")).is_empty
    assert formed(DataElement(0x00080005, "CS", ["", "ISO 2022 IR 87"])).value == ["", "ISO 2022 IR 87"]


def test_a_name_where_a_file_says_how_it_is_written_goes(identities: Identities, tmp_path: Path) -> None:
    """The character set, which may be empty, and the transfer syntax, without which nothing can be read."""
    made = Deidentifier(Profile(RESEARCH), identities, pixels=NoPixels(), finder=PlantedWords())
    source = base()
    source.SpecificCharacterSet = "ISO_IR 100"
    whole = encoded(source)
    assert whole.count(b"ISO_IR 100") == whole.count(b"1.2.840.10008.1.2.1\0") == 1
    (tmp_path / "set.dcm").write_bytes(whole.replace(b"ISO_IR 100", b"TARROWSTEI"))
    assert b"TARROW" not in encoded(made.deidentify(read(tmp_path / "set.dcm")).dataset)
    syntax = whole.replace(b"1.2.840.10008.1.2.1\0", b"TARROWSTEIN.OSWIN.19")
    (tmp_path / "syntax.dcm").write_bytes(syntax)
    with pytest.raises(NotDeidentified, match="damaged"):
        made.deidentify(read(tmp_path / "syntax.dcm"))


def test_values_of_their_form_stay_as_they_are(identities: Identities) -> None:
    source = base()
    source.SliceThickness, source.PixelSpacing = "1.25", ["0.5", "-5E-1"]
    source.SeriesNumber, source.PatientAge = "7", "045Y"
    source.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made = Deidentifier(Profile(RESEARCH), identities, pixels=NoPixels(), finder=PlantedWords())
    result = made.deidentify(source).dataset
    for name in ("SliceThickness", "PixelSpacing", "SeriesNumber", "PatientAge", "ImageType", "Modality"):
        assert result[name].value == source[name].value
