"""`fedtwin node timeline|provenance|meds|snapshot`: what is known of a patient, since when, from where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, emit_fields, emit_json, emit_table, say

snapshot = typer.Typer(
    name="snapshot", help="Sets of data that can be made again exactly.", no_args_is_help=True
)
AsOf = Annotated[
    str, typer.Option("--as-of", metavar="T", help="Only what was known then: a date (its end) or a time.")
]
UptoLoad = Annotated[
    int | None, typer.Option("--load", metavar="N", help="Only what loads up to this one brought.")
]
UnrecordedAt = Annotated[
    str,
    typer.Option(
        "--unrecorded",
        metavar="loaded|event",
        help="Since when an event was known whose source does not say when it was recorded.",
    ),
]


def timeline(
    person: Annotated[int, typer.Argument(metavar="PERSON", help="The person's id in the store.")],
    as_of: AsOf = "",
    window: Annotated[
        str, typer.Option("--window", metavar="FROM..TO|365d", help="Only events of this time.")
    ] = "",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only this kind; repeat for more.")
    ] = None,
    load: UptoLoad = None,
    unrecorded: UnrecordedAt = "loaded",
    deltas: Annotated[
        bool, typer.Option("--deltas", help="Also each number beside the one before it.")
    ] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Show one patient's events in order of time. The audit trail says who looked, and at whom by a mark."""
    from fedtwin.node_timeline import read, scope_of

    require_node(home)
    scope = scope_of(
        person_id=person,
        as_of=as_of,
        span=window,
        kinds=kind or (),
        unrecorded=unrecorded,
        upto_load=load,
    )
    found = read(home, scope, changes=deltas)
    if json:
        emit_json(found)
    else:
        emit_table(
            ("time (UTC)", "kind", "what", "value", "unit", "record"),
            [
                (
                    event["time"] if event["precision"] == "second" else event["time"][:10],
                    event["kind"],
                    event["concept"] or event["source_value"] or event["concept_id"] or "-",
                    next((v for v in (event["value_number"], event["value_text"]) if v is not None), "-"),
                    event["unit_concept"] or event["unit"] or "-",
                    f"{event['table']} {event['record_id']}",
                )
                for event in found["events"]
            ],
        )
        if deltas:
            emit_table(
                ("time (UTC)", "concept", "value", "before", "change", "days since"),
                [
                    (d["time"], d["concept_id"], d["value_number"], d["previous"], f"{d['delta']:g}",
                     f"{d['since_s'] / 86_400:.1f}")
                    for d in found["deltas"]
                    if d["previous"] is not None
                ],
            )  # fmt: skip
    if found["hidden_unrecorded"]:
        say(
            f"{found['hidden_unrecorded']} events are left out: their source does not say when they were"
            " recorded, and they were loaded later."
            " --unrecorded event takes them as known since they happened."
        )


def provenance(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the CDM: measurement.")],
    record: Annotated[int, typer.Argument(metavar="RECORD", help="The record's id there.")],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Show where a record comes from, what was done to it, and who has read it."""
    from fedtwin.node_timeline import provenance_of

    require_node(home)
    found = provenance_of(home, table, record)
    if json:
        emit_json(found)
        return
    for origin in found["origins"]:
        place = f" {origin['place']}" if origin["place"] else ""
        emit_fields(
            {
                "file": origin["file"],
                "record": f"{origin['record']}{place}",
                "read by": " ".join(
                    (origin["read_by"], origin["reader_version"] or origin["mapping_sha256"][:12])
                ),
                "vocabulary": origin["vocabulary_version"] or "-",
                "done to it": ", ".join(origin["transformations"]) or "-",
                "recorded": origin["recorded_at"] or "its source does not say",
                "loaded": origin["loaded_at"],
            }
        )
    if not found["origins"]:
        say("Nothing is recorded about where it comes from.")
    emit_table(
        ("when", "what", "by or for", "sure"),
        [
            (
                line["at"],
                line["what"],
                line.get("staff") or line.get("project") or "-",
                "yes" if line["certain"] else "perhaps",
            )
            for line in found["read_by"]
        ],
        title="read since it was loaded",
    )


def meds(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, on your own disk.")],
    as_of: AsOf = "",
    load: UptoLoad = None,
    unrecorded: UnrecordedAt = "loaded",
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Write all timelines as a MEDS dataset. These are patients' records: they stay in the hospital."""
    from fedtwin.node_timeline import export, scope_of

    require_node(home)
    scope = scope_of(person_id=None, as_of=as_of, span="", kinds=(), unrecorded=unrecorded, upto_load=load)
    written = export(home, folder, scope)
    if json:
        emit_json(written)
    else:
        emit_fields(dict(written))


@snapshot.command("take")
def take(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    load: UptoLoad = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the rows too: later versions of records may replace them.")
    ] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Take down which loads the data are of, and a digest of them."""
    from fedtwin.node_timeline import take_snapshot

    require_node(home)
    found = take_snapshot(home, name, upto_load=load, keep=keep)
    if json:
        emit_json(found)
    else:
        emit_fields({key: found[key] for key in ("name", "upto_load", "persons", "rows", "sha256", "kept")})


@snapshot.command("verify")
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME")], home: NodeHome = NODE_HOME, json: Json = False
) -> None:
    """Make the snapshot again and compare it, person by person, with what was taken."""
    from fedtwin.node_timeline import verify_snapshot

    require_node(home)
    found = verify_snapshot(home, name)
    if json:
        emit_json(found)
    else:
        emit_fields(dict(found))
    if not found["usable"]:
        raise typer.Exit(Exit.FAULT)


@snapshot.command("list")
def list_all(home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """List the snapshots of this node."""
    from fedtwin.node_timeline import list_snapshots

    require_node(home)
    found = list_snapshots(home)
    if json:
        emit_json({"snapshots": found})
        return
    emit_table(
        ("name", "made", "loads", "persons", "rows", "kept"),
        [(s["name"], s["made_at"], s["loads"], s["persons"], s["rows"], s["kept"]) for s in found],
    )
