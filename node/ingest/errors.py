"""What can go wrong while raw files come in. None of these ever carries a value from a file.

IngestError
├── MalformedMapping    the caller's mistake: names the mapping file and the key
├── NoMapping           the caller's mistake: no mapping fits the file
├── UnreadableSource    a fault: the file is not what its mapping says (encoding, columns, quoting)
├── DatabaseAway        an outage: the database cannot be reached, or does not let this user in
├── NoDriver            an outage: the library for that kind of database is not installed
├── NotSuchUrl          the caller's mistake: no URL of a database, or a password in it
├── ReaderUnavailable   an outage: a library that a reader needs is not installed
├── ReaderLost          a fault: a process that reads files ended or failed; the file is not loaded
└── Unaccounted         a fault: a reader lost a record, so that its file is not loaded
"""

from __future__ import annotations


class IngestError(Exception):
    """Anything about taking in a file."""


class MalformedMapping(IngestError, ValueError):
    """A mapping file breaks a rule."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        super().__init__(f"{file}: {key}: {reason}")
        self.file = file
        self.key = key
        self.reason = reason


class NoMapping(IngestError, ValueError):
    """No mapping's file pattern fits."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source}: no mapping fits this file; see the 'files' patterns of the mappings")
        self.source = source


class UnreadableSource(IngestError):
    """The file cannot be read the way its mapping says."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class ReaderUnavailable(IngestError):
    """A reader cannot be asked, because a library is missing."""

    def __init__(self, reader: str, library: str, extra: str) -> None:
        super().__init__(f"the reader '{reader}' needs {library}: pip install 'fedtwin[{extra}]'")
        self.reader = reader
        self.library = library


class ReaderLost(IngestError):
    """A process that reads files was killed, or its reader failed. `how`: by which signal or error."""

    def __init__(self, reader: str, how: str) -> None:
        super().__init__(
            f"the process of the reader '{reader}' ended ({how}); what was loaded stays, and the same command"
            " goes on from there (--processes 1 reads without such a process)"
        )
        self.reader = reader
        self.how = how


class DatabaseAway(IngestError):
    """The database cannot be reached, or does not let this user in; its own words may hold what is in it."""

    def __init__(self, source: str) -> None:
        super().__init__(f"{source}: the database cannot be reached, or does not let this user in")
        self.source = source


class NoDriver(IngestError):
    """The library for a kind of database is not installed."""

    def __init__(self, dialect: str, library: str, install: str) -> None:
        super().__init__(f"databases of the kind '{dialect}' need {library}: pip install {install}")
        self.dialect = dialect
        self.library = library


class NotSuchUrl(IngestError, ValueError):
    """Not a URL of a database as SQLAlchemy takes them, or one that holds a secret."""


class Unaccounted(IngestError):
    """Records in, stored and turned away do not add up."""

    def __init__(self, source: str, *, records_in: int, stored: int, quarantined: int) -> None:
        super().__init__(
            f"{source}: {records_in} records came in, {stored} were stored and {quarantined} turned away"
        )
        self.records_in = records_in
        self.stored = stored
        self.quarantined = quarantined
