"""`fedtwin node load-genomes|score-genomes`: variants of patients, and scores of them as measurements."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_json, emit_table, say

Build = Annotated[
    str | None, typer.Option("--build", metavar="GRCh37|GRCh38", help="Where the file does not say.")
]


def load_genomes(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="VCF or BCF, also compressed.")
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="CSV with the columns sample,patient. Default: a sample's id is the patient's.",
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", help="Whose ids the patients' are, as a mapping's.")
    ] = "patient",
    build: Build = None,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Take in genotypes. They are kept beside the CDM under pseudonyms, and never leave this node."""
    from deid.vault import PseudonymKey, Vault
    from fedtwin.node_ingest import GENOMES, VAULT, forget_genomes, open_store
    from node.genomes.recording import withdrawn
    from node.genomes.store import GenomeStore
    from node.ingest.errors import UnreadableSource
    from node.keys import NodeKeys
    from privacy.rng import SecureBits

    require_node(home)
    _check(build)
    patients = None if samples is None else _patients(samples)
    key = PseudonymKey(NodeKeys.load(home / "keys").pseudonym)
    with open_store(home) as store:
        forget_genomes(home, store)
        gone = withdrawn(store)
    with closing(Vault.open(home / VAULT, key=key, bits=SecureBits())) as vault:
        try:
            load = GenomeStore(home / GENOMES).add(
                path, vault, namespace=namespace, patients=patients, without=gone, build=build
            )
        except UnreadableSource as error:
            raise Stop(Exit.USAGE, str(error)) from None
    found = asdict(load)
    if json:
        emit_json(found)
        return
    say(
        f"{load.stored} of {load.records} variants of {load.persons} of {load.samples} samples"
        f"{' (were there already)' if load.unchanged else ''}; they never leave this node"
    )


def score_genomes(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A PGS Catalog scoring file.")
    ],
    build: Build = None,
    min_matched: Annotated[
        float, typer.Option("--min-matched", min=0, max=1, help="Refuse below this part of the variants.")
    ] = 0.75,
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Compute a polygenic score of everybody with genotypes; the result is a measurement in OMOP."""
    from fedtwin.node_ingest import GENOMES, forget_genomes, open_store
    from node.genomes.recording import record
    from node.genomes.scores import UnfitGenomes, score
    from node.genomes.scoring_file import read_scoring_file
    from node.genomes.store import GenomeStore
    from node.ingest.delimited import sha256_of
    from node.ingest.errors import UnreadableSource
    from protocols.clock import SystemClock

    require_node(home)
    _check(build)
    genomes = GenomeStore(home / GENOMES)
    try:
        scoring = read_scoring_file(path)
    except UnreadableSource as error:
        raise Stop(Exit.USAGE, str(error)) from None
    found: list[dict[str, Any]] = []
    with open_store(home) as store:
        forget_genomes(home, store)
        for name in genomes.names():
            try:
                scores = score(genomes, name, scoring, build=build, min_matched=min_matched)
            except UnfitGenomes as error:
                found.append({"genomes": name, "refused": error.reason})
                continue
            outcome = record(
                store, scores, genomes=name, scoring_sha256=sha256_of(path), now=SystemClock().now()
            )
            found.append(
                {"genomes": name, "variants": scores.variants, "too_few_calls": scores.too_few_calls}
                | outcome
            )
    if json:
        emit_json({"score": scoring.pgs_id, "genomes": found})
    elif found:
        emit_table(("genomes", "persons", "variants matched", "refused"), [_row(one) for one in found])
    if not any("stored" in one for one in found):
        raise Stop(Exit.REFUSED, "no genomes here fit this score")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    matched = one.get("variants", {}).get("matched", "-")
    return (one["genomes"][:8], str(one.get("stored", "-")), str(matched), one.get("refused", "-"))


def _check(build: str | None) -> None:
    if build not in (None, "GRCh37", "GRCh38"):
        raise Stop(Exit.USAGE, "a build is GRCh37 or GRCh38")


def _patients(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"sample", "patient"} <= set(rows.fieldnames or ()):
            raise Stop(Exit.USAGE, f"{path.name}: needs the columns sample and patient")
        return {row["sample"]: row["patient"] for row in rows if row["sample"] and row["patient"]}
