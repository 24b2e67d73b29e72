"""`fedtwin node doctor` on the data: good enough, mapped, encrypted for whom, and nothing left lying."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from fedtwin.doctor import Finding, Health
from fedtwin.doctor_data import key_holder
from node.key_holder import trust
from privacy.encryption import SCHEMES
from protocols.clock import SystemClock
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.test_cli_node_ingest import about, write
from tests.network.consortium import Consortium

DEMAND = "\n[quality]\nmin_pass_rate = {}\nmin_mapping_coverage = {}\nmax_age_days = 30\n"


def found(fedtwin: Fedtwin, home: Path) -> dict[str, tuple[str, str, str]]:
    said = fedtwin("node", "doctor", "--home", home, "--json").json
    return {check["check"]: (check["health"], check["seen"], check["to_do"]) for check in said["checks"]}


def test_a_node_without_data_has_nothing_to_check(fedtwin: Fedtwin, hospital: Path) -> None:
    said = found(fedtwin, hospital)
    assert [said[name][0] for name in ("quality", "mapping", "leftovers")] == ["OK", "OK", "OK"]
    assert fedtwin("node", "status", "--home", hospital, "--json").json["data"] == {
        "checked_at": None, "pass_rate": None, "mapped": None, "joins_studies": None,
    }  # fmt: skip


def test_data_are_held_to_what_the_policy_asks(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    fedtwin("node", "policy", "init", "cautious", "--home", hospital)
    fedtwin("node", "ingest", write(tmp_path / "in", "a.ndjson", *about("p1")), "--home", hospital)
    health, seen, to_do = found(fedtwin, hospital)["quality"]
    assert (health, to_do) == ("WARN", "fedtwin node quality")
    assert "never" in seen

    policy = hospital / "policy.toml"
    whole = policy.read_text()
    policy.write_text(whole + DEMAND.format(0.5, 0.01))
    assert found(fedtwin, hospital)["quality"][0] == "FAIL"  # no report
    fedtwin("node", "quality", "--home", hospital)
    said = found(fedtwin, hospital)
    assert said["quality"][0] == "OK"
    assert "of checks passed" in said["quality"][1]
    assert said["mapping"][0] == "OK"
    status = fedtwin("node", "status", "--home", hospital, "--json").json["data"]
    assert status["joins_studies"] is True
    assert 0 < status["mapped"] < 1

    policy.write_text(whole + DEMAND.format(0.5, 1.0))
    said = found(fedtwin, hospital)
    assert said["quality"][0] == "FAIL"
    health, seen, to_do = said["mapping"]
    assert health == "WARN"
    assert "condition_occurrence" in seen  # SNOMED is not in the starter vocabulary
    assert "fedtwin node map suggest" in to_do

    policy.write_text(whole + DEMAND.format(0.5, 0.01))
    fedtwin("node", "ingest", write(tmp_path / "in", "b.ndjson", *about("p2")), "--home", hospital)
    health, seen, to_do = found(fedtwin, hospital)["quality"]
    assert (health, to_do) == ("WARN", "fedtwin node quality")
    assert "changed since" in seen


def test_what_a_killed_process_left_is_found_once_it_is_old(fedtwin: Fedtwin, hospital: Path) -> None:
    names = (".policy.toml.0badf00d", "pulled/data/Patient.000.ndjson.part", "signals/.drafts/x.parquet")
    for name in names:
        path = hospital / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2**20)
    assert found(fedtwin, hospital)["leftovers"][0] == "OK"  # somebody may be writing them
    for path in [hospital / name for name in names] + [hospital / "signals" / ".drafts"]:
        os.utime(path, (time.time() - 7200,) * 2)
    health, seen, to_do = found(fedtwin, hospital)["leftovers"]
    assert (health, seen.partition(":")[0]) == ("WARN", "3.0 MiB")
    assert "Patient.000.ndjson.part" in seen
    assert "remove" in to_do


@pytest.fixture
def encrypting(tmp_path: Path) -> Consortium:
    """A consortium that encrypts, with a hospital that joined it."""
    try:
        SCHEMES["bfv"].require()
    except ValueError:
        pytest.skip("needs the extra bfv")
    made = Consortium(tmp_path, sites=1, secure_sum="bfv")
    made.found()

    async def enrolled() -> None:
        async with made.coordinator():
            await made.enrol(0)

    asyncio.run(enrolled())
    return made


def test_an_encrypting_consortium_needs_the_trusted_key_holder(encrypting: Consortium) -> None:
    home = encrypting.node(0).path

    def said() -> Finding:
        return key_holder(home, SystemClock())

    assert (said().health, said().seen) == (Health.WARN, "the roster lists none yet")
    trust(home, "0" * 64)
    assert (said().health, said().to_do) == (Health.WARN, "ask the lead")
