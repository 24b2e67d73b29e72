"""`fedtwin deid rotate`: a new key for what leaves for a project."""

from __future__ import annotations

from typing import Annotated

import typer

from fedtwin.cli_deid_text import KeyFile, VaultHome
from fedtwin.options import Json
from fedtwin.screen import emit_json, say


def rotate(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Whose exports get another key.")],
    key: KeyFile = None,
    home: VaultHome = None,
    json: Json = False,
) -> None:
    """Draw a new key for a project's exports and forget the old one: no later export joins an earlier one."""
    from fedtwin.deid_vault import opened

    with opened(key, home) as vault:
        times = vault.rotate(project)
    if json:
        emit_json({"project": project, "rotated": times})
    else:
        say(f"Exports for {project} get other pseudonyms, dates and surrogates from now on.")
