"""What can go wrong with the store.

StoreError
├── NoSuchTable      the caller's mistake: a table that this store does not hold
├── NotTheCdm        the caller's mistake: a table lacks a column of OMOP CDM 5.4
├── MalformedVocabulary the caller's mistake: a folder that is no Athena download
├── VocabularyThere  the caller's mistake: the starter vocabulary takes no other one's place
├── NoVocabulary     the caller's mistake: the question needs the OHDSI vocabulary, and none is loaded
├── UnknownStore     the caller's mistake: the URL names no kind of store that we read
├── PasswordInUrl    the caller's mistake: the URL holds a password
├── NotOurCopy       the caller's mistake: the schema to copy into holds what we did not put there
├── CopyDiffers      a fault: a copy of the store holds something else than the store
├── NotAStore        a fault: the file is no DuckDB database, or of another format
├── StoreBusy        an outage: another process holds the file
└── AlreadyLoaded    a refusal: this source was loaded before with other content or another mapping
"""

from __future__ import annotations


class StoreError(Exception):
    """Anything about the node's OMOP store."""


class NoSuchTable(StoreError, ValueError):
    """A table that this store does not hold."""

    def __init__(self, table: str) -> None:
        super().__init__(f"this store has no table '{table}'")
        self.table = table


class NotTheCdm(StoreError, ValueError):
    """A table lacks a column that the question needs, or has it with another type."""

    def __init__(self) -> None:
        super().__init__("a table of this store lacks a column of OMOP CDM 5.4, or has it with another type")


class NoVocabulary(StoreError, ValueError):
    """The table `concept` is empty, so that every concept set of a Circe definition would be empty too."""

    def __init__(self) -> None:
        super().__init__(
            "this store has no vocabulary: its table 'concept' is empty, so no concept set resolves"
        )


class MalformedVocabulary(StoreError, ValueError):
    """A file of a vocabulary download is missing or wrong."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file} {why}")
        self.file = file
        self.why = why


class VocabularyThere(StoreError, ValueError):
    """The store holds another vocabulary, which the starter one must not replace."""

    def __init__(self) -> None:
        super().__init__("this store holds a vocabulary already; the starter one does not take its place")


class UnknownStore(StoreError, ValueError):
    """The URL names no kind of store that we read. It is not repeated: it may hold a password."""

    def __init__(self) -> None:
        super().__init__(
            "a store is the path of a DuckDB file, duckdb:///PATH, postgresql://… or spark:MASTER"
        )


class PasswordInUrl(StoreError, ValueError):
    """The URL holds a password, which the list of processes or a backup would show to others."""

    def __init__(self) -> None:
        super().__init__(
            "the URL of a store holds no password: put it into ~/.pgpass, or name a file of that form"
            " with ?passfile=PATH"
        )


class NotAStore(StoreError):
    """The file cannot be opened as a DuckDB database, or the server does not let us in."""


class NotOurCopy(StoreError, ValueError):
    """A schema holds tables that no copy of ours made; they are left alone."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"the schema {schema} holds tables that are no copy of this node's: name another one"
        )
        self.schema = schema


class CopyDiffers(StoreError):
    """What arrived at the other database is not what left this one. Nothing was put in place."""

    def __init__(self) -> None:
        super().__init__("the copy differs from the store; the old one was left as it was")


class StoreBusy(StoreError):
    """Another process has the file open; DuckDB allows one."""


class AlreadyLoaded(StoreError):
    """The source is in the store with other content or under another mapping.

    Loading it once more would count it twice; the caller says whether it replaces or adds.
    """

    def __init__(self, source: str) -> None:
        super().__init__(
            f"{source}: loaded before with other content or another mapping;"
            " say whether it replaces what was loaded or is added to it"
        )
        self.source = source
