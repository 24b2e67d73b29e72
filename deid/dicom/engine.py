"""One DICOM object without identity: PS3.15's profile over every element, at every depth.

Stricter than the profile where it leaves a choice or is silent:

- a public attribute that no dictionary knows goes, and is reported (`Deidentified.unknown`);
- of attributes that the table does not name: persons' names, addresses of applications and of the web, and
  bytes of unknown meaning go; UIDs that are not of the standard are mapped; dates are treated as the table's
  are; long texts are cleaned; all texts lose what the object itself says of its patient and staff;
- file meta information and the preamble are written anew, and overlays and curves go with the bits in which
  the pixels may hold them (deid.dicom.pixels);
- an age over 89 becomes 90, as Safe Harbor has it;
- what has not the form of its value representation goes: a name in a field for numbers.

Importing this module ends pydicom's checks of values and its log: both repeat the values.

Not done: faces in CT and MR volumes (option "clean recognizable visual features").
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from deid.dates import OLDEST_AGE_YEARS, DatePractice
from deid.dicom.dummies import dummy, dummy_content, dummy_item, mapped
from deid.dicom.forms import formed, values
from deid.dicom.identities import Identities, Pseudonym
from deid.dicom.moments import moved
from deid.dicom.profile import DICOM_ROOT, Action, Option, Profile, basic_action, rule_of, safe_private
from deid.dicom.structured import is_identity
from deid.dicom.texts import Texts, fitted, known_of
from deid.errors import NotDeidentified
from deid.spans import Finder

METHOD = "fedtwin PS3.15 2026c Basic Application Level Confidentiality"
IMPLEMENTATION_UID = UID("2.25.264988490122043991864391057571332315629")  # this software's own, drawn once
IMPLEMENTATION_NAME = "FEDTWIN"
ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
DIRECTORY = "1.2.840.10008.1.3.10"
_LONG_TEXT = ("LT", "ST", "UT", "UC")
_TEXT = (*_LONG_TEXT, "LO", "SH")
_DATES = ("DA", "DT", "TM")
_GOES = ("PN", "AE", "UR", "UN")  # value representations of which nothing stays that the table does not name
_CONTENT = 0x0040A730
_NAME, _ID = 0x00100010, 0x00100020
_TIMEZONE = 0x00080201
_STRUCTURE = frozenset((0x00080005, 0x00080008, 0x00080060, 0x00280004))  # code strings that shape the object
_SHORT_TERM = 4  # letters: of modalities (CT, IVUS), and not often of a name
_TERMS = frozenset(("ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "REPORT"))
_KEPT_UIDS = frozenset(  # what kind of thing, by whoever defined it
    (
        "SOPClassUID", "ReferencedSOPClassUID", "RelatedGeneralSOPClassUID", "OriginalSpecializedSOPClassUID",
        "ReferencedSOPClassUIDInFile", "SOPClassesInStudy", "SOPClassesSupported", "CodingSchemeUID",
        "ContextUID", "MappingResourceUID", "AvailableTransferSyntaxUID",
    )
)  # fmt: skip
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_ZONE = re.compile(r"[+-]\d{4}")
_AGE = re.compile(r"(\d{3})Y")
# methods by action and, for what the table does not name, by value representation
_KEEPING = {Action.KEEP: "_kept", Action.CLEAN: "_cleaned", Action.MAP_UID: "_mapped"}
_UNNAMED = {
    "SQ": "_sequence", "UI": "_other_uid", "CS": "_code_string", "AS": "_age", "LO": "_swept", "SH": "_swept",
} | dict.fromkeys(_DATES, "_other_date") | dict.fromkeys(_LONG_TEXT, "_long_text")  # fmt: skip
_MAX_DEPTH = 32  # of nested sequences: a file made to break us has more
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


class PixelCleaner(Protocol):
    """Takes identity out of pixels (deid.dicom.pixels)."""

    def clean(self, dataset: Dataset) -> None:
        """Blank what is written in the pixels of `dataset`. Raises: NotDeidentified."""
        ...


@dataclass(frozen=True, slots=True)
class Deidentified:
    """An object that may be kept. `unknown`: tags that no dictionary knows, which were dropped."""

    dataset: FileDataset
    patient: Pseudonym
    unknown: tuple[str, ...]


@dataclass(slots=True)
class _Object:
    """What holds for all elements of one object."""

    sop_class: str
    patient_id: str
    pseudonym: Pseudonym
    texts: Texts
    unknown: set[str] = field(default_factory=set)


class Deidentifier:
    """Applies one profile. The same object gives the same output in every run with the same vault."""

    def __init__(
        self,
        profile: Profile,
        identities: Identities,
        *,
        pixels: PixelCleaner,
        finder: Finder | None = None,
        practice: DatePractice = DatePractice.SHIFTED,
    ) -> None:
        """finder: cleans texts; without one the options that clean them are refused."""
        texts = {Option.CLEAN_DESCRIPTORS, Option.CLEAN_STRUCTURED_CONTENT}
        if finder is None and texts & profile.options:
            raise ValueError("to clean descriptors or structured content a finder is needed")
        self._profile = profile
        self._options = profile.options
        self._identities = identities
        self._pixels = pixels
        self._finder = finder
        self._practice = practice

    def deidentify(self, source: Dataset) -> Deidentified:
        """Return the object without identity; `source` stays as it is.

        Raises: NotDeidentified: no-patient, no-uid, encapsulated-document, directory, too-deep, damaged, or
            what the cleaner of pixels refuses.
        """
        sop_class = _plain(source, "SOPClassUID")
        patient_id, issuer = _plain(source, "PatientID"), _plain(source, "IssuerOfPatientID")
        if sop_class.startswith(ENCAPSULATED):
            raise NotDeidentified("encapsulated-document")
        if sop_class == DIRECTORY:
            raise NotDeidentified("directory")
        if not patient_id:
            raise NotDeidentified("no-patient")
        if not sop_class or not _plain(source, "SOPInstanceUID"):
            raise NotDeidentified("no-uid")
        pseudonym = self._identities.patient(patient_id, issuer=issuer)
        whole = _Object(sop_class, patient_id, pseudonym, Texts(self._finder, known_of(source)))
        made = self._walk(source, whole, parent=None, depth=0)
        result = FileDataset("", made, preamble=b"\0" * 128, file_meta=_meta(source, made))
        self._pixels.clean(result)
        self._declare(result)
        return Deidentified(result, pseudonym, tuple(sorted(whole.unknown)))

    def _walk(self, source: Dataset, whole: _Object, *, parent: int | None, depth: int) -> Dataset:
        if depth > _MAX_DEPTH:
            raise NotDeidentified("too-deep")
        result = Dataset()
        for tag in list(source.keys()):
            if tag.is_private:
                self._keep_private(source, tag, whole, result)
            elif tag.element == 0 or tag.group in (
                0,
                2,
            ):  # lengths of groups, commands, file meta information
                continue
            elif (element := self._element(source[tag], whole, parent=parent, depth=depth)) is not None:
                result.add(formed(element))
        return result

    def _element(
        self, element: DataElement, whole: _Object, *, parent: int | None, depth: int
    ) -> DataElement | None:
        """Return what is kept of one element, None if it goes."""
        tag = element.tag
        action = self._profile.action(tag, sop_class=whole.sop_class, parent=parent)
        if action is None:
            return self._unnamed(element, whole, depth)
        if action is Action.REMOVE:
            return None
        if tag in (_NAME, _ID):
            return self._patient(element, whole, parent)
        if element.is_empty:
            return DataElement(tag, element.VR, None)
        if action in _KEEPING:
            kept = getattr(self, _KEEPING[action])(element, whole, depth)
            if kept is not None:
                return cast("DataElement", kept)
            rule = rule_of(tag)  # it could not be done: as without options
            assert rule is not None, "the action was found by it"
            action = basic_action(rule, sop_class=whole.sop_class, parent=parent)
        return None if action is Action.REMOVE else self._emptied(element, action)

    def _patient(self, element: DataElement, whole: _Object, parent: int | None) -> DataElement:
        """The patient's name and id become the pseudonym; anybody else's become a dummy."""
        own = parent is None or str(element.value).strip() == whole.patient_id
        return DataElement(element.tag, element.VR, whole.pseudonym.id if own else "REMOVED")

    def _emptied(self, element: DataElement, action: Action) -> DataElement | None:
        tag, vr = element.tag, element.VR
        if action is Action.EMPTY:
            return DataElement(tag, vr, [] if vr == "SQ" else None)
        if vr != "SQ":
            return dummy(tag, vr)
        if tag == _CONTENT:
            return DataElement(tag, vr, dummy_content())
        uid = self._identities.uid
        return DataElement(tag, vr, [dummy_item(item, uid=uid) for item in element.value])

    def _kept(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        vr = element.VR
        if vr == "SQ":
            return self._sequence(element, whole, depth)
        if vr == "AS":
            return self._age(element, whole, depth)
        if vr in _TEXT or vr == "CS":
            return _rewritten(element, whole.texts.swept)
        if vr in ("PN", "UN"):
            return None
        return element

    def _cleaned(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        """Return the element cleaned, None if it cannot be."""
        vr = element.VR
        if vr == "SQ":
            return self._sequence(element, whole, depth)
        if vr in _DATES:
            return self._dated(element, whole)
        if element.tag == _TIMEZONE:
            return element if _ZONE.fullmatch(str(element.value).strip()) else None
        return self._text(element, whole) if vr in _TEXT else None

    def _text(self, element: DataElement, whole: _Object) -> DataElement | None:
        texts = [whole.texts.clean(text) for text in values(element)]
        if any(text is None for text in texts):
            return None
        fit = [fitted(text, element.VR) for text in texts if text is not None]
        return DataElement(element.tag, element.VR, fit if len(fit) > 1 else fit[0])

    def _dated(self, element: DataElement, whole: _Object) -> DataElement | None:
        days = whole.pseudonym.shift_days
        found = [
            moved(text, element.VR, shift_days=days, practice=self._practice) for text in values(element)
        ]
        return None if None in found else DataElement(element.tag, element.VR, found)

    def _mapped(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        if element.VR == "SQ":
            return self._sequence(element, whole, depth)
        if element.VR != "UI":
            return None
        return DataElement(element.tag, "UI", mapped(element.value, self._identities.uid))

    def _sequence(self, element: DataElement, whole: _Object, depth: int) -> DataElement:
        items = [
            self._walk(item, whole, parent=element.tag, depth=depth + 1)
            for item in element.value
            if not is_identity(item)
        ]
        return DataElement(element.tag, "SQ", items)

    def _unnamed(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        """Return what is kept of an attribute that the table does not name."""
        tag, vr = element.tag, element.VR
        if not dictionary_has_tag(tag):
            whole.unknown.add(f"{tag:08X}")
            return None
        if vr in _GOES:
            return None
        if element.is_empty or vr not in _UNNAMED:
            return element
        return cast("DataElement | None", getattr(self, _UNNAMED[vr])(element, whole, depth))

    def _other_uid(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        if keyword_for_tag(element.tag) in _KEPT_UIDS or Option.RETAIN_UIDS in self._options:
            return element
        if all(text.startswith(DICOM_ROOT) for text in values(element)):
            return element
        return self._mapped(element, whole, depth)

    def _other_date(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        if Option.RETAIN_FULL_DATES in self._options:
            return element
        modified = Option.RETAIN_MODIFIED_DATES in self._options
        return (self._dated(element, whole) if modified else None) or dummy(element.tag, element.VR)

    def _long_text(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        return self._swept(element, whole, depth) if self._finder is None else self._text(element, whole)

    def _swept(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        return _rewritten(element, whole.texts.swept)

    def _code_string(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        if element.tag in _STRUCTURE:
            return _rewritten(element, lambda text: text if _is_term(text) else whole.texts.swept(text))
        fit = all(_CODE_STRING.fullmatch(text) for text in values(element))
        return _rewritten(element, whole.texts.swept) if fit else dummy(element.tag, element.VR)

    def _age(self, element: DataElement, whole: _Object, depth: int) -> DataElement | None:
        return DataElement(element.tag, element.VR, [_capped(text) for text in values(element)])

    def _keep_private(self, source: Dataset, tag: BaseTag, whole: _Object, result: Dataset) -> None:
        """Keep a private element that is known safe, with the element that says whose it is."""
        if Option.RETAIN_SAFE_PRIVATE not in self._options or tag.is_private_creator or tag.element < 0x1000:
            return
        creator_tag = BaseTag((tag.group << 16) | tag.element >> 8)
        creator = source.get(creator_tag)
        if creator is None or not isinstance(creator.value, str):
            return
        vr = safe_private().get((tag.group, creator.value.strip(), tag.element & 0xFF))
        element = source[tag]
        if vr is None or vr != element.VR or (formed(element).is_empty and not element.is_empty):
            return
        if vr == "CS" and not all(_CODE_STRING.fullmatch(text) for text in values(element)):
            return
        result[creator_tag] = DataElement(creator_tag, "LO", creator.value.strip())
        result[tag] = _rewritten(element, whole.texts.swept) if vr == "CS" else element

    def _declare(self, result: Dataset) -> None:
        """Say in the object what was done to it (PS3.15 E.2)."""
        result.PatientIdentityRemoved = "YES"
        result.DeidentificationMethod = METHOD
        codes = []
        for value, meaning in self._profile.codes():
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
            codes.append(code)
        result.DeidentificationMethodCodeSequence = codes
        if Option.RETAIN_FULL_DATES in self._options:
            result.LongitudinalTemporalInformationModified = "UNMODIFIED"
        elif Option.RETAIN_MODIFIED_DATES in self._options:
            result.LongitudinalTemporalInformationModified = "MODIFIED"
        else:
            result.LongitudinalTemporalInformationModified = "REMOVED"


def _meta(source: Dataset, made: Dataset) -> FileMetaDataset:
    """Return file meta information of our own; of the source's only the transfer syntax stays."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    syntax = getattr(getattr(source, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        implicit = source.original_encoding[0]
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    if not formed(DataElement(0x00020010, "UI", syntax)).value:
        raise NotDeidentified("damaged")
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta


def _plain(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip().strip("\0")


def _is_term(text: str) -> bool:
    """Return whether the text is one of the standard's own in the attributes that shape an object.

    Pixels are at risk or not by them (deid.dicom.pixels), whatever the patient's name is.
    """
    return len(text) <= _SHORT_TERM or text in _TERMS


def _rewritten(element: DataElement, change: Any) -> DataElement:
    """Return the element with each text changed; the element itself if none is."""
    before = values(element)
    after = [fitted(change(text), element.VR) for text in before]
    if after == before:
        return element
    return DataElement(element.tag, element.VR, after if len(after) > 1 else after[0])


def _capped(text: str) -> str:
    years = _AGE.fullmatch(text.strip())
    return f"{OLDEST_AGE_YEARS:03}Y" if years and int(years[1]) >= OLDEST_AGE_YEARS else text
