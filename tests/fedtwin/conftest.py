"""A consortium's and a hospital's folder, made by the real command."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedtwin.cli import run
from node.home import NodeConfig, NodeHome
from node.keys import NodeKeys
from privacy import private_files
from privacy.rng import SecureBits
from protocols.ids import ConsortiumId, NodeId


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


Fedtwin = Callable[..., Said]


@pytest.fixture
def fedtwin(capsys: pytest.CaptureFixture[str]) -> Fedtwin:
    """Run `fedtwin ARGUMENTS` in this process."""

    def command(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        caught = capsys.readouterr()
        return Said(code, caught.out, caught.err)

    return command


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """The home of a hospital that joined, without a coordinator behind it."""
    home = NodeHome(tmp_path / "hospital")
    private_files.make_folder(home.path)
    NodeKeys.generate(bits=SecureBits()).write(home.keys)
    config = NodeConfig(
        NodeId.new(), "Test hospital", ConsortiumId.new(), bytes(32), "127.0.0.1:1", "127.0.0.1:2"
    )
    private_files.write(home.config_file, config.to_toml().encode())
    return home.path
