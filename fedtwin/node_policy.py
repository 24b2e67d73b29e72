"""Putting a policy into a node's home: a starter, or a file that was written elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedtwin.screen import Exit, Stop
from node.policy import PRESETS, Policy, write_starter


def prepared(choice: str) -> Callable[[Path], None]:
    """Check `choice` (a preset or a file) and return what writes it into a home.

    Raises: MalformedPolicy; Stop if it is neither a preset nor a file.
    """
    if choice in PRESETS:
        return lambda home: write_starter(home / "policy.toml", preset=choice)
    path = Path(choice)
    if not path.is_file():
        raise Stop(Exit.USAGE, f"{choice} is no preset ({', '.join(PRESETS)}) and no file")
    data = path.read_bytes()
    Policy.parse(data)
    return lambda home: _write(home / "policy.toml", data)


def _write(path: Path, data: bytes) -> None:
    from privacy import private_files

    if path.exists():
        raise Stop(Exit.USAGE, f"{path} exists already; change it there, or move it away first")
    private_files.write(path, data)
