"""The Flower app bundle (FAB) that holds no code.

Flower ships an app's files to every site and puts them first on the import path. Ours is a pyproject.toml and
a line of text: both component references resolve from the wheel that is installed at each end, and our runner
does not unpack a bundle at all.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import dataclass

from flwr.cli.build import build_fab_from_files

SERVER_APP = "coordinator.flower.server_app:app"
CLIENT_APP = "node.flower.client_app:app"
NOTICE = b"This bundle holds no code on purpose. The app is in the fedtwin wheel installed at each end.\n"

# Keys that `start_run` may set; Flower refuses any other. A node ignores all of them.
RUN_CONFIG = ("run", "plan_hash")

_PYPROJECT = f"""
[project]
name = "fedtwin-training"
version = "1.0.0"
description = "Runs the training app of the fedtwin wheel"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedtwin"
fab-include = ["LICENSE"]

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
run = ""
plan_hash = ""
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A FAB and the SHA-256 by which Flower names it."""

    content: bytes
    sha256: str


@functools.cache
def code_free_bundle() -> Bundle:
    """Return the bundle: the same bytes on every machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # flwr 1.41 uses pathspec's old pattern name
        content, _ = build_fab_from_files({"pyproject.toml": _PYPROJECT.encode(), "LICENSE": NOTICE})
    return Bundle(content, hashlib.sha256(content).hexdigest())
