"""From a run's folder to a package, signed by the coordinator's lead; and whose signature is believed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator.home import CoordinatorHome
from coordinator.profile import Profile
from fedtwin import model_package
from fedtwin.model_card import card_of, card_text
from fedtwin.training_run import UnknownRun, folder_of
from protocols.clock import Clock
from protocols.peer import Role

PACKAGE = "model"  # in the run's folder


class NoModel(ValueError):
    """No round of the run has ended, so there is no model yet."""

    def __init__(self, run: str) -> None:
        super().__init__(f"no round of {run} has ended: there is no model yet")


def packaged(run: str, *, home: Path, clock: Clock) -> dict[str, bytes]:
    """Return the files of the package of a run's model so far, signed if this coordinator's lead has a key.

    Raises: UnknownRun; NoModel; MalformedRun.
    """
    folder = folder_of(run, home=home)
    study, status = folder.study(), folder.status()
    if status is None:
        raise UnknownRun(run)
    checkpoint = folder.checkpoint(study)
    if checkpoint is None:
        raise NoModel(run)
    made_at = clock.now()
    card = card_of(study, run=run, status=status, checkpoint=checkpoint, folder=folder, made_at=made_at)
    files = model_package.files_of(study, checkpoint.parameters, card, card_text(card), made_at=made_at)
    lead = CoordinatorHome(home).lead_profile
    if not (lead / "identity.key").is_file():
        return files
    profile = Profile.load(lead)
    return model_package.signed(files, signer=profile.name, key=profile.identity_key())


def keep_package(run: str, *, home: Path, clock: Clock) -> Path:
    """Write the package into the run's own folder, in place of an earlier one; return where it is."""
    path = folder_of(run, home=home).path / PACKAGE
    files = packaged(run, home=home, clock=clock)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
    model_package.write(files, path)
    return path


def leads_at(home: Path, *, clock: Clock) -> Mapping[str, Ed25519PublicKey]:
    """Return the leads of the roster that a coordinator's or a hospital's folder holds, with their keys.

    Raises: MalformedConfig where neither lives; Refused for a roster that does not verify.
    """
    coordinator = CoordinatorHome(home)
    if coordinator.config_file.is_file():
        with contextlib.closing(coordinator.open_state()) as state:
            return coordinator.roster_book(state, clock=clock).current().signer_keys(Role.LEAD)
    from node.home import NodeHome
    from node.roster import RosterKeeper

    return RosterKeeper.open(NodeHome(home)).signers(Role.LEAD)


def summary(package: model_package.ModelPackage) -> dict[str, Any]:
    """Return what a person wants to know of a package that was checked."""
    signer = package.signer
    return {
        "name": package.study.name,
        "plan_hash": package.plan_hash,
        "parameters": package.study.parameters,
        "made_at": package.made_at,
        "state": package.card.get("state"),
        "signed_by": signer and signer.name,
        "signing_key": signer and signer.key,
        "in_roster": bool(signer and signer.in_roster),
    }
