"""Local training: what Opacus computes, noise of our own, and updates that cannot wrap or weigh too much."""

import math
import warnings

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer

from node.features.table import FeatureTable
from node.training import inputs, local_sgd, models
from node.training.gradient import sum_of_clipped_grads
from node.training.local_sgd import LatticeOptimizer, Site
from node.training.losses import losses
from privacy import descent, server_step, study_noise, walks
from privacy.accountant import SampledGaussianEvent, epsilon
from privacy.descent import NotFinite
from privacy.lanes import LaneVector, laid
from privacy.lattice import NotEncodable
from privacy.rng import SecureBits
from privacy.server_step import ServerStep
from privacy.update_sums import UpdateSums
from protocols.study import Study
from sim.federation import MaskedSums, Noise, federate
from sim.privacy_audit import made_up
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import fusion_form, study_form

LOCAL = {"local_steps": 4, "sampling_rate": 0.5, "update_clip": 0.5}


def plan(form: dict | None = None, **local: object) -> Study:
    form = study_form() if form is None else form
    form["training"]["mode"] = "local"
    return Study.from_json(form | {"local": LOCAL | local})


def table(study: Study, patients: int = 60, seed: int = 1) -> FeatureTable:
    [found] = made_up(study, sites=1, patients=patients, generator=np.random.default_rng(seed))
    return found


# ---- gradients: ours against Opacus' two ways ----


class StudyModule(torch.nn.Module):
    """A study's model as Opacus wants it: linear layers by name, around the very forward that nodes use."""

    def __init__(self, study: Study, params: np.ndarray) -> None:
        super().__init__()
        self.study = study
        self.layers = torch.nn.ModuleDict()
        for name, (weights, biases) in descent.unpacked(study.layout, params).items():
            layer = torch.nn.Linear(weights.shape[1], weights.shape[0], dtype=torch.float64)
            layer.weight.data = torch.from_numpy(weights.copy())
            layer.bias.data = torch.from_numpy(biases.copy())
            self.layers[name.replace(".", "/")] = layer

    def __contains__(self, name: str) -> bool:
        return name.replace(".", "/") in self.layers

    def use(self, name: str, into: torch.Tensor) -> torch.Tensor:
        rows = into.reshape(len(into), -1, into.shape[-1])  # Opacus takes at most one dimension of tokens
        out = self.layers[name.replace(".", "/")](rows[:, 0] if rows.shape[1] == 1 else rows)
        return out.reshape(*into.shape[:-1], -1)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        module = self

        class Layers:
            def __call__(self, name: str, into: torch.Tensor) -> torch.Tensor:
                return module.use(name, into)

            def __contains__(self, name: str) -> bool:
                return name in module

        return models.forward(self.study, Layers(), x, present)  # type: ignore[arg-type] # it acts like one


def by_opacus(study: Study, params: np.ndarray, rows: FeatureTable, *, ghost: bool) -> np.ndarray:
    seen = inputs.views(study, inputs.presence(study, rows), rows.person_ids, params)
    present = torch.from_numpy(seen).double()
    x = torch.from_numpy(rows.x).double()[:, None].expand(-1, present.shape[1], -1)
    y = torch.from_numpy(rows.y).double()
    bare = StudyModule(study, params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about hooks on inputs that need no gradient
        if ghost:
            module = GradSampleModuleFastGradientClipping(
                bare, loss_reduction="sum", max_grad_norm=study.privacy.clip_norm, use_ghost_clipping=True
            )
            each = losses(study.outcome, module(x, present), y).mean(dim=1)
            each.sum().backward(retain_graph=True)
            factors = module.get_clipping_coef()
            module.zero_grad()
            module.disable_hooks()
            (factors * each).sum().backward()
            return torch.cat([p.grad.flatten() for p in bare.parameters()]).numpy()
        module = GradSampleModule(bare, loss_reduction="sum")
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=study.privacy.clip_norm,
            expected_batch_size=1,
        )
        losses(study.outcome, module(x, present), y).mean(dim=1).sum().backward()
        optimizer.clip_and_accumulate()
        return torch.cat([p.summed_grad.flatten() for p in optimizer.params]).numpy()


@pytest.mark.parametrize("ghost", [False, True], ids=["hooks", "ghost"])
@pytest.mark.parametrize(
    "form",
    [
        study_form(privacy__clip_norm=0.4),
        study_form(study__model="mlp", study__hidden=[5, 4], privacy__clip_norm=0.3),
        *(
            fusion_form(kind, privacy__clip_norm=0.3)
            for kind in ("early", "intermediate", "late", "attention")
        ),
        fusion_form("attention", privacy__clip_norm=0.3, fusion__modality_dropout=0.4, fusion__views=3),
    ],
    ids=["logistic", "mlp", "early", "intermediate", "late", "attention", "views"],
)
def test_clipped_sums_are_those_of_opacus_for_every_model(form: dict, ghost: bool) -> None:
    study = Study.from_json(form)
    params = descent.initial(study) + np.random.default_rng(2).normal(0, 0.3, study.parameters)
    rows = table(study)
    ours = sum_of_clipped_grads(study, params, rows)
    theirs = by_opacus(study, params, rows, ghost=ghost)
    scale = study.privacy.clip_norm * len(rows)
    assert np.abs(ours - theirs).max() < 1e-5 * scale  # Opacus adds 1e-6 to each norm
    unclipped = sum_of_clipped_grads(plan_with(study, 1e6), params, rows)
    assert np.abs(unclipped - theirs).max() > 1e-3 * scale, "here clipping matters"


def plan_with(study: Study, clip_norm: float) -> Study:
    form = study.to_json()
    form["privacy"]["clip_norm"] = clip_norm
    return Study.from_json(form)


# ---- the noise of a step ----


def test_a_step_carries_the_plans_noise_from_the_nodes_own_source_and_half_is_seen() -> None:
    study = plan(study_form(study__model="mlp", study__hidden=[200]))
    expected = study_noise.noise_multiplier(study) * study.privacy.clip_norm

    def noise(bits: SecureBits) -> np.ndarray:
        seen: list[np.ndarray] = []

        def watch(here: np.ndarray, sample: FeatureTable, noisy: np.ndarray) -> None:
            seen.append(noisy - sum_of_clipped_grads(study, here, sample))

        site = Site(bits, watch=watch)
        local_sgd.contribution(study, ServerStep(study, descent.initial(study)), table(study), site=site)
        return np.array(seen)

    torch.manual_seed(1)
    first = noise(SeededBits(2))
    torch.manual_seed(1)
    second = noise(SeededBits(3))
    assert first.shape == (4, study.parameters)
    assert first.std() == pytest.approx(expected, rel=0.04)  # 6404 draws: 4.5 standard errors
    assert first.std() != pytest.approx(expected / 2, rel=0.04)
    streams = np.concatenate([first, second])
    apart = np.corrcoef(streams)[np.triu_indices(8, 1)]
    assert np.abs(apart).max() < 5.0 / math.sqrt(study.parameters), "a torch seed repeats no noise"
    repeated = np.concatenate([noise(SeededBits(1)), noise(SeededBits(1))])
    assert np.abs(np.corrcoef(repeated)[np.triu_indices(8, 1)]).max() > 0.99, "noise used twice is seen"


def test_an_empty_sample_is_a_step_of_noise_not_a_step_left_out() -> None:
    study = plan()
    steps: list[int] = []
    site = Site(SecureBits(), watch=lambda here, sample, noisy: steps.append(len(sample)))
    walk = ServerStep(study, descent.initial(study))
    vector = local_sgd.contribution(
        study, walk, table(study).rows(np.zeros(60, dtype=bool)), site=site
    ).shared
    assert steps == [0, 0, 0, 0]
    assert np.linalg.norm(vector[:-1]) > 0.0


@pytest.mark.parametrize("sites", [1, 2])
def test_a_sum_is_charged_as_all_local_steps_at_all_of_a_patients_sites(sites: int) -> None:
    study = plan(study_form(privacy__max_sites_per_patient=sites))
    event = study_noise.event(study, steps=study.training.steps)
    assert isinstance(event, SampledGaussianEvent)
    assert (event.sampling_rate, event.count) == (0.5, 6 * 4 * sites)
    assert 0.99 < epsilon([event], delta=1e-5) <= 1.0
    noise = study_noise.step_noise_plan(study)
    assert noise.sigma == pytest.approx(event.noise_multiplier * study.privacy.clip_norm)
    assert epsilon([event.times(event.count + 24)], delta=1e-5) > 1.0
    if sites == 2:
        assert noise.sigma > study_noise.step_noise_plan(plan()).sigma


def test_without_noise_and_samples_it_is_plain_sgd() -> None:
    form = study_form(training__momentum=0.5, training__l2=0.1, training__learning_rate=0.2)
    study = plan(form, sampling_rate=1.0, update_clip=1e5)
    start, rows = descent.initial(study), table(study)
    params, velocity = start.copy(), np.zeros(study.parameters)
    for _ in range(4):
        gradient = sum_of_clipped_grads(study, params, rows) / (200 / 3) + 0.1 * params
        velocity = 0.5 * velocity + gradient
        params = params - 0.2 * velocity
    found = local_sgd.contribution(
        study, ServerStep(study, start), rows, site=Site(SecureBits(), noisy=False)
    ).shared
    assert np.allclose(found[:-1] * 1e5, params - start, atol=1e-12)


# ---- what leaves ----


@pytest.mark.parametrize("aggregator", ["fedavg", "scaffold"])
@pytest.mark.parametrize("start", [0.0, 50.0, 1.7e308], ids=["start", "far", "absurd"])
def test_no_update_is_larger_than_the_plan_says_whatever_the_model(aggregator: str, start: float) -> None:
    study = plan(study_form(training__learning_rate=900.0), aggregator=aggregator)
    site = Site(SecureBits())
    with np.errstate(over="ignore", invalid="ignore"):
        vector = local_sgd.contribution(
            study, ServerStep(study, np.full(study.parameters, start)), table(study), site=site
        ).shared
    sums = UpdateSums(participants=4, tolerance=1, dimension=walks.vector_length(study))
    assert sums.encode(vector) is not None
    size = study.parameters
    assert np.linalg.norm(vector[:size]) <= 1.0
    assert np.linalg.norm(vector) <= math.sqrt(3.0)
    if start == 50.0:
        assert np.linalg.norm(vector[:size]) > 0.999, "it was scaled down, not cut off"


def test_sums_of_updates_never_wrap_and_what_does_not_fit_is_refused() -> None:
    sums = UpdateSums(participants=2**14, tolerance=1, dimension=3)
    assert sums.lanes == UpdateSums(participants=3, tolerance=1, dimension=3).lanes == 2
    for sign in (1.0, -1.0):
        words = laid(sums.encode(np.full(3, sign)), lanes=sums.lanes)
        total = LaneVector((words * np.uint64(2**14)).astype(np.uint64), 3, sums.lanes)
        assert np.array_equal(sums.decode(total.signed()), np.full(3, sign * 2.0**14))
    assert sums.standard_deviation(contributors=2**14) == 0.0
    assert not sums.noise(bits=SecureBits()).any()
    for bad in (np.full(3, 1.1), np.full(3, np.nan), np.ones(2), np.ones(3, dtype=np.int64)):
        with pytest.raises(NotEncodable):
            sums.encode(bad)


def test_the_masks_cancel_over_updates_and_only_the_sum_is_left() -> None:
    study = plan()
    sums = study_noise.private_plan(study, participants=4, tolerance=1)
    vectors = [np.random.default_rng(n).uniform(-1, 1, 8) for n in range(4)]
    masked = MaskedSums(study, 4, round_=1, bits=SecureBits())
    total = sums.decode(masked.add([sums.encode(v) for v in vectors], step=0))
    assert np.allclose(total, np.sum(vectors, axis=0), rtol=0.0, atol=4 * 2.0**-27)


# ---- what all make of it ----


def total_of(study: Study, *updates: np.ndarray) -> np.ndarray:
    clip = server_step.section(study).update_clip
    return np.append(np.sum(updates, axis=0) / clip, float(len(updates)))


def test_fedavg_moves_by_the_mean_of_the_sites_that_are_in_the_sum() -> None:
    study = plan(server_learning_rate=0.5)
    updates = [np.random.default_rng(n).normal(0, 0.01, study.parameters) for n in range(3)]
    walk = ServerStep(study, np.zeros(study.parameters))
    assert np.allclose(walk.apply(total_of(study, *updates)), 0.5 * np.mean(updates, axis=0))
    fewer = ServerStep(study, np.zeros(study.parameters))
    assert np.allclose(fewer.apply(total_of(study, *updates[:2])), 0.5 * np.mean(updates[:2], axis=0))


def test_fedadam_takes_first_steps_as_long_as_its_rate() -> None:
    study = plan(aggregator="fedadam", server_learning_rate=0.1)
    update = np.array([0.1, -0.01, 0.001, 0.2, -0.3, 0.0, 0.0])
    moved = ServerStep(study, np.zeros(study.parameters)).apply(total_of(study, update))
    assert np.allclose(moved, 0.1 * np.sign(update), atol=1e-4)


def test_the_pull_of_fedprox_shortens_what_a_site_moves() -> None:
    def moved(study: Study) -> float:
        start, site = descent.initial(study), Site(SecureBits(), noisy=False)
        return float(
            np.linalg.norm(
                local_sgd.contribution(study, ServerStep(study, start), table(study), site=site).shared[:-1]
            )
        )

    free = plan(sampling_rate=1.0, update_clip=1e5)
    pulled = plan(sampling_rate=1.0, update_clip=1e5, aggregator="fedprox", proximal=0.5)
    assert moved(pulled) < 0.9 * moved(free)


def test_scaffold_corrects_the_drift_of_sites_that_pull_apart() -> None:
    """Karimireddy et al. 2020, option II, by hand over two sums."""
    study = plan(
        study_form(training__momentum=0.0, training__learning_rate=0.3),
        sampling_rate=1.0,
        update_clip=50.0,
        aggregator="scaffold",
    )
    rate, steps, size = 0.3, 4, study.parameters
    tables = [table(study, 40, seed) for seed in (1, 2)]
    sites = [Site(SecureBits(), noisy=False) for _ in tables]
    walk = ServerStep(study, descent.initial(study))
    x, c, own = descent.initial(study), np.zeros(size), [np.zeros(size), np.zeros(size)]
    for _ in range(2):
        total = np.sum(
            [
                local_sgd.contribution(study, walk, t, site=s).shared
                for t, s in zip(tables, sites, strict=True)
            ],
            axis=0,
        )
        for site in sites:
            site.settle()
        ends, before = [], [one.copy() for one in own]
        for k, rows in enumerate(tables):
            y = x.copy()
            for _ in range(steps):
                y = y - rate * (sum_of_clipped_grads(study, y, rows) / (200 / 3) - own[k] + c)
            own[k] = own[k] - c + (x - y) / (steps * rate)
            ends.append(y)
        c_next = c + np.mean([now - was for now, was in zip(own, before, strict=True)], axis=0)
        x, c = x + np.mean([y - x for y in ends], axis=0), c_next
        assert np.allclose(walk.apply(total), x, atol=1e-9)
        assert np.allclose(walk.control, c, atol=1e-9)
    assert np.abs(c).max() > 1e-3, "there was something to correct"


def test_a_total_of_no_site_or_of_another_shape_moves_nothing() -> None:
    study = plan()
    walk = ServerStep(study, np.zeros(study.parameters))
    for total in (np.zeros(8), np.full(8, np.nan), np.ones(7)):
        with pytest.raises(NotFinite):
            walk.apply(total)
    assert walk.steps_done == 0


# ---- a whole run ----


@pytest.mark.parametrize("aggregator", ["fedavg", "fedprox", "fedadam", "scaffold"])
def test_a_local_run_learns_and_says_what_it_cost(aggregator: str) -> None:
    from fedtwin.yardsticks import metrics

    rng = np.random.default_rng(4)

    def site(patients: int) -> FeatureTable:
        x = rng.uniform(-1, 1, (patients, 6)).astype(np.float32)
        y = (rng.random(patients) < 1 / (1 + np.exp(-4.0 * (x[:, 0] - x[:, 1])))).astype(np.float32)
        return FeatureTable(np.arange(patients) + 1, x, np.ones(x.shape, bool), y)

    extra = {"proximal": 0.1} if aggregator == "fedprox" else {}
    extra |= {"server_learning_rate": 0.3} if aggregator == "fedadam" else {}
    form = study_form(
        privacy__epsilon=4.0,
        training__expected_patients=1200,
        training__learning_rate=2.0,
        training__momentum=0.0,
    )
    study = plan(form, aggregator=aggregator, update_clip=4.0, **extra)
    run = federate(study, [site(400) for _ in range(3)], noise=Noise.SHARES, bits=SeededBits(1))
    assert 3.95 < run.epsilon <= 4.0
    unseen = site(2000)
    _, auc = metrics(models.logits(study, run.params, unseen.x), unseen.y)
    assert auc > 0.7


def test_an_optimizer_adds_nothing_of_opacus_own_noise() -> None:
    study = plan()
    params = torch.nn.Parameter(torch.zeros(study.parameters, dtype=torch.float64))
    optimizer = LatticeOptimizer(study, params, site=Site(SecureBits(), noisy=False))
    params.grad = torch.ones(study.parameters, dtype=torch.float64)
    optimizer.step()
    assert np.array_equal(optimizer.noisy_sum, np.ones(study.parameters))
