"""What Flower ships to the hospitals holds no code, and what it names is in the wheel."""

import io
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

from coordinator.flower import bundle

ROOT = Path(__file__).parents[2]
SHA256 = "97938aeb57c3667da3d2cf20434300d2bd485db4de4db01af0d3c7ae3df66643"


def files() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle.code_free_bundle().content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_bundle_holds_no_code() -> None:
    assert set(files()) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}


def test_the_bundle_is_the_same_everywhere() -> None:
    assert bundle.code_free_bundle().sha256 == SHA256, "a new bundle: is it meant? then pin it here"


def test_the_bundle_names_modules_of_the_wheel_and_depends_on_nothing() -> None:
    parsed = tomllib.loads(files()["pyproject.toml"].decode())
    assert parsed["project"]["dependencies"] == []
    for reference in parsed["tool"]["flwr"]["app"]["components"].values():
        spec = find_spec(reference.partition(":")[0])
        assert spec is not None
        assert Path(str(spec.origin)).is_relative_to(ROOT)


def test_the_two_texts_of_child_process_are_one() -> None:
    ours, theirs = (ROOT / package / "flower" / "child_process.py" for package in ("coordinator", "node"))
    assert ours.read_text() == theirs.read_text()
