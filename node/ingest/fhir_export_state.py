"""How far a pull has come, in a file, so that it can go on after a crash. For its owner only.

<folder>/export.json     the export that is being pulled: what was asked, where it is, which files have come
<folder>/last.json       when the last export that was taken in as a whole was true, by question
<folder>/data/           Patient.TIME.000.ndjson ... deleted.TIME.000.ndjson, and .part while one comes

TIME is the digits of the export's own time, so that files of two exports have two names.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from node.ingest.fhir_export_errors import ExportFailed
from privacy import private_files

TYPE = re.compile(r"[A-Z][A-Za-z]{1,40}")
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,15}(Z|[+-][0-9]{2}:[0-9]{2})")


class File(msgspec.Struct, forbid_unknown_fields=True):
    """One file of an export. `name` is ours; what the server calls it is in its address only."""

    name: str
    url: str
    count: int | None = None
    size: int | None = None
    sha256: str | None = None
    """Of the whole file, once it has come."""


class Export(msgspec.Struct, forbid_unknown_fields=True):
    """An export that was asked for. `address` is the question, `status_url` where its answer is."""

    address: str
    status_url: str | None = None
    transaction_time: str | None = None
    requires_token: bool = False
    files: list[File] | None = None
    """None until the server has said which there are."""
    errors: int = 0
    """How many files of errors the server has; they are not fetched."""


class _Last(msgspec.Struct, forbid_unknown_fields=True):
    transaction_times: dict[str, str]  # by question without its `_since`


class Folder:
    """A pull's folder."""

    def __init__(self, path: Path) -> None:
        self._path = private_files.make_folder(path)
        self.data = private_files.make_folder(path / "data")

    def load(self) -> Export | None:
        """Return the export that was begun, if one was. Raises: ExportFailed for a damaged file."""
        try:
            return msgspec.json.decode((self._path / "export.json").read_bytes(), type=Export)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ExportFailed("resume", "export.json is damaged; remove it to begin anew") from None

    def save(self, export: Export) -> None:
        """Keep how far it has come, durably."""
        private_files.write(self._path / "export.json", msgspec.json.encode(export))

    def last(self, question: str) -> str | None:
        """Return when the last export that answered this question and is in the store was true."""
        return self._last().get(question)

    def _last(self) -> dict[str, str]:
        try:
            found = msgspec.json.decode((self._path / "last.json").read_bytes(), type=_Last)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}  # the next pull asks for everything, which is slow and right
        return found.transaction_times

    def forget(self) -> None:
        """Drop the export and its files."""
        for path in self.data.iterdir():
            path.unlink()
        (self._path / "export.json").unlink(missing_ok=True)
        private_files.sync_folder(self._path)

    def taken_in(self, question: str, export: Export, *, keep: bool) -> None:
        """Note that the export is in the store. Without `keep` its files are dropped: they hold identity."""
        if export.transaction_time is not None:
            last = _Last({**self._last(), question: export.transaction_time})
            private_files.write(self._path / "last.json", msgspec.json.encode(last))
        if keep:
            (self._path / "export.json").unlink(missing_ok=True)
        else:
            self.forget()


class _Output(msgspec.Struct):
    type: str | None = None
    url: str = ""
    count: int | None = None


class Manifest(msgspec.Struct):
    """What a server says when an export is ready."""

    transactionTime: str
    requiresAccessToken: bool = False
    output: list[_Output] = []
    deleted: list[_Output] = []
    error: list[_Output] = []

    def files(self) -> list[File]:
        """Return the files with names of our own. Raises: ValueError for a type that is none."""
        if INSTANT.fullmatch(self.transactionTime) is None:
            raise ValueError("transactionTime")
        time = re.sub("[^0-9]", "", self.transactionTime)[:17]
        names: dict[str, int] = {}
        found = []
        for kind, outputs in (("", self.output), ("deleted", self.deleted)):
            for one in outputs:
                name = kind or one.type or ""
                if not kind and TYPE.fullmatch(name) is None:
                    raise ValueError("type")
                number = names[name] = names.get(name, -1) + 1
                found.append(File(f"{name}.{time}.{number:03d}.ndjson", one.url, one.count))
        return found
