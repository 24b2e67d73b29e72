"""Which files are DICOM, told without the library that reads them: most machines never see one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deid.vault import Vault
from node.ingest.errors import ReaderUnavailable
from node.ingest.readers.image_features import Extractor, FirstOrder

if TYPE_CHECKING:
    from node.ingest.readers.dicom import DicomFacts

NAME, VERSION = "dicom", "2"
INDEX = "imaging.sqlite"


def is_dicom(path: Path) -> bool:
    """Return whether the file has DICOM's mark, or is called .dcm."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or path.suffix.lower() == ".dcm"


class DicomReader:
    """Reads DICOM files, once it is told where the store is (`bind`)."""

    name = NAME
    version = VERSION

    def __init__(self, extractor: Extractor | None = None) -> None:
        """extractor: which features of the pixels are asked for; None for headers alone."""
        self._extractor = extractor

    def reads(self, path: Path) -> bool:
        """Return whether the file is for this reader."""
        return is_dicom(path)

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> DicomFacts:
        """Return this reader with its index of series beside the store. Raises: ReaderUnavailable."""
        try:
            from node.ingest.readers.dicom import DicomFacts
        except ModuleNotFoundError as error:
            raise ReaderUnavailable(NAME, error.name or "a library", "imaging") from None
        return DicomFacts(store_folder / INDEX, vault=vault, extractor=self._extractor)


class DicomWithFeatures(DicomReader):
    """The reader that computes first-order features of pixels that are not at risk."""

    def __init__(self) -> None:
        super().__init__(FirstOrder())
