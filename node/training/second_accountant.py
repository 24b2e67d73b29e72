"""What Opacus' accountant says of a plan's noise: an opinion that does not come from our own code.

A mistake in how noise is calibrated would be made alike at every hospital and at the coordinator, and no
ledger would notice. So a node trains a plan only if another library too, by Rényi accounting (Mironov 2017)
or by its own convolutions, says that all its steps together cost about what the plan claims.
"""

from __future__ import annotations

import threading
import warnings
from functools import lru_cache

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant

from privacy import study_noise, study_releases, validation
from protocols.study import Study

# Rényi accounting is an upper bound, 3 to 25 % above the exact curve for ε of .01 to 50, δ of 1e-9 to 1e-4.
# PRV accounting of samples is 2 % above ours (for ε of .1 to 8), and .7 times the noise is 50 % above.
LOOSENESS = 1.3
_WHOLE = (*range(2, 64), *(2**k for k in range(6, 11)))
_ORDERS = (*(1.0 + tenth / 10.0 for tenth in range(1, 100)), *range(11, 64), *(2**k for k in range(6, 16)))

# What is done about warnings holds for all threads: of two inside, the first to leave would set the other's
# aside. numpy's own hold for one thread.
_ONE_AT_A_TIME = threading.Lock()


class AccountantsDisagree(Exception):
    """A fault: by Opacus' accountant a plan costs more than it claims. Nothing was read or charged."""

    def __init__(self, *, claimed: float, found: float) -> None:
        super().__init__(f"a plan that claims epsilon {claimed:g} costs {found:g} by a second accountant")
        self.claimed = claimed
        self.found = found


def check(study: Study) -> None:
    """Raises: AccountantsDisagree if the plan's noise does not make its claim true by this accountant."""
    privacy, sums = study.privacy, study.training.steps
    looks = validation.looks(study)
    look = validation.noise_multipliers(study)[1] if looks else 0.0
    rate, releases = study_releases.sampling_rate(study), sums * study_releases.per_sum(study)
    multiplier = study_noise.event(study, steps=sums).noise_multiplier
    found = opinion(multiplier, releases, privacy.delta, rate=rate, look=look, looks=looks)
    if found > LOOSENESS * privacy.epsilon:
        raise AccountantsDisagree(claimed=privacy.epsilon, found=found)


@lru_cache(maxsize=128)
def opinion(
    noise_multiplier: float,
    steps: int,
    delta: float,
    *,
    rate: float = 1.0,
    look: float = 0.0,
    looks: int = 0,
) -> float:
    """Return Opacus' ε of `steps` Gaussian releases of samples, and `looks` with the multiplier `look`.

    Of releases of all patients by Rényi accounting. Of true samples the smaller of that and its PRV
    accountant's (Gopi, Lee, Wutschitz 2021), which is tight, but says little where ε is large.
    """
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    if looks:
        accountant.history.append((look, 1.0, looks))
    with _ONE_AT_A_TIME, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # it warns where a wider range of orders could say less
        found = float(accountant.get_epsilon(delta, alphas=list(_ORDERS if rate == 1.0 else _WHOLE)))
        if rate == 1.0:
            return found
        tight = PRVAccountant()
        tight.history = accountant.history
        try:
            return min(found, float(tight.get_epsilon(delta, eps_error=0.02 * min(found, 1.0))))
        except (ArithmeticError, MemoryError, RuntimeError, ValueError):
            return found
