"""DP-SGD at one site, between two secure sums: Opacus' optimizer, this project's clipping and noise.

Guarantee: each of the `local_steps` is one Poisson-subsampled Gaussian release of the plan's noise multiplier
(privacy.study_releases), whatever the model it starts from, so the update is private before it is masked: no
trust in the sum is needed. Everything after the noise (momentum, the pull of FedProx, Scaffold's correction,
clipping the update) is post-processing.

How a step is made:

- The sample is drawn by `node.training.sampling`.
- Clipping is by book-keeping (node.training.gradient): fast gradient clipping in one backward pass. Opacus'
  own ways give the same sums (tests/node/test_local_sgd.py holds it against both); on one core they took, for
  512 patients and 26 thousand parameters, 34 times (hooks) and 1.4 times (ghost) as long. And ghost clipping
  takes a second backward pass: what is summed is then not bit for bit what was measured, which parameters
  made up by a hostile coordinator could use.
- The noise is not Opacus': its generator is torch's, and `secure_mode` needs a package that does not exist
  for current versions. It is the discrete Gaussian from the node's source of secrets, on the sum as a whole.
- Accumulating, scaling and stepping are Opacus' `DPOptimizerFastGradientClipping`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizerFastGradientClipping

from node.features.table import FeatureTable
from node.training import sampling
from node.training.gradient import Sums, clipped_sums
from privacy import server_step, study_noise
from privacy.rng import SecureBits
from privacy.server_step import ServerStep
from protocols.study import Study

Vector = NDArray[np.float64]
Watch = Callable[[Vector, FeatureTable, Vector], None]  # where a step is taken, its sample, its noisy sum


@dataclass(slots=True, eq=False)
class Site:
    """What a site keeps to itself over a run: its source of secrets, and Scaffold's control variate.

    The variate follows from noisy steps alone, which the ledger has charged before it is kept: it says no
    more of a patient than they do. It is the site's own all the same, and leaves only inside sums.

    Args: noisy, False for comparisons on data that is nobody's; watch, for attacks on made-up patients;
        control, the variate that is in the sums so far; next_control, that of a sum that is not opened yet.
    """

    bits: SecureBits
    noisy: bool = True
    watch: Watch | None = field(default=None, repr=False)
    control: Vector | None = field(default=None, repr=False)
    next_control: Vector | None = field(default=None, repr=False)

    def settle(self) -> Vector | None:
        """Take the variate of the sum that was just opened, and return it; None if the plan has none."""
        if self.next_control is None:
            return None
        self.control, self.next_control = self.next_control, None
        return self.control


def contribution(
    study: Study, walk: ServerStep, table: FeatureTable, *, site: Site, own: Vector | None = None
) -> Sums:
    """Return the site's vector for the walk's next sum: its update, and what goes with it, in [-1, 1].

    Beside it, the site's own part of the model as the same steps left it.
    Guarantee: as of the module; and the vector's L2 norm is at most √3, so that no site moves a sum by more.
    """
    plan = server_step.section(study)
    control = site.control if site.control is not None else np.zeros(study.parameters)
    own = np.zeros(study.local_parameters) if own is None else own
    params, own = trained(study, walk, table, site=site, control=control, own=own)
    parts = [_within((params - walk.params) / plan.update_clip)]
    if plan.aggregator == "scaffold":
        bound = server_step.control_bound(study)
        scale = plan.local_steps * study.training.learning_rate
        parts.append(_within((control - walk.control - parts[0] * (plan.update_clip / scale)) / bound))
        site.next_control = parts[1] * bound
    return Sums(np.concatenate([*parts, np.ones(1)]), own)


def trained(
    study: Study, walk: ServerStep, table: FeatureTable, *, site: Site, control: Vector, own: Vector
) -> tuple[Vector, Vector]:
    """Return the model and the own part after the site's local steps; not clipped yet, and private."""
    plan = server_step.section(study)
    params = torch.nn.Parameter(torch.from_numpy(walk.params.copy()))
    mine = torch.nn.Parameter(torch.from_numpy(own.copy())) if own.size else None
    optimizer = LatticeOptimizer(study, params, site=site, own=mine)
    pull = torch.from_numpy(walk.params.copy())
    correction = torch.from_numpy(walk.control - control)

    def after_the_noise(_: Any) -> None:
        grad = params.grad
        assert grad is not None  # the optimizer has just put it there
        if plan.aggregator == "fedprox":
            grad += plan.proximal * (params.detach() - pull)
        if plan.aggregator == "scaffold":
            grad += correction

    optimizer.attach_step_hook(after_the_noise)
    for _ in range(plan.local_steps):
        here, own_here = _numbers(params), own if mine is None else _numbers(mine)
        if not (np.isfinite(here).all() and np.isfinite(own_here).all()):
            break  # nothing can be learnt from here; `contribution` sends no update
        sample = sampling.drawn(table, rate=plan.sampling_rate, bits=site.bits)
        optimizer.zero_grad()
        sums = clipped_sums(study, here, sample, own=own_here)
        params.grad = torch.from_numpy(sums.shared)
        if mine is not None:
            mine.grad = torch.from_numpy(sums.own)
        optimizer.step()
        if site.watch is not None:
            site.watch(np.append(here, own_here), sample, optimizer.noisy_sum)
    after = own if mine is None else _numbers(mine)
    return _numbers(params), after if np.isfinite(after).all() else own


class LatticeOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc] # opacus has no types
    """Opacus' optimizer over one flat parameter, whose noise is discrete and from a secure source.

    It takes the sum of clipped gradients in `params.grad` (and that for the site's own part, which no `l2`
    shrinks), adds the noise of the plan, divides by the public number of patients that are expected in a
    sample at one site, and lets SGD take its step.
    """

    def __init__(
        self, study: Study, params: torch.nn.Parameter, *, site: Site, own: torch.nn.Parameter | None = None
    ) -> None:
        training, privacy = study.training, study.privacy
        groups: list[dict[str, Any]] = [{"params": [params], "weight_decay": training.l2}]
        if own is not None:
            groups.append({"params": [own]})
        inner = torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
        super().__init__(
            inner,
            noise_multiplier=study_noise.noise_multiplier(study) if site.noisy else 0.0,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=expected_sample(study),
            loss_reduction="mean",
        )
        self._noise = study_noise.step_noise_plan(study)
        self._site = site
        self.noisy_sum: Vector = np.zeros(study.parameters + study.local_parameters)

    def add_noise(self) -> None:
        """Put the sum with the noise of one release into the gradient."""
        exact = np.concatenate([params.summed_grad.numpy() for params in self.params])
        noisy = self._noise.contribution(exact, bits=self._site.bits) if self._site.noisy else None
        self.noisy_sum = exact.copy() if noisy is None else self._noise.decode(noisy)
        at = 0
        for params in self.params:
            params.grad = torch.from_numpy(self.noisy_sum[at : at + len(params)].copy())
            at += len(params)


def expected_sample(study: Study) -> float:
    """Return how many patients a local step is divided by: public, from the plan alone."""
    plan = server_step.section(study)
    return plan.sampling_rate * study.training.expected_patients / study.sites.minimum


def _numbers(params: torch.nn.Parameter) -> Vector:
    return params.detach().numpy().copy()


def _within(vector: Vector) -> Vector:
    """Return the vector scaled down to an L2 norm of at most 1; zeros if it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt(np.sum(vector * vector)))
    if not np.isfinite(norm):
        return np.zeros(len(vector))
    return vector if norm <= 1.0 else vector * ((1.0 - 1e-12) / norm)
