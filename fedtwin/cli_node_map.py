"""`fedtwin node map`: what unmapped codes of this node's own store stand for, decided by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, say

mapping = typer.Typer(name="map", help="What unmapped codes of the source stand for.", no_args_is_help=True)
ReviewFile = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The review file.")
]


@mapping.command("suggest")
def suggest(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write the review file here; never over one that is there."
        ),
    ] = None,
    codes: Annotated[int, typer.Option(min=1, help="How many codes, the most frequent first.")] = 500,
    candidates: Annotated[int, typer.Option(min=1, max=50, help="How many candidates for each.")] = 5,
    model: Annotated[bool, typer.Option(help="Use the embedding model, if it is installed.")] = True,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Rank standard concepts for the codes that the store could not map, for a person to review."""
    from fedtwin.node_ingest import open_store
    from node.concept_maps.review import written
    from node.concept_maps.suggestions import suggest as ranked

    require_node(home)
    if output is not None and output.exists():
        raise Stop(Exit.USAGE, f"{output} is there already; somebody may have decided in it")
    with open_store(home, read_only=True) as store:
        found = ranked(store, codes=codes, candidates_each=candidates, model=model)
    if output is not None:
        output.write_text(written(found), encoding="utf-8")
    fields = {
        "codes": len(found.found),
        "with_candidates": sum(bool(one.candidates) for one in found.found),
        "method": found.method,
        "review_file": str(output) if output else None,
    }
    if found.note:
        say(f"Note: {found.note}.")
    if json:
        listed = [
            {
                "table": one.source.table,
                "source_vocabulary_id": one.source.source_vocabulary_id,
                "source_code": one.source.source_code,
                "label": one.source.label,
                "records": one.source.records_told,
                "candidates": [
                    {
                        "concept_id": best.concept_id,
                        "concept_name": name,
                        "vocabulary_id": where,
                        "score": best.score,
                    }
                    for best, name, where in one.candidates
                ],
            }
            for one in found.found
        ]
        emit_json({**fields, "suggestions": listed})
        return
    emit_fields(fields)
    if output is not None:
        say(f"Write yes into `decision` where a candidate is right, then: fedtwin node map review {output}")
    else:
        say("For a file to decide in: fedtwin node map suggest --output FILE")


@mapping.command("review")
def review(file: ReviewFile, home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Check a review file and show what it would bring into force; changes nothing."""
    from fedtwin.node_ingest import open_store
    from node.concept_maps.candidates import described

    require_node(home)
    decisions = _read(file)
    with open_store(home, read_only=True) as store:
        known = described(store, [one.target_concept_id for one in decisions.mappings])
    unknown = sorted({one.target_concept_id for one in decisions.mappings} - known.keys())
    fields = {"version": decisions.version, "decided": len(decisions.mappings), "unknown_concepts": unknown}
    lines = [
        {
            "source_vocabulary_id": one.source_vocabulary_id,
            "source_code": one.source_code,
            "concept_id": one.target_concept_id,
            "concept_name": known.get(one.target_concept_id, (None,))[0],
        }
        for one in decisions.mappings
    ]
    if json:
        emit_json({**fields, "mappings": lines})
    else:
        for line in lines:
            emit_fields(line)
        emit_fields(fields)
    if unknown:
        raise Stop(Exit.USAGE, "some of the concepts are no standard ones of this store's vocabulary")


@mapping.command("accept")
def accept(file: ReviewFile, home: NodeHome = NODE_HOME, json: Json = False) -> None:
    """Bring the decisions of a review file into force: the next load of a source goes by them."""
    from fedtwin.node_ingest import open_store
    from node.concept_maps.accepting import UnknownTarget
    from node.concept_maps.accepting import accept as bring_into_force
    from protocols.clock import SystemClock

    require_node(home)
    decisions = _read(file)
    with open_store(home) as store:
        try:
            new = bring_into_force(store, decisions, now=SystemClock().now())
        except UnknownTarget as error:
            raise Stop(Exit.USAGE, f"{error}; nothing was accepted") from None
    fields = {"version": decisions.version, "decided": len(decisions.mappings), "new": new}
    if json:
        emit_json(fields)
        return
    emit_fields(fields)
    if new:
        say(
            "Records in the store get these concepts when their source is taken in again: fedtwin node "
            "ingest PATH"
        )


@mapping.command("list")
def list_(
    history: Annotated[bool, typer.Option("--history", help="Also mappings that no longer hold.")] = False,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """List the accepted mappings, and the version that names them all."""
    from fedtwin.node_ingest import open_store
    from node.concept_maps.accepting import in_force
    from node.omop.code_map import version

    require_node(home)
    with open_store(home, read_only=True) as store:
        found, name = in_force(store, history=history), version(store)
    lines = [
        {
            "source_vocabulary_id": one.source_vocabulary_id,
            "source_code": one.source_code,
            "concept_id": one.target_concept_id,
            "concept_name": one.target_name,
            "review": one.review,
            "since": one.since.isoformat(),
            "until": one.until.isoformat() if one.until else None,
        }
        for one in found
    ]
    if json:
        emit_json({"version": name, "mappings": lines})
        return
    for line in lines:
        emit_fields(line)
    emit_fields({"version": name or "nothing was accepted", "mappings": len(lines)})


def _read(file: Path):  # type: ignore[no-untyped-def]  # a heavy module's type: imported where it is used
    from node.concept_maps.review import MalformedReview, read

    try:
        return read(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise Stop(Exit.USAGE, f"{file}: not UTF-8 text") from None
    except MalformedReview as error:
        raise Stop(Exit.USAGE, f"{file}: {error}") from None
