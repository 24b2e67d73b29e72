"""A patient's name tries to leave: by refusal, log line, traceback, cause, group, library, warning."""

import ast
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node import boundary
from node.boundary import described, shown, to_code
from node.omop.errors import StoreBusy
from node.policy_form import MalformedPolicy
from privacy.budget import Cap
from privacy.errors import TooFewSurvivors
from privacy.ledger import AlreadyRevealed, BudgetExhausted
from protocols.canonical import MalformedJson
from protocols.cohort import MalformedCohort
from protocols.envelope import BadEnvelope
from protocols.ids import MalformedId, NodeId, SessionId
from protocols.question import UnknownSigner
from protocols.refusal import RefusalCode, Refused

ROOT = Path(__file__).parents[2]
NAME = "Jane Roe"
log = logging.getLogger("node.test_boundary")


def quote() -> None:
    raise ValueError(f"could not convert string to float: '{NAME}'")


def nested() -> None:
    try:
        quote()
    except ValueError as error:
        raise RuntimeError(f"row of {NAME}") from error


def in_context() -> None:
    try:
        quote()
    except ValueError:
        raise KeyError(NAME)  # noqa: B904 - the implicit context is what is tested


def grouped() -> None:
    errors: list[Exception] = []
    for part in (quote, nested, in_context):
        try:
            part()
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup(f"while reading {NAME}", [*errors, ExceptionGroup(NAME, [ValueError(NAME)])])


def noted() -> None:
    error = ValueError(NAME)
    error.add_note(f"patient {NAME}")
    raise error


def named_class() -> None:
    raise type(NAME, (Exception,), {})()


def with_attributes() -> None:
    error = OSError(2, "No such file", f"/data/{NAME}.csv")
    error.code = NAME  # type: ignore[attr-defined]  # an attribute of the name that ours use
    raise error


def in_a_string_of_code() -> None:
    exec(compile(f"raise ValueError({NAME!r})", f"/data/{NAME}.py", "exec"), {"__name__": NAME})


BEARERS = (quote, nested, in_context, grouped, noted, named_class, with_attributes, in_a_string_of_code)


def caught(act: Callable[[], None]) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    stop = boundary.start_logging(tmp_path / "logs", level=logging.DEBUG)
    yield tmp_path / "logs" / "node.log"
    stop()


# ---- refusals ----


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(RefusalCode.EXPIRED), RefusalCode.EXPIRED),
        (BudgetExhausted(cap=Cap.NODE, asked=1.0, left=0.0), RefusalCode.BUDGET_EXHAUSTED),
        (AlreadyRevealed(), RefusalCode.REPLAYED),
        (MalformedPolicy("sites", "x"), RefusalCode.NO_POLICY),
        (TooFewSurvivors(got=1, fewest=3), RefusalCode.TOO_MANY_DROPOUTS),
        (UnknownSigner("x"), RefusalCode.UNKNOWN_SIGNER),
        (BadEnvelope("x"), RefusalCode.BAD_SIGNATURE),
        (MalformedId("x"), RefusalCode.MALFORMED),
        (MalformedJson("x"), RefusalCode.MALFORMED),
        (MalformedCohort("include[0]", "x"), RefusalCode.MALFORMED),
        (StoreBusy("x"), RefusalCode.NOT_READY),
        (TimeoutError(), RefusalCode.DEADLINE),
        (ExceptionGroup("x", [Refused(RefusalCode.EXPIRED)] * 2), RefusalCode.EXPIRED),
        (ExceptionGroup("x", [Refused(RefusalCode.EXPIRED), ValueError()]), RefusalCode.INTERNAL),
        (ValueError("x"), RefusalCode.INTERNAL),
        (MemoryError(), RefusalCode.INTERNAL),
        (KeyboardInterrupt(), RefusalCode.INTERNAL),
    ],
)
def test_each_error_leaves_as_one_word_and_an_unknown_one_as_internal(
    error: BaseException, code: RefusalCode
) -> None:
    assert to_code(error) is code


def test_an_attribute_named_code_that_is_no_code_does_not_leave() -> None:
    assert to_code(caught(with_attributes)) is RefusalCode.INTERNAL


# ---- logs ----


@pytest.mark.parametrize("bearer", BEARERS)
def test_no_exception_brings_a_name_into_the_log(logs: Path, bearer: Callable[[], None]) -> None:
    error = caught(bearer)
    try:
        bearer()
    except Exception:
        log.exception("a step failed")
        logging.getLogger("some.library").exception(f"failed on {NAME}")
    log.error("failed: %s", error)
    log.error("failed: %r", error, exc_info=error, stack_info=True)
    log.error("failed", exc_info=error, extra={"patient": NAME})
    text = logs.read_text()
    assert "Jane" not in text
    assert "Roe" not in text
    assert text.count("a step failed") == 1
    assert "node.test_boundary" in text


def test_a_log_line_says_type_and_place_down_to_the_first_cause(logs: Path) -> None:
    try:
        nested()
    except RuntimeError:
        log.exception("a step failed")
    text = logs.read_text()
    assert "RuntimeError at " in text
    assert "after ValueError at " in text


def test_a_class_made_at_run_time_does_not_make_its_name_a_known_word(logs: Path) -> None:
    error = caught(named_class)
    log.warning("value %s", NAME)
    assert type(error).__name__ == NAME
    assert "Jane" not in logs.read_text()


@pytest.mark.parametrize(
    "value",
    [NAME, NAME.encode(), 19510302, 93.5, [NAME], {"name": NAME}, Path(f"/data/{NAME}"), (NAME,), {NAME}],
)
def test_a_value_given_to_a_log_line_appears_as_its_type(logs: Path, value: object) -> None:
    log.warning("value %s and %r here", value, value)
    log.warning("by name %(value)s", {"value": value})
    text = logs.read_text()
    assert "Jane" not in text
    assert "19510302" not in text
    assert "93.5" not in text
    assert f"<{type(value).__name__}" in text


def test_numbers_formatted_as_numbers_stay_hidden_too(logs: Path) -> None:
    log.warning("age %d, weight %5.1f, id %x, %s%%", 93, 71.25, 3054, shown(12))
    assert "age <int>, weight <float>, id <int>, 12%" in logs.read_text()


def test_identifiers_codes_and_marked_numbers_are_shown(logs: Path) -> None:
    node, session = NodeId.new(), SessionId.new()
    log.info(
        "%s in %s: %s after %s s, a %s frame, %s",
        node,
        session,
        RefusalCode.EXPIRED,
        shown(1.5),
        "sum_input",
        "TimeoutError",
    )
    assert f"{node} in {session}: expired after 1.5 s, a sum_input frame, TimeoutError" in logs.read_text()


def test_text_cannot_be_marked_as_shown() -> None:
    for value in (NAME, None, True, [1]):
        with pytest.raises(TypeError):
            shown(value)  # type: ignore[arg-type]  # what a careless caller might pass


def test_arguments_that_do_not_fit_are_dropped_not_printed(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.warning("two %s %s", NAME)
    log.warning("none", NAME)
    assert "Jane" not in logs.read_text() + "".join(capsys.readouterr())


def test_lines_and_names_of_libraries_are_withheld(logs: Path) -> None:
    logging.getLogger("sqlglot").warning(f"cannot parse '{NAME}'")
    logging.getLogger(NAME).warning("hello")
    logging.getLogger("asyncio").error("Task exception was never retrieved: %r", NAME)
    text = logs.read_text()
    assert "Jane" not in text
    assert text.count("(message withheld)") == 3


def test_warnings_are_withheld(logs: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"odd value {NAME}", stacklevel=1)
    assert "Jane" not in logs.read_text()
    assert "WARNING library: (message withheld)" in logs.read_text()


def test_another_handler_of_a_library_gets_the_safe_record(logs: Path) -> None:
    seen: list[str] = []

    class Console(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(logging.Formatter("%(message)s").format(record))

    library = logging.getLogger("flwr")
    console = Console()
    library.addHandler(console)
    try:
        library.error("reply: %s", NAME, exc_info=caught(nested))
    finally:
        library.removeHandler(console)
    assert seen
    assert not [line for line in seen if "Jane" in line]


def test_an_exception_in_a_thread_reaches_the_log_as_type_and_place(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = threading.Thread(target=nested)
    thread.start()
    thread.join()
    assert "nobody caught RuntimeError" in logs.read_text()
    assert "Jane" not in logs.read_text() + "".join(capsys.readouterr())


def test_an_exception_nobody_caught_shows_no_value_on_stderr(tmp_path: Path) -> None:
    script = (
        "import asyncio, logging, threading\n"
        "from pathlib import Path\n"
        "from node import boundary\n"
        f"boundary.start_logging(Path({str(tmp_path)!r}))\n"
        "class Late:\n"
        "    def __del__(self): raise ValueError('Jane Roe')\n"
        "async def task(): raise ValueError('Jane Roe')\n"
        "async def main():\n"
        "    lost = asyncio.ensure_future(task())\n"
        "    await asyncio.sleep(0)\n"
        "    del lost\n"
        "asyncio.run(main())\n"
        "late = Late(); del late\n"
        "threading.Thread(target=lambda: int('Jane Roe')).start()\n"
        "try:\n"
        "    int('Jane Roe')\n"
        "except ValueError as error:\n"
        "    raise ExceptionGroup('Jane Roe', [error])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    text = (tmp_path / "node.log").read_text()
    assert done.returncode == 1
    assert "nobody caught ExceptionGroup" in done.stderr
    assert "Jane" not in done.stdout + done.stderr + text
    assert text.count("nobody caught") == 3
    assert "asyncio" in text


def test_logs_rotate_and_are_for_their_owner_only(logs: Path) -> None:
    log.info("hello")
    assert logs.stat().st_mode & 0o777 == 0o600
    assert logs.parent.stat().st_mode & 0o777 == 0o700
    (handler,) = (h for h in logging.getLogger().handlers if isinstance(h, boundary._PrivateFile))
    assert handler.maxBytes > 0
    handler.doRollover()
    log.info("again")
    assert {file.stat().st_mode & 0o777 for file in logs.parent.iterdir()} == {0o600}


def test_stopping_brings_the_process_back_to_what_it_was(tmp_path: Path) -> None:
    before = (logging.getLogRecordFactory(), sys.excepthook, threading.excepthook, sys.unraisablehook)
    boundary.start_logging(tmp_path)()
    after = (logging.getLogRecordFactory(), sys.excepthook, threading.excepthook, sys.unraisablehook)
    assert before == after


def test_a_description_ends_even_if_causes_form_a_circle() -> None:
    first, second = ValueError(NAME), KeyError(NAME)
    first.__cause__, second.__cause__ = second, first
    assert described(first) == "ValueError, after KeyError, after …"


def test_templates_of_log_lines_are_literals_in_everything_a_node_runs() -> None:
    """A formatted string as the template would carry its values past the check of the arguments."""
    methods = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    found = []
    for package in ("node", "privacy", "deid", "protocols"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute)
                    and call.func.attr in methods
                    and isinstance(call.func.value, ast.Name)
                    and call.func.value.id in {"log", "_log", "logger", "_logger", "LOG", "logging"}
                ):
                    template = call.args[1 if call.func.attr == "log" else 0]
                    if not (isinstance(template, ast.Constant) and isinstance(template.value, str)):
                        found.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not found
