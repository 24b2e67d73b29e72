"""`fedtwin node features`: compute a study's feature set for its cohort, keep it, and say what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import NODE_HOME, Json, NodeHome
from fedtwin.screen import Exit, Stop, emit_json, emit_table


def features(
    study: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A study file that names a feature set.")
    ],
    home: NodeHome = NODE_HOME,
    json: Json = False,
) -> None:
    """Compute the features of a study's cohort as of each index date, keep them, and list the modalities.

    For the hospital's own staff: how many columns each modality has, and of how many patients it is there.
    """
    from fedtwin.node_ingest import open_store
    from fedtwin.node_staff import record
    from fedtwin.study_file import read_study
    from node.audit_events import AuditEvent
    from node.features.store import FeatureStore
    from node.home import NodeHome as Home
    from protocols.study_fields import MalformedStudy

    try:
        plan = read_study(study)
    except MalformedStudy as error:
        raise Stop(Exit.USAGE, str(error)) from error
    chosen = plan.feature_set
    if chosen is None:
        raise Stop(Exit.USAGE, "the study has no feature set: its features are not as of a date")
    kept = FeatureStore(Home(home).features)
    record(Home(home), AuditEvent.EVENTS_EXPORTED, kind="features")
    with open_store(home, read_only=True) as store:
        rows = kept.fill(chosen, plan.cohort, store)
        present = kept.present(chosen, store)
    found = [
        {"modality": name, "columns": width, "patients_with_it": present[name]}
        for name, width in chosen.shapes().items()
    ]
    if json:
        about = {"feature_set": chosen.name, "version": chosen.version, "hash": chosen.hash().hex()}
        emit_json(about | {"patients": rows, "modalities": found})
        return
    emit_table(
        ("modality", "columns", "patients with it"),
        [tuple(row.values()) for row in found],
        title=f"{chosen.name} version {chosen.version}, {chosen.hash().hex()[:16]}: {rows} patients",
    )
