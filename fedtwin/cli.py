"""The command `fedtwin`: groups of verbs, and what an exit code means.

Everything heavy (gRPC, DuckDB, torch, Flower) is imported inside the command that needs it.
"""

from __future__ import annotations

import dis
import os
import resource
import sys
from typing import Annotated

import click
import typer
from rich.markup import escape

from fedtwin.cli_audit import audit
from fedtwin.cli_coordinator import coordinator
from fedtwin.cli_deid import deid
from fedtwin.cli_demo import demo
from fedtwin.cli_gateway import gateway
from fedtwin.cli_keyholder import keyholder
from fedtwin.cli_node import node
from fedtwin.cli_query import query
from fedtwin.cli_train import train
from fedtwin.screen import Exit, Stop, emit_json, say

EXIT_CODES = "Exit codes: 0 done, 1 fault, 2 wrong command or file, 3 refused."
OURS = ("protocols", "privacy", "deid", "node", "coordinator", "keyholder", "sim", "fedtwin")

app = typer.Typer(
    name="fedtwin",
    help="Records stay in the hospital; only noised sums leave.\n\n" + EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(coordinator, name="coordinator")
app.add_typer(keyholder, name="keyholder")
app.add_typer(gateway, name="gateway")
app.add_typer(node, name="node")
app.add_typer(deid, name="deid")
app.add_typer(query, name="query")
app.add_typer(train, name="train")
app.command("audit")(audit)
app.command("demo")(demo)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fedtwin {version('fedtwin')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Records stay in the hospital; only noised sums leave."""


def main(argv: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    dump_no_memory()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def dump_no_memory() -> None:
    """Let no crash of this process, or of those it starts, write its memory: it may hold records and keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(argv: list[str]) -> int:
    """Run the command `fedtwin ARGV…` and return its exit code."""
    try:
        outcome = app(args=argv, prog_name="fedtwin", standalone_mode=False)
        return int(outcome) if isinstance(outcome, int) else Exit.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return Exit.USAGE
    except click.ClickException as error:
        error.show()
        if "--json" in argv:
            emit_json({"error": type(error).__name__, "exit_code": int(Exit.USAGE)})
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        say("stopped")
        return 130  # 128 + SIGINT, as shells say it
    except Exception as error:
        return _explain(error, as_json="--json" in argv)


def _explain(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong in words, and as JSON on stdout where that was asked for."""
    from protocols.refusal import Refused

    if os.environ.get("FEDTWIN_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Refused):
        say(f"[yellow]refused[/yellow] ({error.code.value}): {error.code.help}")
        if as_json:
            emit_json({"refused": error.code.value, "help": error.code.help})
        return Exit.REFUSED
    if isinstance(error, Stop):
        say(str(error))
        code = error.code
    elif isinstance(error, ValueError) and _is_ours(error):
        say(f"[red]error[/red]: {escape(str(error))}")  # the caller's mistake; ours carry no patient value
        code = Exit.USAGE
    elif isinstance(error, ModuleNotFoundError):
        say(
            f"[red]error[/red]: {escape(str(error.name))} is not installed here. A hospital needs"
            r" `pip install 'fedtwin\[node]'`, a coordinator `pip install 'fedtwin\[coordinator]'`"
            r", a gateway `pip install 'fedtwin\[gateway]'`"
        )
        code = Exit.USAGE
    elif isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        say(f"[red]error[/red]: {error.strerror}: {escape(str(error.filename))}")
        code = Exit.USAGE
    elif _is_ours(error):
        say(f"[red]fault[/red]: {type(error).__name__}: {escape(str(error))}")
        code = Exit.FAULT
    else:  # a library's own words may quote what it was reading
        say(
            f"[red]fault[/red]: {type(error).__module__}.{type(error).__name__} (FEDTWIN_DEBUG=1 shows where)"
        )
        code = Exit.FAULT
    if as_json:
        emit_json({"error": type(error).__name__, "exit_code": int(code)})
    return code


def _is_ours(error: Exception) -> bool:
    """Return whether our code chose the error's words: its own kind, or a plain one that it raised itself.

    `float(text)` fails inside our functions too, but in Python's words, which quote the text.
    """
    if type(error).__module__.split(".")[0] in OURS:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__", "").split(".")[0] not in OURS:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
