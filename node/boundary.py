"""The one way out for errors and log lines: a code, or a template with types and places. Never a value.

An exception's text can quote what was read: `could not convert string to float: 'Jane Roe'`. So a message to
the coordinator carries a `RefusalCode` (`to_code`), and a log line names the exception's type and
the code location (`described`). `start_logging` does this where log records are made, so it holds for every
handler and library of the process, and for exceptions that nobody caught.

What a log line may hold: a template that is a literal in our code, identifiers of `protocols.ids`, words of
closed lists (codes, frames of the stream, exception types), and numbers that the author marked with
`shown(...)` as being no patient value. Everything else appears as its type. Lines of libraries appear as
their place only: their templates are not ours to judge.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from node.omop.errors import NoSuchTable, StoreBusy
from protocols.canonical import MalformedJson
from protocols.envelope import BadEnvelope
from protocols.ids import ConsortiumId, MalformedId, NodeId, QuestionId, SessionId
from protocols.question import UnknownSigner
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

OURS = ("protocols", "privacy", "deid", "node", "coordinator", "sim", "fedtwin")
LOG_BYTES = 5 * 2**20  # one file; with BACKUPS, a node's logs stay below 30 MB
BACKUPS = 5
DEEPEST = 8  # causes and members of groups that a description follows
FRAMES = 4  # code locations given for one exception, innermost first


# Errors of the lower layers that carry no `code` of their own. The first match counts.
_CODES: tuple[tuple[type[BaseException], RefusalCode], ...] = (
    (UnknownSigner, RefusalCode.UNKNOWN_SIGNER),
    (BadEnvelope, RefusalCode.BAD_SIGNATURE),
    (MalformedId, RefusalCode.MALFORMED),
    (MalformedJson, RefusalCode.MALFORMED),
    (NoSuchTable, RefusalCode.NO_DATA),
    (StoreBusy, RefusalCode.NOT_READY),
    (TimeoutError, RefusalCode.DEADLINE),
)
_WORDS = frozenset(code.value for code in RefusalCode) | frozenset(
    field.name for frame in (pb.NodeFrame, pb.CoordinatorFrame) for field in frame.DESCRIPTOR.fields
)
_CONVERSION = re.compile(r"%(\(\w+\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?[hlL]?[diouxXeEfFgGcrsa%]")
# Types that cannot hold a patient value.
_PLAIN = (NodeId, SessionId, QuestionId, ConsortiumId, RefusalCode, bool, type(None))


@dataclass(frozen=True, slots=True)
class Shown:
    """A number that its author says is no patient value: a port, a step, a duration, a count of hospitals."""

    value: int | float

    def __str__(self) -> str:
        return f"{self.value:.6g}" if isinstance(self.value, float) else str(self.value)


def shown(value: int | float) -> Shown:
    """Mark a number for a log line. Raises: TypeError for anything but a number: text may quote a record."""
    if type(value) not in (int, float):
        raise TypeError("only numbers can be shown")
    return Shown(value)


def to_code(error: BaseException) -> RefusalCode:
    """Return the one word about `error` that may leave the hospital; INTERNAL for whatever is not listed.

    An error of ours that carries a `code` from the closed list leaves as that, a malformed message as
    MALFORMED, a group as its members' code if they agree.
    """
    code = getattr(error, "code", None)
    if isinstance(code, RefusalCode):
        return code
    for kind, listed in _CODES:
        if isinstance(error, kind):
            return listed
    if isinstance(error, BaseExceptionGroup):
        codes = {to_code(member) for member in error.exceptions}
        return codes.pop() if len(codes) == 1 else RefusalCode.INTERNAL
    # MalformedCohort, MalformedStudy, MalformedRoster, …: what protocols/ could not parse came from outside
    if isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == "protocols":
        return RefusalCode.MALFORMED
    return RefusalCode.INTERNAL


def described(error: BaseException) -> str:
    """Return types and code locations of an exception, its causes and its members; nothing it says.

    >>> described(ValueError("Jane Roe"))
    'ValueError'
    """
    return _described(error, set())


def start_logging(folder: Path, *, level: int = logging.INFO, name: str = "node") -> Callable[[], None]:
    """Send the process's log lines, without any value, to `folder/<name>.log` (rotating); return how to stop.

    Warnings and exceptions that nobody caught, in threads and tasks as well, go the same way.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = _PrivateFile(folder / f"{name}.log", maxBytes=LOG_BYTES, backupCount=BACKUPS, encoding="utf-8")
    handler.setFormatter(_Formatter())
    root = logging.getLogger()
    before = (
        logging.getLogRecordFactory(),
        sys.excepthook,
        threading.excepthook,
        sys.unraisablehook,
        root.level,
    )
    logging.setLogRecordFactory(_record)
    logging.captureWarnings(True)
    root.addHandler(handler)
    root.setLevel(level)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_value)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_value)

    def stop() -> None:
        logging.setLogRecordFactory(before[0])
        sys.excepthook, threading.excepthook, sys.unraisablehook = before[1:4]
        root.setLevel(before[4])
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()

    return stop


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating log that only its owner can read."""

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: the standard one prints the record's arguments to stderr."""


class _Formatter(logging.Formatter):
    """Time, level, logger and the text that `_record` has already made safe."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatException(self, ei: Any) -> str:
        return ""

    def formatStack(self, stack_info: str) -> str:
        return ""


def _record(
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    sinfo: str | None = None,
    **_: Any,
) -> logging.LogRecord:
    """Make a log record that holds no value: the record factory of the process."""
    parts = []
    name = name or ""  # logging.makeLogRecord passes None
    logger = name if name.partition(".")[0] in OURS or name in sys.modules else "library"
    if name.partition(".")[0] in OURS and isinstance(message, str):
        parts.append(_filled(message, args))
    else:
        parts.append(f"(message withheld) at {Path(path).name}:{line}")
    error = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) == 3 else exc_info
    if isinstance(error, BaseException):
        parts.append(described(error))
    return logging.LogRecord(logger, level, path, line, " | ".join(parts), None, None, func, None)


def _filled(template: str, args: Any) -> str:
    """Fill a template with the safe form of each argument. All become text, so all conversions become %s."""
    if not args:
        return template
    if len(args) == 1 and isinstance(args[0], Mapping):  # logging's form for templates with names
        args = args[0]
    try:
        text = _CONVERSION.sub(lambda found: f"%{found[1] or ''}s" if found[0] != "%%" else "%%", template)
        if isinstance(args, Mapping):
            return text % {key: _safe(value) for key, value in args.items()}
        return text % tuple(_safe(value) for value in args)
    except (TypeError, ValueError, KeyError):
        return f"{template} (arguments do not fit)"


def _safe(value: object) -> str:
    if isinstance(value, Shown) or type(value) in _PLAIN:
        return value.value if isinstance(value, RefusalCode) else str(value)
    if isinstance(value, BaseException):
        return described(value)
    if isinstance(value, type):
        return _type_name(value)
    if isinstance(value, str) and (value in _WORDS or _names_an_exception(value)):
        return value
    return f"<{_type_name(type(value))}>"


def _names_an_exception(text: str) -> bool:
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == text and _type_name(kind) == text:  # found where it says it is
            return True
        waiting += type.__subclasses__(kind)
    return False


def _described(error: BaseException, seen: set[int]) -> str:
    if len(seen) >= DEEPEST or id(error) in seen:
        return "…"
    seen.add(id(error))
    text = _type_name(type(error))
    places = _places(error.__traceback__)
    if places:
        text += f" at {' < '.join(places)}"
    if isinstance(error, BaseExceptionGroup):
        text += f" [{'; '.join(_described(member, seen) for member in error.exceptions)}]"
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text if cause is None else f"{text}, after {_described(cause, seen)}"


def _places(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__")
        known = isinstance(module, str) and (module in sys.modules)
        found.append(f"{module if known else '?'}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[::-1][:FRAMES]


def _type_name(kind: type) -> str:
    """Return the type's name if the type is found under it: one made at run time may be called anything."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return kind.__qualname__ if found is kind else "a type without a known name"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | asyncio.CancelledError):
        _log_uncaught(error)
        sys.stderr.write(f"nobody caught {described(error)}\n")


def _log_uncaught(error: BaseException | None) -> None:
    logging.getLogger(__name__).critical("nobody caught %s", error)
