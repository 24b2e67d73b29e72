"""A consortium's and a hospital's folder, made by the real command; and a consortium that serves."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pytest

from fedtwin.cli import run
from node.home import NodeConfig, NodeHome
from node.keys import NodeKeys
from privacy import private_files
from privacy.rng import SecureBits
from protocols.ids import ConsortiumId, NodeId
from tests.circe_forms import NEW_CONCEPT, concept_set, definition
from tests.network.consortium import Consortium, until
from tests.node.patients import AF

EVERYBODY = {"include": [{"kind": "age", "min_years": 0}]}
OURS = {
    "index": {"kind": "condition", "concepts": [AF]},
    "include": [{"kind": "sex", "concepts": [8507]}, {"kind": "age", "min_years": 40}],
}
ATLAS = {
    "id": 1,
    "name": "AF",
    "expression": definition({"ConditionOccurrence": {"CodesetId": 0}}, sets=[concept_set(0, [AF])]),
}


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


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with cohorts and a researcher's profile, while coordinator and hospitals serve."""
    place = tmp_path_factory.mktemp("consortium")
    for name, cohort in (("ours.json", OURS), ("atlas.json", ATLAS), ("everybody.json", EVERYBODY)):
        (place / name).write_text(json.dumps(cohort))
    consortium, ready, over = Consortium(place), Event(), Event()

    async def serve() -> None:
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            for site in range(consortium.sites):  # an ATLAS definition goes by the vocabulary
                with duckdb.connect(str(consortium.node(site).store)) as store:
                    store.execute(NEW_CONCEPT, [AF])
            async with consortium.nodes():
                await until(lambda: len(serving.broker.connected()) == 4)
                ready.set()
                await asyncio.to_thread(over.wait)

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield place
    over.set()
    thread.join(60)
