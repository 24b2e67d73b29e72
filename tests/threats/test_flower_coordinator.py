"""A coordinator that lies over Flower gets codes of a closed list: no code runs, no text leaves."""

import asyncio
import json
import ssl
from pathlib import Path

import httpx
import pytest

from coordinator.flower.control_api import RunState
from node.flower.client_app import FIRST_ERROR_CODE
from node.flower.runtime_api import RuntimeApi, RuntimeApiError
from protocols.ids import NodeId
from protocols.refusal import RefusalCode
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from tests.network.flower_sites import Network, OpenSums, flower_network
from tests.protocols.study_forms import study_form
from tests.threats.hostile_bundle import hostile_bundle
from tests.threats.process_memory import holds

SECRET = "Jane Example, MRN 4711"
WITHIN_S = 120.0


async def finished(network: Network, run_id: int) -> RunState:
    async with asyncio.timeout(WITHIN_S):
        while True:
            runs = [run for run in await network.deployment.superlink.control.runs() if run.run_id == run_id]
            if runs and runs[0].status == "finished":
                return runs[0]
            await asyncio.sleep(0.1)


def test_a_bundle_with_hostile_code_executes_nothing_at_the_hospital(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2) as network:
            out = tmp_path / "replies.json"
            control = network.deployment.superlink.control
            config = {"out": str(out), "sites": 2}
            run_id = await control.start_run(hostile_bundle(), config=config)
            await finished(network, run_id)
            said = json.loads(out.read_text())
            malformed = _as_error(RefusalCode.MALFORMED)
            assert said.pop("unapproved plan") == [_as_error(RefusalCode.NOT_APPROVED)] * 2
            assert len(said) == 11
            assert all(replies == [malformed] * 2 for replies in said.values()), said
            assert [site.supernode.tasks_done for site in network.sites] == [12, 12]
            for site in network.sites:
                assert not list(site.folder.rglob("EXECUTED-BY-*"))
                assert not list(site.folder.rglob("*.py"))  # the bundle was not even unpacked

    asyncio.run(scenario())


class Leaky:
    """A trainer whose error quotes a patient."""

    def __init__(self, study: Study, sums: OpenSums, node: NodeId) -> None:
        pass

    def train(self, request: RoundRequest) -> RoundReply:
        raise ValueError(SECRET)


def test_the_text_of_an_exception_never_reaches_the_coordinator(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2, trainers=Leaky) as network:
            started = await network.run(name="leaky")
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.refusal) == ("failed", RefusalCode.INTERNAL)
            state = await finished(network, started.run_id)
            assert state.sub_status == "failed"
            superlink = network.deployment.superlink.pid  # what it knows stands in its memory alone
            assert superlink is not None
            hospital = str(network.sites[0].node)
            assert holds(superlink, hospital.encode(), SECRET.encode()) == [True, False]

    study = Study.from_json(study_form(sites__minimum=2, sites__tolerance=0))
    assert study.sites.minimum == 2
    asyncio.run(scenario())
    searched = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "status.json" for path in searched)
    for path in searched:
        assert b"Jane Example" not in path.read_bytes(), path


def test_a_plan_that_no_hospital_approved_fails_with_that_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2) as network:
            other = Study.from_json(study_form(sites__minimum=2, sites__tolerance=0, study__name="other"))
            started = await network.run(other, name="other")
            status = started.folder.status()
            assert status is not None
            assert (status.state, status.refusal) == ("failed", RefusalCode.NOT_APPROVED)
            assert network.sums.opened == 1  # and it is not tried again

    asyncio.run(scenario())


def test_the_runtime_api_answers_nobody_without_the_secret(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=2) as network:
            address = network.sites[0].supernode.runtime_address
            await network.run()  # so that it is up
            bare = httpx.post(
                f"http://{address}/v1/runtime/acquire-task",
                headers={"content-type": "application/protobuf"},
                trust_env=False,
            )
            assert bare.status_code in (400, 401)
            wrong = RuntimeApi(address, secret=b"guess")
            with pytest.raises(RuntimeApiError) as refused:
                wrong.acquire()
            assert refused.value.status == 401
            wrong.close()

    asyncio.run(scenario())


def test_control_and_runtime_calls_do_not_pass_the_gateway(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with flower_network(tmp_path, sites=0) as network:
            base = f"https://127.0.0.1:{network.deployment.fleet_port}"
            ca = str(tmp_path / "ca" / "ca.crt")
            async with httpx.AsyncClient(
                verify=ssl.create_default_context(cafile=ca), trust_env=False
            ) as client:
                assert (await client.get(f"{base}/health")).status_code == 200
                for path in ("control/list-nodes", "control/start-run", "runtime/acquire-task"):
                    assert (await client.post(f"{base}/v1/{path}")).status_code == 404

    asyncio.run(scenario())


def _as_error(code: RefusalCode) -> dict[str, object]:
    return {"code": FIRST_ERROR_CODE + list(RefusalCode).index(code), "reason": code.value}
