"""`fedtwin keyholder` and what the other commands say about key-holders, without a network."""

import re
from pathlib import Path

import pytest

from fedtwin.screen import Exit
from protocols.invitation import Invitation
from tests.fedtwin.conftest import Fedtwin


@pytest.fixture
def consortium(fedtwin: Fedtwin, tmp_path: Path) -> Path:
    home = tmp_path / "consortium"
    said = fedtwin("coordinator", "init", "--secure-sum", "bfv", "--home", home, "--json")
    assert said.code == Exit.OK, said.err
    assert said.json["secure_sum"] == "bfv"
    return home


def test_a_consortium_that_adds_up_in_an_unknown_way_is_not_founded(fedtwin: Fedtwin, tmp_path: Path) -> None:
    home = tmp_path / "consortium"
    assert fedtwin("coordinator", "init", "--secure-sum", "plain", "--home", home).code == Exit.USAGE
    assert not home.exists()


def test_a_key_holder_is_invited_in_one_line(fedtwin: Fedtwin, consortium: Path) -> None:
    said = fedtwin("coordinator", "invite-keyholder", "registry", "--home", consortium)
    assert Invitation.parse(said.out).address.endswith(":8440")
    assert fedtwin("coordinator", "invite-keyholder", "No Name", "--home", consortium).code == Exit.USAGE
    said = fedtwin("coordinator", "status", "--home", consortium, "--json")
    assert (said.json["secure_sum"], said.json["key_holder"]) == ("bfv", None)


def test_a_folder_without_a_key_holder_is_a_usage_error(fedtwin: Fedtwin, tmp_path: Path) -> None:
    for command in ("serve", "status"):
        said = fedtwin("keyholder", command, "--home", tmp_path / "nothing")
        assert said.code == Exit.USAGE
        assert "keyholder init" in said.err


def test_an_invitation_that_is_none_makes_no_folder(fedtwin: Fedtwin, tmp_path: Path) -> None:
    home = tmp_path / "keyholder"
    assert fedtwin("keyholder", "init", "ft1.nonsense", "--home", home).code == Exit.USAGE
    assert not home.exists()


def test_trust_needs_a_node(fedtwin: Fedtwin, tmp_path: Path) -> None:
    assert fedtwin("node", "trust-keyholder", "ab" * 32, "--home", tmp_path / "n").code == Exit.USAGE


def test_every_command_of_the_guide_exists(fedtwin: Fedtwin) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "encrypted-sums.md").read_text()
    shown = {tuple(words.split()) for words in re.findall(r"^fedtwin ([a-z]+ [a-z-]+)", guide, re.MULTILINE)}
    assert len(shown) == 7, shown
    for words in shown:
        assert fedtwin(*words, "--help").code == Exit.OK, words
