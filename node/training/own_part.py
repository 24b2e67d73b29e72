"""A hospital's own part of a model (an intercept, a head): it never leaves, and costs nothing on top.

While the shared part is trained, what it learns depends on the own part. So that must not say more of a
patient than the budget covers: it follows noisy sums as well. Its gradients are clipped together with the
shared ones (node.training.gradient), and its noise has the whole standard deviation of the total, added by
this site alone. Shared total and own sum together are then one Gaussian mechanism of the plan's sensitivity,
patients known to several sites included, and GaussianEvent(noise multiplier) is what a step costs. A clip
norm that adapts bounds both side by side too, and both are scaled to the plan's before the noise comes. In
local training the own part moves in each local step, with the model, under the noise of that step.

What the site ends with is fitted afterwards (node.training.own_fit). A plan may leave all of it to that: then
nothing here moves, and training is that of a plan without own parts.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.training.gradient import Sums
from privacy import private_files, study_noise
from privacy.inversion import Bits
from privacy.lattice import NoisePlan
from protocols.study import Study

Vector = NDArray[np.float64]


class OwnPart:
    """The own parameters of one run at one site, as its noisy sums move them. Empty if the plan has none."""

    def __init__(self, study: Study, *, bits: Bits, values: Vector | None = None) -> None:
        self._study = study
        self._bits = bits
        self._velocity = np.zeros(study.local_parameters)
        self.values: Vector = np.zeros(study.local_parameters) if values is None else values.copy()
        self._plan = noise_plan(study) if study.local_parameters else None

    def follow(self, found: Sums, *, noisy: bool = True) -> None:
        """Move with what the site has just added to a sum, once that is charged.

        Without noise (`noisy` False) it is for comparisons on data that is nobody's.
        """
        if self._study.local_training is not None:
            self.values = found.own.copy()  # it has its noise
        else:
            self.step(found.own, unit=found.own_unit, noisy=noisy)

    def step(self, own_sum: Vector, *, unit: float = 1.0, noisy: bool = True) -> None:
        """Take one step along the site's own sum of clipped gradients, to which the noise is added here."""
        if self._plan is None:
            return
        if noisy:
            own_sum = self._plan.decode(self._plan.contribution(own_sum, bits=self._bits))
        own_sum = own_sum * unit
        training = self._study.training
        patients_here = (
            training.expected_patients / self._study.sites.minimum
        )  # public, as the step's scale is
        patients_drawn = patients_here * training.sampling_rate
        self._velocity = training.momentum * self._velocity + own_sum / patients_drawn
        self.values = self.values - training.learning_rate * self._velocity


def noise_plan(study: Study) -> NoisePlan:
    """Return how a site's own sum gets all of the noise."""
    return NoisePlan.for_reals(
        sigma=study_noise.noise_multiplier(study) * study.privacy.sensitivity,
        l2_clip_norm=study.privacy.clip_norm,
        sites_per_patient=study.privacy.max_sites_per_patient,
        participants=1,
        tolerance=0,
        dimension=study.local_parameters,
        largest=study_noise.PATIENTS_AT_ONE_SITE * study.privacy.clip_norm,
    )


@dataclass(frozen=True, slots=True)
class OwnParts:
    """The files, 0600, of what a plan's training leaves here and nowhere else, between rounds and after.

    The noisy own part between rounds, the fitted one at the end; and, beside these, Scaffold's control
    variate of this site (node.training.local_sgd.Site), as the last opened sum has it.
    """

    folder: Path

    def load(self, study: Study, *, final: bool = False) -> Vector | None:
        """Return the part that was kept; None if there is none of the plan's size."""
        size = study.own_parameters if final else study.local_parameters
        return self._load(study, ".final" if final else "", size=size)

    def keep(self, study: Study, values: Vector, *, final: bool = False) -> None:
        """Keep a part durably."""
        self._keep(study, ".final" if final else "", values)

    def control(self, study: Study) -> Vector | None:
        """Return the control variate that was kept; None if there is none of the plan's size."""
        return self._load(study, ".control", size=study.parameters)

    def keep_control(self, study: Study, values: Vector) -> None:
        """Keep a control variate durably."""
        self._keep(study, ".control", values)

    def _load(self, study: Study, which: str, *, size: int) -> Vector | None:
        try:
            found = np.load(io.BytesIO(self._file(study, which).read_bytes()), allow_pickle=False)
        except (FileNotFoundError, ValueError):
            return None
        fits = found.shape == (size,) and found.dtype == np.float64
        return found if fits and np.isfinite(found).all() else None

    def _keep(self, study: Study, which: str, values: Vector) -> None:
        private_files.make_folder(self.folder)
        data = io.BytesIO()
        np.save(data, values, allow_pickle=False)
        private_files.write(self._file(study, which), data.getvalue())

    def _file(self, study: Study, which: str) -> Path:
        return self.folder / f"{study.plan_hash().hex()}{which}.npy"
