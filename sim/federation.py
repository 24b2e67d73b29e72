"""A federated run inside one process: the real gradients, noise, masks and descent, without a network.

For tests and benchmarks, where ten seeds of a run must be affordable. The only things left out are the wire,
the ledger and Flower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.contributions import contribution
from node.training.local_sgd import Site
from node.training.own_part import OwnPart
from privacy import descent, study_noise, walks
from privacy.accountant import epsilon
from privacy.exact_state import exact_sums
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from privacy.secure_sum import SessionParameters, threshold_for
from privacy.sum_collector import SumCollector
from privacy.sum_party import SumParty
from privacy.update_sums import UpdateSums
from privacy.walks import Walk
from protocols.ids import NodeId, SessionId
from protocols.study import Study

Vector = NDArray[np.float64]


class Noise(StrEnum):
    """Who adds how much."""

    SHARES = "shares"  # each site its share, under the secure sum: the total has the noise of one curator
    PER_SITE = "per-site"  # each site all of it, as if the sum were not trusted
    NONE = "none"  # clipping only; not private


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What came out. `epsilon` is infinite without noise; `noise_sd` is per coordinate of one total.

    In local training it is of the sums of one local step at all sites.
    `own` has each site's own part as its noisy sums left it; in a real network it never leaves the site.
    """

    params: Vector
    epsilon: float
    delta: float
    steps: int
    noise_sd: float
    own: tuple[Vector, ...] = ()


def federate(study: Study, tables: Sequence[FeatureTable], *, noise: Noise, bits: SecureBits) -> Run:
    """Return the model of a whole run over `tables`, one per site."""
    if noise is Noise.SHARES and len(tables) < study.sites.minimum:
        raise ValueError(f"the study needs {study.sites.minimum} sites, got {len(tables)}")
    if study.exact is not None:
        return _without_noise(study, tables, bits=bits)
    plan = study_noise.private_plan(
        study,
        participants=len(tables) if noise is Noise.SHARES else 1,
        tolerance=study.sites.tolerance if noise is Noise.SHARES else 0,
    )
    carried = walks.initial(study)
    own = [OwnPart(study, bits=bits) for _ in tables]
    sites = [Site(bits, noisy=noise is not Noise.NONE) for _ in tables]
    for round_ in range(1, study.training.rounds + 1):
        walk = walks.begin(study, carried)
        _round(study, tables, walk, own, sites, round_=round_, noise=noise, plan=plan, bits=bits)
        carried = walk.carried
    spent = study_noise.event(study, steps=study.training.steps)
    sites_adding = len(tables) if noise is not Noise.NONE else 0
    return Run(
        params=carried[: study.parameters],
        epsilon=epsilon([spent], delta=study.privacy.delta) if sites_adding else float("inf"),
        delta=study.privacy.delta,
        steps=study.training.steps,
        noise_sd=_noise_sd(study, plan, sites_adding),
        own=tuple(part.values for part in own),
    )


def _noise_sd(study: Study, plan: NoisePlan | UpdateSums, sites: int) -> float:
    each = study_noise.step_noise_plan(study) if isinstance(plan, UpdateSums) else plan
    return float(each.share_sigma / each.scale) * math.sqrt(sites)


def _without_noise(study: Study, tables: Sequence[FeatureTable], *, bits: SecureBits) -> Run:
    """Return the result of an exact study, under masks as ever."""
    walk = walks.begin(study, walks.initial(study))
    plan = exact_sums(study, participants=len(tables), tolerance=study.sites.tolerance)
    sums = MaskedSums(study, len(tables), round_=1, bits=bits)
    site = Site(bits)  # an exact study draws nothing
    while not walk.finished:
        parts = [contribution(study, walk, table, site=site).shared for table in tables]
        walk.apply(plan.decode(sums.add([plan.encode(part) for part in parts], step=walk.steps_done)))
    return Run(params=walk.params, epsilon=float("inf"), delta=1.0, steps=walk.steps_done, noise_sd=0.0)


def _round(
    study: Study,
    tables: Sequence[FeatureTable],
    walk: Walk,
    own: Sequence[OwnPart],
    sites: Sequence[Site],
    *,
    round_: int,
    noise: Noise,
    plan: NoisePlan | UpdateSums,
    bits: SecureBits,
) -> None:
    sums = MaskedSums(study, len(tables), round_=round_, bits=bits) if noise is Noise.SHARES else None
    for step in range(study.training.steps_per_round):
        both = [
            contribution(study, walk, table, site=site, own=part.values)
            for table, part, site in zip(tables, own, sites, strict=True)
        ]
        grads = [found.shared for found in both]
        for part, found in zip(own, both, strict=True):
            part.follow(found, noisy=noise is not Noise.NONE)
        if sums is not None:
            total = plan.decode(sums.add([plan.contribution(g, bits=bits) for g in grads], step=step))
        elif noise is Noise.PER_SITE:
            total = np.sum([plan.decode(plan.contribution(g, bits=bits)) for g in grads], axis=0)
        else:
            total = np.sum(grads, axis=0)
        walk.apply(total)
        for site in sites:
            site.settle()


class MaskedSums:
    """One round's secure-sum session with every party in this process."""

    def __init__(self, study: Study, sites: int, *, round_: int, bits: SecureBits) -> None:
        self._round = round_
        self._plan_hash = study.plan_hash()
        self._model = descent.digest(walks.initial(study))  # of all sites alike: here nobody could differ
        self.nodes = tuple(sorted(NodeId(bits.bytes(16)) for _ in range(sites)))
        keys = {node: Ed25519PrivateKey.generate() for node in self.nodes}
        parameters = SessionParameters(
            session_id=SessionId(bits.bytes(16)),
            participants=self.nodes,
            threshold=threshold_for(sites, colluders=study.sites.tolerance),
            steps=study.training.steps_per_round,
            purpose=study_noise.session_purpose(self._plan_hash),
            round=round_,
        )
        self.collector = SumCollector(parameters)
        self.parties = {
            node: SumParty(
                parameters,
                me=node,
                signing_key=key,
                peer_keys={peer: other.public_key() for peer, other in keys.items()},
                bits=bits,
                minimum_survivors=max(study.sites.minimum, sites - study.sites.tolerance),
            )
            for node, key in keys.items()
        }
        for node, party in self.parties.items():
            self.collector.advert(node, party.advert())
        adverts = self.collector.adverts()
        for node, party in self.parties.items():
            self.collector.shares(node, party.shares(adverts))
        for node, party in self.parties.items():
            party.deliver(self.collector.outgoing(node))

    def add(self, vectors: Sequence[NDArray[np.uint64]], *, step: int) -> NDArray[np.uint64]:
        """Return the sum of `vectors`, one per site in the order of `nodes`, modulo 2^64."""
        context = study_noise.step_context(self._plan_hash, round=self._round, step=step, model=self._model)
        for (node, party), vector in zip(self.parties.items(), vectors, strict=True):
            masked = party.masked(vector, step=step, context=context)
            self.collector.input(node, masked, step=step, context=context)
        survivors = self.collector.close(step)
        for node in survivors:  # all of them: no party drops out here
            self.collector.reveal(node, self.parties[node].reveal(step=step, survivors=survivors), step=step)
        return self.collector.total(step)
