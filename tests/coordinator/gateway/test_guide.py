"""The gateway's guide is true: its config is read by the code, its curl commands run as they stand."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from typer.main import get_command

from coordinator.gateway import problems
from coordinator.gateway.config import KEYS, GatewayConfig
from fedtwin.cli import app
from tests.coordinator.gateway.hospitals import charges
from tests.coordinator.gateway.site import Site

GUIDE = Path(__file__).parents[3] / "docs" / "gateway.md"


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language ("": of none), each fence closing the one before it."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_config_in_the_guide_is_a_config(tmp_path: Path) -> None:
    (shown,) = blocks("toml")
    path = tmp_path / "gateway.toml"
    path.write_text(shown)
    assert GatewayConfig.load(path).access.grants[0].project == "stroke"
    assert set(tomllib.loads(shown)) == KEYS


def test_the_curl_commands_in_the_guide_run_as_they_stand(site: Site, tmp_path: Path) -> None:
    (question,) = blocks("json")
    (tmp_path / "question.json").write_text(question)
    (tmp_path / "ca.crt").write_bytes(site.home.authority_certificate.read_bytes())
    known = {"TOKEN": site.token(), "GATEWAY": site.url}
    said: list[Any] = []
    before = charges(site.hospitals)
    for command in blocks("sh"):
        assert command.startswith("curl ")
        answers = [found for found in said if "question_id" in found]
        if answers:
            known["QUESTION_ID"] = answers[-1]["question_id"]
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **known},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said.append(json.loads(done.stdout))
    consortium, preview, asked, seen, budget = said
    assert consortium["projects"] == ["stroke"]
    assert preview["cost"]["epsilon"] == asked["answer"]["epsilon"] == 0.2
    assert seen == asked
    assert budget["yours"]["answers"] == 1
    assert charges(site.hospitals) == before + 1


def test_every_command_in_the_guide_exists_with_its_options() -> None:
    """Parsed, not run: `--help` beside the options shows that the command takes them."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    found = [re.search(r"fedtwin (.*?)\)?$", line) for line in lines if "fedtwin" in line]
    commands = [match.group(1).split() for match in found if match]
    assert len(commands) == 6
    for words in commands:
        done = CliRunner().invoke(get_command(app), [*words, "--help"])
        assert done.exit_code == 0, (words, done.output)
        for option in (word for word in words if word.startswith("--")):
            assert option in done.output


def test_every_code_in_the_guide_is_one() -> None:
    table = GUIDE.read_text().split("### When it says no")[1].split("## Limits")[0]
    codes = [
        code
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for code in re.findall("`(.*?)`", row)
    ]
    known = {kind.code for kind in problems.OURS} | {
        problems.refusal(code).code for code in problems.RefusalCode
    }
    assert codes
    spelled = [code if not code.startswith("-") else "idempotency-key" + code for code in codes]
    assert set(spelled) <= known
