"""`fedtwin node policy|budget|approve|studies|audit|quarantine`: what a node allows, spent and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

policy = typer.Typer(name="policy", help="What this hospital allows.", no_args_is_help=True)
audit = typer.Typer(name="audit", help="What this node was asked, decided and sent.", no_args_is_help=True)


def register(node: typer.Typer) -> None:
    """Add the commands that stand directly under `fedtwin node`."""
    for name, command in (
        ("budget", budget),
        ("approve", approve),
        ("withdraw", withdraw),
        ("studies", studies),
        ("quarantine", quarantine),
    ):
        node.command(name)(command)


@policy.command("init")
def init_policy(
    preset: Annotated[str, typer.Argument(metavar="[cautious|demo]")] = "cautious",
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Write a starter policy; every key in it is explained. An existing one is left as it is."""
    from fedtwin.node_policy import prepared

    path = home / "policy.toml"
    if preset not in ("cautious", "demo"):
        raise Stop(Exit.USAGE, "a preset is cautious or demo; to use a file, copy it to policy.toml")
    prepared(preset)(home)
    if json:
        emit_json({"policy": str(path), "preset": preset})
    else:
        say(f"Wrote {path}. Read it, change what your governance says, restart the node.")


@policy.command("show")
def show_policy(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Show the policy in force, after checking it."""
    import tomllib

    from node.policy import Policy

    data = (home / "policy.toml").read_bytes() if (home / "policy.toml").exists() else b""
    Policy.load(home / "policy.toml")
    if json:
        emit_json(tomllib.loads(data.decode()))
    else:
        typer.echo(data.decode(), nl=False)


def budget(
    project: Annotated[str | None, typer.Option(metavar="PROJECT", help="Only this project.")] = None,
    researcher: Annotated[str | None, typer.Option(metavar="NAME", help="Only this researcher.")] = None,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Show what was spent and what is left: in all, and for each dataset, project and researcher."""
    from fedtwin.node_budget import budget as view
    from fedtwin.node_budget import exact_words, rows
    from protocols.clock import SystemClock

    require_node(home)
    report = view(home, clock=SystemClock(), project=project, researcher=researcher)
    if json:
        emit_json(report)
        return
    emit_table(
        ("per", "name", "since", "spent", "left", "cap", "largest question", "releases", "open"),
        [
            (
                kind,
                name,
                line["period_start"] or "ever",
                f"{line['spent']['epsilon']:.3f}",
                f"{line['left']['epsilon']:.3f}",
                f"{line['cap']:g}",
                f"{line['left']['largest_question']:.3f}",
                line["spent"]["events"],
                line["reservations_open"],
            )
            for kind, name, line in rows(report)
        ],
        title=f"epsilon at delta {report['delta']:g}",
    )
    for line in exact_words(report):
        typer.echo(line)


def approve(
    study: Annotated[str, typer.Argument(metavar="STUDY|HASH", help="A study file, or 8+ digits of a hash.")],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Approve one training plan, exactly as it is; a changed plan has another hash."""
    from fedtwin.study_file import read_study
    from node.audit_events import AuditEvent
    from node.training.approvals import Approvals, NoSuchPlan
    from protocols.clock import SystemClock

    require_node(home)
    clock, approvals, path = SystemClock(), Approvals(home), Path(study)
    if path.is_file():
        plan = read_study(path)
        approvals.approve(plan, clock=clock)
    else:
        try:
            plan = approvals.approve_hash(study, clock=clock)
        except NoSuchPlan as error:
            raise Stop(Exit.USAGE, f"{error}; see `fedtwin node studies`") from None
    _recorded(home, AuditEvent.STUDY_APPROVED, plan.plan_hash())
    fields = {"plan_hash": plan.plan_hash().hex(), "name": plan.name, "status": "approved"}
    if json:
        emit_json(fields)
    else:
        cost = f"epsilon {plan.privacy.epsilon:g} in all"
        if plan.exact is not None:
            cost = f"without noise: it runs only if policy.toml has {fields['plan_hash']} under [exact]"
        say(f"Approved {plan.name} ({fields['plan_hash'][:16]}…), {cost}.")


def withdraw(
    digits: Annotated[str, typer.Argument(metavar="HASH", help="8 or more digits of the plan's hash.")],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Take back an approval. The plan's next round is refused here."""
    from node.audit_events import AuditEvent
    from node.training.approvals import Approvals, NoSuchPlan

    require_node(home)
    try:
        plan = Approvals(home).withdraw(digits)
    except NoSuchPlan as error:
        raise Stop(Exit.USAGE, f"{error}; see `fedtwin node studies`") from None
    _recorded(home, AuditEvent.STUDY_WITHDRAWN, plan.plan_hash())
    if json:
        emit_json({"plan_hash": plan.plan_hash().hex(), "name": plan.name, "status": "withdrawn"})
    else:
        say(f"{plan.name} is no longer approved here.")


def studies(
    digits: Annotated[
        str | None,
        typer.Argument(metavar="HASH", help="8 or more digits of a plan's hash: this one, in words."),
    ] = None,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """List the training plans that wait for a decision, and those that are approved; or read one of them."""
    from fedtwin.node_view import studies as view

    require_node(home)
    if digits is not None:
        _one_study(home, digits, json=json)
        return
    rows = view(home)
    if json:
        emit_json({"studies": rows})
        return
    emit_table(
        ("plan", "name", "status", "project", "epsilon", "steps", "reads"),
        [
            (r["plan_hash"][:16], r["name"], r["status"], r["project"],
             "none holds" if r["epsilon"] is None else f"{r['epsilon']:g}", r["steps"],
             ", ".join(r["tables"]))
            for r in rows
        ],
    )  # fmt: skip
    if rows:
        say("One of them in words: fedtwin node studies PLAN")


def _one_study(home: Path, digits: str, *, json: bool) -> None:
    from fedtwin.node_view import study_in_words
    from node.training.approvals import NoSuchPlan

    try:
        found = study_in_words(home, digits)
    except NoSuchPlan as error:
        raise Stop(Exit.USAGE, f"{error}; see `fedtwin node studies`") from None
    if json:
        emit_json(found)
        return
    words = found["words"] | {"reads": ", ".join(found["tables"])}
    emit_fields({"plan": found["plan_hash"], "name": found["name"], "status": found["status"], **words})


def quarantine(
    limit: Annotated[int, typer.Option(help="Show at most this many groups.")] = 50,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Show what was turned away while taking in files: where and why, never what it said."""
    from fedtwin.node_ingest import quarantined

    require_node(home)
    groups = quarantined(home)
    if json:
        emit_json({"groups": groups[:limit], "total": sum(group["values"] for group in groups)})
        return
    emit_table(
        ("file", "field", "reason", "values", "first row"),
        [(g["file"], g["field"], g["reason"], g["values"], g["first_row"]) for g in groups[:limit]],
    )


@audit.command("verify")
def verify_audit(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Check the audit trail: every line, its link to the one before, and its end."""
    from fedtwin.node_view import audit_entries
    from node.audit import AuditBroken

    require_node(home)
    try:
        entries = audit_entries(home)
    except AuditBroken as error:
        if json:
            emit_json({"holds": False, "line": error.line, "reason": error.reason})
            raise typer.Exit(Exit.FAULT) from None
        words = f"[red]the audit trail is broken[/red] at line {error.line}: {error.reason}"
        raise Stop(Exit.FAULT, words) from None
    if json:
        emit_json({"holds": True, "entries": entries})
    else:
        say(f"The chain of {entries} lines holds.")


@audit.command("tail")
def tail_audit(
    count: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many lines.")] = 20,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Show the last lines of the audit trail."""
    from node.audit import tail

    require_node(home)
    lines = tail(home / "audit.jsonl", count)
    if json:
        emit_json([{"seq": x.seq, "at": x.at, "event": x.event, "fields": dict(x.fields)} for x in lines])
        return
    for line in lines:
        fields = "  ".join(f"{name}={value}" for name, value in line.fields.items())
        typer.echo(f"{line.seq:>6}  {line.at}  {line.event:<20} {fields}")


def require_node(home: Path) -> None:
    """Stop if nobody joined from `home`: nothing is made, or said to be empty, in a wrong place."""
    if not (home / "node.toml").is_file():
        raise Stop(Exit.USAGE, f"{home} is no node; `fedtwin node join TOKEN` makes one")


def _recorded(home: Path, event: str, plan_hash: bytes) -> None:
    """Write a decision of this hospital's staff into its audit trail."""
    from node.audit import AuditLog
    from protocols.clock import SystemClock

    log = AuditLog(home / "audit.jsonl", clock=SystemClock())
    try:
        log.record(event, plan_hash=plan_hash)
    finally:
        log.close()
