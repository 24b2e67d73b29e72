"""Noise of local training that is smaller than it should be, where it is drawn."""

import pytest

from node.training.local_sgd import LatticeOptimizer


def weaken_local_noise(monkeypatch: pytest.MonkeyPatch, *, share: float) -> None:
    """Leave only so much of the noise that a hospital's optimizer adds to its sums."""
    right = LatticeOptimizer.add_noise

    def wrong(self: LatticeOptimizer) -> None:
        right(self)
        [params] = self.params
        exact = params.summed_grad.numpy()
        self.noisy_sum = exact + share * (self.noisy_sum - exact)
        params.grad.copy_(params.grad.new_tensor(self.noisy_sum))

    monkeypatch.setattr(LatticeOptimizer, "add_noise", wrong)
