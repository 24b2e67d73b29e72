"""Hospitals train with noise that is not drawn anew, or not each by itself: the totals alone show it.

Each fault is put where it could be: into the source of secrets that a running hospital draws its noise from,
or into the drawing of a share. All else is as it is in service: stores, ledgers, policies, masks, sums. What
judges is privacy.audit.noise, by the totals that every hospital sees, less what the made-up patients add.
`fedtwin audit` judges by the same. A right source is fresh in each run of these tests: they fail without a
fault once in 10^9 runs, and a planted fault escapes them no more often.
"""

import json
from builtins import bytes as Bytes
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import tomli_w

from fedtwin.cli import run
from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.training.gradient import sum_of_clipped_grads
from privacy import study_noise, walks
from privacy.audit.noise import NoiseSeen, seen
from privacy.descent import Descent, digest
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from protocols.round import RoundReply
from protocols.study import Study
from tests.node.hub import Hospital, Hospitals
from tests.node.test_rounds import fill_all
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form
from tests.threats.faulty_noise import weaken_local_noise

SITES = 4
STUDY = Study.from_json(study_form(study__model="mlp", study__hidden=[64]))
STEPS = STUDY.training.steps
Words = np.ndarray
Plant = Callable[[Hospitals], None]  # puts a fault into hospitals before their next round


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Hospitals]:
    with Hospitals(tmp_path, SITES) as opened:
        fill_all(opened)
        opened.approve(STUDY)
        yield opened


class Ear:
    """Hears each total as nodes take it in, and the model it is a sum of gradients at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # by the total: all sites hear the same
        self.carried: dict[bytes, np.ndarray] = {}  # by its digest
        one_at_a_time, apply = Lock(), Descent.apply

        def listening(walk: Descent, noisy_sum: np.ndarray) -> np.ndarray:
            at, total = walk.params.copy(), noisy_sum.copy()
            params = apply(walk, noisy_sum)
            with one_at_a_time:
                self.steps.setdefault(total.tobytes(), (at, total))
                self.carried[digest(walk.carried)] = walk.carried.copy()
            return params

        monkeypatch.setattr(Descent, "apply", listening)


def training_rows(hospital: Hospital) -> FeatureTable:
    rows = feature_table(STUDY, hospital.store)
    fraction = STUDY.training.train_fraction
    return rows.rows(in_training(rows.person_ids, key=hospital.node.raw, fraction=fraction))


def trained(network: Hospitals, monkeypatch: pytest.MonkeyPatch, plant: Plant | None = None) -> NoiseSeen:
    """Train all rounds at real nodes and return what their totals, less the exact sums, show of the noise."""
    ear, carried = Ear(monkeypatch), walks.initial(STUDY)
    for number in range(1, STUDY.training.rounds + 1):
        if plant is not None:
            plant(network)
        replies = network.round(STUDY, carried, round=number)
        [ended] = {reply.parameters_digest for reply in replies if isinstance(reply, RoundReply)}
        carried = ear.carried[ended]
    tables = [training_rows(hospital) for hospital in network.all]
    assert len(ear.steps) == STEPS
    noise = [
        total - sum(sum_of_clipped_grads(STUDY, at, table) for table in tables)
        for at, total in ear.steps.values()
    ]
    plan = study_noise.noise_plan(STUDY, participants=SITES, tolerance=STUDY.sites.tolerance)
    promised = plan.standard_deviation(contributors=SITES)
    return seen(np.stack(noise)[None], promised_sd=promised)


# ---- at hospitals ----


def test_the_noise_of_hospitals_as_they_are_is_as_promised(
    network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(network, monkeypatch)
    assert found.numbers == STEPS * STUDY.parameters
    assert found.as_promised
    assert found.spread == pytest.approx(1.0, abs=0.08)  # of 3078 numbers: six standard errors


@pytest.mark.parametrize("sites", [1, SITES])
def test_a_share_that_is_kept_for_all_steps_is_seen_even_of_one_site(
    sites: int, network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, Words] = {}
    faulty = {id(hospital.trainer._bits) for hospital in network.all[:sites]}
    right = NoisePlan.noise

    def first_one(plan: NoisePlan, *, bits: SecureBits) -> Words:
        if id(bits) not in faulty:
            return right(plan, bits=bits)
        if id(bits) not in kept:
            kept[id(bits)] = right(plan, bits=bits)
        return kept[id(bits)].copy()

    monkeypatch.setattr(NoisePlan, "noise", first_one)
    found = trained(network, monkeypatch)
    assert len(kept) == sites
    assert found.used_again


@pytest.mark.parametrize("sites", [2, SITES])
def test_sources_that_start_anew_with_each_round_are_seen(
    sites: int, network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a round all is well: the second round's noise is the first's."""

    def plant(hospitals: Hospitals) -> None:
        for seed, hospital in enumerate(hospitals.all[:sites]):
            hospital.trainer._bits = SeededBits(seed)

    found = trained(network, monkeypatch, plant)
    assert found.used_again


def test_two_sites_that_draw_from_one_seed_are_seen(
    network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees a site's noise behind its mask; but equal shares add up where others average out."""
    for hospital in network.all[:2]:
        hospital.trainer._bits = SeededBits(7)
    found = trained(network, monkeypatch)
    assert found.too_large
    assert found.spread == pytest.approx((6 / 4) ** 0.5, abs=0.1)
    assert not found.used_again  # what is drawn from the seed is new in each step


def test_two_sites_with_seeds_of_their_own_are_not_taken_for_one(
    network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, hospital in enumerate(network.all[:2]):
        hospital.trainer._bits = SeededBits(seed)
    assert trained(network, monkeypatch).as_promised


@pytest.mark.parametrize("sites", [2, SITES])
def test_sites_that_leave_their_shares_out_are_seen(
    sites: int, network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = {id(hospital.trainer._bits) for hospital in network.all[:sites]}
    right = NoisePlan.noise

    def left_out(plan: NoisePlan, *, bits: SecureBits) -> Words:
        return right(plan, bits=bits) * np.uint64(id(bits) not in faulty)

    monkeypatch.setattr(NoisePlan, "noise", left_out)
    assert trained(network, monkeypatch).too_small


# ---- by the command, before anybody trains ----


def audited(tmp_path: Path, capfd: pytest.CaptureFixture[str], **changes: object) -> tuple[int, dict]:
    form = study_form(training__rounds=2, training__steps_per_round=2, **changes)
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(form))
    code = run(["audit", str(path), "--runs", "20", "--canaries", "0", "--json"])
    return code, json.loads(capfd.readouterr().out)


LOCAL = {
    "training__mode": "local",
    "local": {"local_steps": 2, "sampling_rate": 0.5, "update_clip": 1.0},
}
MODES = pytest.mark.parametrize("changes", [{}, LOCAL], ids=["shared-noise", "local"])


@MODES
def test_the_command_finds_nothing_wrong_with_noise_as_it_is(
    changes: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, shown = audited(tmp_path, capfd, **changes)
    assert code == 0
    assert shown["noise"]["spread"] == pytest.approx(
        1.0, abs=0.2
    )  # of 640 numbers or more: seven standard errors
    assert not any(shown["noise"][fault] for fault in ("too_small", "too_large", "used_again"))


@MODES
def test_the_command_finds_a_source_that_repeats_itself(
    changes: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the key of the source's streams were kept: each asking gets the same bits."""

    def kept_key(bits: SecureBits, n: int) -> Bytes:
        return SeededBits(1)._stream(n)

    monkeypatch.setattr(SecureBits, "_stream", kept_key)
    code, shown = audited(tmp_path, capfd, **changes)
    assert code == 1
    assert shown["refuted"]
    assert shown["noise"]["used_again"]


def test_the_command_finds_noise_a_tenth_too_small(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few runs of a canary show nothing of it."""
    weaken_local_noise(monkeypatch, share=0.9)
    code, shown = audited(tmp_path, capfd, study__model="mlp", study__hidden=[8], **LOCAL)
    assert code == 1
    assert shown["noise"]["too_small"]
    assert shown["gaussian_bound"] < shown["epsilon"]


# ---- the judge ----


def drawn(generator: np.random.Generator, *shape: int, sd: float = 1.0) -> np.ndarray:
    return generator.normal(0.0, sd, shape)


@pytest.mark.parametrize("shape", [(1, 2, 400), (1, 12, 9), (30, 3, 8), (40, 1, 5), (5, 4, 1)])
def test_false_alarms_are_no_more_frequent_than_stated(shape: tuple[int, int, int]) -> None:
    generator, tries, stated = np.random.default_rng(11), 1000, 0.1
    alarms = sum(
        not seen(drawn(generator, *shape), promised_sd=1.0, false_alarm=stated).as_promised
        for _ in range(tries)
    )
    assert alarms / tries < stated + 3 * (stated * (1 - stated) / tries) ** 0.5


def test_independence_is_judged_whatever_the_size_of_the_noise() -> None:
    generator = np.random.default_rng(12)
    for sd in (0.1, 10.0):
        found = seen(drawn(generator, 1, 6, 500, sd=sd), promised_sd=1.0)
        assert (found.too_small, found.too_large, found.used_again) == (sd < 1.0, sd > 1.0, False)


def test_single_steps_with_the_same_noise_or_its_opposite_are_seen_among_many() -> None:
    for factor in (1.0, -1.0):
        noise = drawn(np.random.default_rng(13), 1, 100, 24)
        assert seen(noise, promised_sd=1.0).as_promised
        noise[0, 70] = factor * noise[0, 5]
        assert seen(noise, promised_sd=1.0).used_again


def test_noise_that_the_next_step_takes_off_again_is_seen() -> None:
    noise = drawn(np.random.default_rng(14), 1, 7, 300)
    assert seen(np.diff(noise, axis=1), promised_sd=2**0.5).used_again


def test_no_noise_is_too_little_noise() -> None:
    found = seen(np.zeros((1, 3, 10)), promised_sd=1.0)
    assert found.too_small
    assert found.spread == 0.0


@pytest.mark.parametrize(
    ("noise", "sd", "alarm"),
    [
        (np.zeros((3, 10)), 1.0, 0.1),
        (np.zeros((0, 3, 10)), 1.0, 0.1),
        (np.full((1, 3, 10), np.nan), 1.0, 0.1),
        (np.zeros((1, 3, 10)), 0.0, 0.1),
        (np.zeros((1, 3, 10)), 1.0, 0.0),
    ],
)
def test_what_cannot_be_judged_is_refused(noise: np.ndarray, sd: float, alarm: float) -> None:
    with pytest.raises(ValueError, match=r"noise is|needs a"):
        seen(noise, promised_sd=sd, false_alarm=alarm)
