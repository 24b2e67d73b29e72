"""`fedtwin node`: what hospital IT does. Three commands from install to serving: join, ingest, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.cli_node_cohort import cohort
from fedtwin.cli_node_evaluate import evaluate
from fedtwin.cli_node_features import features
from fedtwin.cli_node_fhir import pull_fhir
from fedtwin.cli_node_genomes import load_genomes, score_genomes
from fedtwin.cli_node_listen import listen_mllp
from fedtwin.cli_node_listen_dicom import listen_dicom
from fedtwin.cli_node_map import mapping as code_mapping
from fedtwin.cli_node_notes import notes
from fedtwin.cli_node_quality import quality
from fedtwin.cli_node_records import audit, policy, register, require_node
from fedtwin.cli_node_sources import sources
from fedtwin.cli_node_store import store
from fedtwin.cli_node_timeline import meds, provenance, snapshot, timeline
from fedtwin.cli_node_vocabulary import vocabulary
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, emit_fields, emit_json, say

node = typer.Typer(name="node", help="Run this hospital's node.", no_args_is_help=True)
node.add_typer(policy)
node.add_typer(audit)
node.add_typer(store)
node.add_typer(vocabulary)
node.add_typer(code_mapping)
node.add_typer(snapshot)
register(node)
node.command("cohort")(cohort)
node.command("notes")(notes)
node.command("timeline")(timeline)
node.command("features")(features)
node.command("evaluate")(evaluate)
node.command("provenance")(provenance)
node.command("meds")(meds)
node.command("quality")(quality)
node.command("sources")(sources)
node.command("listen-mllp")(listen_mllp)
node.command("listen-dicom")(listen_dicom)
node.command("pull-fhir")(pull_fhir)
node.command("load-genomes")(load_genomes)
node.command("score-genomes")(score_genomes)


@node.command("join")
def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation; `-` reads it from stdin.")],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", metavar="cautious|demo|FILE", help="Write a starter policy, or copy this file."
        ),
    ] = None,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew", help="This node's certificate ran out; the invitation was made for it again."
        ),
    ] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Join a consortium: make keys here, prove them, get a certificate and the roster."""
    import sys

    from fedtwin.node_policy import prepared
    from node.enrolment import join as enrol
    from node.enrolment import rejoin
    from node.home import NodeHome as Home
    from protocols.clock import SystemClock

    text = sys.stdin.read() if token == "-" else token  # noqa: S105 - a dash is no token
    install = prepared(policy) if policy else None  # a wrong file is found before anything is sent
    joined = (rejoin if renew else enrol)(Home(home), text, clock=SystemClock())
    if install is not None:
        install(home)
    fields = {"node_id": str(joined.node_id), "name": joined.name, "home": str(home), "policy": policy}
    if json:
        emit_json(fields)
        return
    say(f"{joined.name} has joined as {joined.node_id}. Next: fedtwin node ingest PATH")
    if install is None and not (home / "policy.toml").exists():
        say("There is no policy yet, so everything is refused: fedtwin node policy init")


@node.command("trust-keyholder")
def trust_keyholder(
    fingerprint: Annotated[
        str, typer.Argument(metavar="FINGERPRINT", help="64 hex digits, as the key-holder itself says them.")
    ],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Encrypt sums for this key-holder, and for no other. Without it encrypted sums are refused."""
    from node.key_holder import trust

    require_node(home)
    found = trust(home, fingerprint)
    if json:
        emit_json({"trusted_key_holder": found})
    else:
        say("Trusted from now on; another one that the roster may name is not.")


@node.command("ingest")
def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", exists=True, help="Files, and folders of them; none with --sql."),
    ] = None,
    mapping: Annotated[
        list[Path] | None,
        typer.Option(
            "--mapping",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="What the columns mean; repeat for more. Default: *.toml beside the data, fedtwin's own.",
        ),
    ] = None,
    sql: Annotated[
        str | None,
        typer.Option(
            "--sql",
            metavar="URL",
            help="Rows of a database, as `sql` of each --mapping says: postgresql://USER@HOST/NAME, or what"
            " SQLAlchemy takes. Without a password: its driver finds it (PGPASSWORD, ~/.pgpass).",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="A file that has changed replaces what it gave before.")
    ] = False,
    copy_to: Annotated[
        str | None,
        typer.Option(
            "--copy-to",
            metavar="URL",
            help="And then copy the node's CDM to PostgreSQL, as `fedtwin node store copy URL` does.",
        ),
    ] = None,
    copy_schema: Annotated[
        str, typer.Option("--copy-schema", metavar="NAME", help="Where that copy lies.")
    ] = "cdm",
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            min=1,
            help="How many take part: one stores, the others read ahead of it. Default: the processors, at"
            " most 3; 1 reads and stores in turn.",
        ),
    ] = None,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Take in files of any kind that a reader or a mapping is for: identity out, OMOP in, all counted."""
    from fedtwin import node_store_copy
    from fedtwin.node_ingest import take_in
    from fedtwin.progress import bar

    require_node(home)
    if sql is None and not paths:
        raise typer.BadParameter("files or folders, or --sql URL", param_hint="PATH...")
    if sql is not None and (paths or not mapping):
        raise typer.BadParameter("it takes --mapping FILE, and no PATH", param_hint="--sql")
    if copy_to is not None:
        node_store_copy.named(copy_to)  # before anything is taken in
    with bar("reading", unit="rows" if sql else "bytes") as line:

        def watch(source: str, done: int, total: int) -> None:
            line.describe(source)
            line.to(done, total=total)

        report = take_in(
            home,
            paths or [],
            mappings=mapping or [],
            sql=sql,
            replace=replace,
            watch=watch,
            processes=processes,
        )
    report |= _copied(home, copy_to, copy_schema)
    if json:
        emit_json(report)
    else:
        _tell_of(report)
    raise typer.Exit(Exit.FAULT if report["unreadable"] else Exit.OK)


def _copied(home: Path, copy_to: str | None, schema: str) -> dict[str, object]:
    """Copy the CDM if that was asked for; say so where questions will not see what came in."""
    from fedtwin import node_store_copy
    from node.home import NodeHome as Home
    from node.store_url import StoreKind, StoreUrl

    if copy_to is not None:
        return {"copy": node_store_copy.copy(home, copy_to, schema=schema)}
    store = Home(home).config().store
    if store and StoreUrl.parse(store).kind is StoreKind.POSTGRESQL:
        say(
            "[yellow]questions read a PostgreSQL database[/yellow], and this went into the node's own store:"
            " --copy-to URL, or `fedtwin node store copy URL`, brings it there"
        )
    return {}


def _tell_of(report: dict[str, Any]) -> None:
    from fedtwin.node_ingest import GENOTYPES, is_genotypes
    from fedtwin.node_store_copy import words

    emit_fields(
        {
            "files": f"{len(report['files'])} ({report['unchanged']} unchanged since the last time)",
            "rows": report["rows"],
            "stored": report["loaded"],
            "patients": report["patients"],
            "records": ", ".join(f"{count} {table}" for table, count in report["records"].items()) or "none",
            "quarantined": f"{report['quarantined']} (see `fedtwin node quarantine`)",
        }
    )
    if "copy" in report:
        say(words(report["copy"]))
    for name in report["without_mapping"]:
        why = GENOTYPES if is_genotypes(name) else "fits no mapping and no reader"
        say(f"[yellow]not read[/yellow]: {name}: {why}")
    for name in report["unknown_columns"]:
        say(f"[yellow]dropped[/yellow]: {name} stands in no mapping")
    for name in report["unreadable"]:
        say(f"[red]unreadable[/red]: {name}; nothing of it was stored")


@node.command("serve")
def serve(home: NodeHome = NODE_HOME) -> None:
    """Connect to the coordinator and answer until stopped (Ctrl-C or SIGTERM). Only connects out."""
    from node.home import NodeHome as Home
    from node.serve import serve as run
    from protocols.clock import SystemClock

    require_node(home)
    run(Home(home), clock=SystemClock())


@node.command("status")
def status(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Show who this node is, whether it serves, and what it holds. Works beside `serve`."""
    from fedtwin.node_view import status as view
    from protocols.clock import SystemClock

    require_node(home)
    fields = view(home, clock=SystemClock())
    if json:
        emit_json(fields)
    else:
        emit_fields(_flat(fields))


@node.command("doctor")
def doctor(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Check everything this node needs, and say what to do about what is not well."""
    from fedtwin.doctor import Health, examine
    from protocols.clock import SystemClock

    findings = list(examine(home, clock=SystemClock()))
    healthy = all(finding.health != Health.FAIL for finding in findings)
    if json:
        emit_json({"healthy": healthy, "checks": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{finding.health:<4}  {finding.check:<12} {finding.seen}")
            if finding.to_do:
                typer.echo(f"{'':<19}→ {finding.to_do}")
    if not healthy:
        raise typer.Exit(Exit.FAULT)


def _flat(fields: dict[str, Any]) -> dict[str, object]:
    return {name.replace("_", " "): "-" if value is None else value for name, value in fields.items()}
