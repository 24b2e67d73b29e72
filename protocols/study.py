"""A training plan: who is in, what goes into the model, what comes out, at which privacy price.

A study is written as TOML by a consortium lead, read strictly, and approved by each hospital by its hash.
Everything that decides what leaves a hospital stands in it (clip norm, steps, ε), so nothing of that kind is
ever taken from a message:

    [study]     name, project, model = "logistic" | "mlp" | "fusion", hidden = [16],
                local = "none" | "intercept" | "head": a part of each site's own, which never leaves it
                prior_bias: where a logistic model starts, with the `prior` of its features
    [fusion]    kind, width, modality_dropout, views (protocols.study_fusion); of a fusion model only
    [cohort]    a cohort form (protocols.cohort): who is in, and each person's index date
    [outcome]   table, concept_id, kind = "present" | "value" | "class" | "amount" | "time", ...
                (protocols.study_outcome)
    [[features]] name, kind = "value" | "present" | "category" | "age" | "sex", ..., modality
                or, instead of features: feature_set = a set (protocols.feature_set); in a file, the name of
                the set's own file, which `fedtwin train` reads in its place
    [privacy]   epsilon, delta, clip_norm, max_sites_per_patient
    [training]  rounds, steps_per_round, learning_rate, momentum, l2, average, expected_patients,
                train_fraction, optimizer = "momentum" | "adam", mode (privacy.walks),
                sampling_rate: the chance of each patient to be drawn for a step (default 1)
    [own_part]  trained = "along" | "after", kept = "always" | "earned": how sites come by their own parts
                (protocols.study_own_part); may be left out
    [local]     of mode = "local": DP-SGD at each site (protocols.study_local)
    [clipping]  a clip norm that adapts itself (protocols.study_local); may be left out
    [validation] every, fraction, share, loss_bound, metric, patience, min_delta: trying the model while it
                is trained (protocols.study_validation); may be left out
    [exact]     instead of [privacy], if mode = "exact": statistics without noise (protocols.study_exact)
    [one_shot]  row_norm, information_weight, shrinkage, if mode = "one-shot" (protocols.study_one_shot)
    [aggregation] site_patients, encrypted_layers, scheme: how sums are added up
                (protocols.study_aggregation); may be left out
    [sites]     minimum, tolerance, step_deadline_s: who is later with a step's input is cut off
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from protocols import canonical, model_layout
from protocols.cohort import Cohort, MalformedCohort
from protocols.feature_set import FeatureSet
from protocols.model_layout import Layout
from protocols.study_aggregation import USUAL, Aggregation, check_layers, parse_aggregation
from protocols.study_exact import MAX_COEFFICIENTS, Exact, parse_exact
from protocols.study_features import MAX_PRIOR, SHORT_NAME, Feature, modalities, parse_feature
from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_flag,
    checked_float,
    checked_int,
    checked_list,
    checked_name,
    checked_text,
    read_toml,
)
from protocols.study_fusion import LOCAL_PARTS, MAX_MODALITIES, Fusion, Modality, parse_fusion
from protocols.study_local import Clipping, LocalTraining, checked_rate, parse_clipping, parse_local
from protocols.study_one_shot import OneShot, parse_one_shot
from protocols.study_outcome import Outcome, parse_outcome
from protocols.study_own_part import USUAL_OWN_PART, OwnPartPlan, parse_own_part
from protocols.study_validation import Validation, parse_validation

FORMAT = "fedtwin-study-v1"  # part of the hash: another meaning of a key gets another label
MODELS = ("logistic", "mlp", "fusion")
OPTIMIZERS = ("momentum", "adam")
MODES = ("shared-noise", "local", "one-shot", "exact")
MAX_FEATURES = 1024
MAX_LAYERS = 3
MAX_HIDDEN = 8192  # what a node can hold: two such layers are 67 million parameters
MAX_STEPS = 10_000  # of a whole run
MAX_SITES = 1_000
STEP_DEADLINE_S = 60.0  # one gradient over a hospital's patients, and a stream that is cut unnoticed
MAX_STEP_DEADLINE_S = 3_600.0
MAX_PARAMETERS = 100_000_000  # of a model
MAX_CARRIED = 200_000_000  # what a round's request may carry (protocols.round): a model and its velocity


@dataclass(frozen=True, slots=True)
class Privacy:
    """What the whole run costs and promises: (ε, δ) for one patient seen at up to `max_sites_per_patient`."""

    epsilon: float
    delta: float
    clip_norm: float
    max_sites_per_patient: int

    @property
    def sensitivity(self) -> float:
        """L2 distance that one patient can move one step's sum over all sites."""
        return self.clip_norm * self.max_sites_per_patient


# Of a study without noise: no ε is large enough, so whatever asks for one that is finite refuses it.
NO_PRIVACY = Privacy(epsilon=math.inf, delta=1.0, clip_norm=math.inf, max_sites_per_patient=1)


@dataclass(frozen=True, slots=True)
class Training:
    """Gradient descent on all patients, or on samples.

    `expected_patients` is a public guess at how many there are in all: it sets the step's scale.
    """

    rounds: int
    steps_per_round: int
    learning_rate: float
    momentum: float
    l2: float
    average: bool
    expected_patients: int
    train_fraction: float
    optimizer: str = "momentum"
    mode: str = "shared-noise"
    sampling_rate: float = 1.0

    @property
    def steps(self) -> int:
        """Gradient steps of the whole run: what the accountant composes."""
        return self.rounds * self.steps_per_round

    def remembered(self, parameters: int) -> int:
        """Return how many numbers the steps of descent with shared noise leave beside a model."""
        if self.mode != "shared-noise":
            return 0
        if self.optimizer == "adam":
            return 2 * parameters + 1  # two means, and the number of sums
        return parameters if self.momentum else 0


@dataclass(frozen=True, slots=True)
class Sites:
    """The fewest sites a round runs with, and how many dropouts or colluders its noise tolerates.

    A site whose input to a step comes later than `step_deadline_s` after the step before is cut off from the
    rest of its round.
    """

    minimum: int
    tolerance: int
    step_deadline_s: float = STEP_DEADLINE_S


@dataclass(frozen=True, slots=True)
class Study:
    """A validated plan. Equal plans have equal hashes, whatever the order of keys in their files."""

    name: str
    project: str
    model: str
    hidden: tuple[int, ...]
    cohort: Cohort
    outcome: Outcome
    features: tuple[Feature, ...]
    privacy: Privacy
    training: Training
    sites: Sites
    fusion: Fusion | None = None
    local: str = "none"
    own_part: OwnPartPlan = USUAL_OWN_PART
    feature_set: FeatureSet | None = None
    prior_bias: float = 0.0
    validation: Validation | None = None
    exact: Exact | None = None
    local_training: LocalTraining | None = None
    one_shot: OneShot | None = None
    clipping: Clipping | None = None
    aggregation: Aggregation = USUAL
    columns: tuple[str, ...] = field(init=False)
    modalities: tuple[Modality, ...] = field(init=False)
    layout: Layout = field(init=False)
    own_layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(name for f in self.features for name in f.columns))
        object.__setattr__(self, "modalities", modalities(self.features))
        if len(set(self.columns)) != len(self.columns):
            raise MalformedStudy("features", "two columns share a name")
        if self.model != "fusion" and (self.model == "mlp") != bool(self.hidden):
            raise MalformedStudy("study.hidden", "an mlp has hidden layers, a logistic model has none")
        self._check_exact()
        if self.own_part != USUAL_OWN_PART and self.local == "none":
            raise MalformedStudy("own_part", 'goes with study.local = "intercept" or "head"')
        self._check_priors()
        self._check_validation()
        self._check_mode()
        self._check_one_shot()
        self._lay_out()

    @property
    def priors(self) -> tuple[float, ...]:
        """Where a logistic model starts: a weight for each column, then the bias. Empty: at zero."""
        each = [f.prior * (place == 0) for f in self.features for place in range(len(f.columns))]
        return (*each, self.prior_bias) if any(each) or self.prior_bias else ()

    def _check_exact(self) -> None:
        exact = self.exact
        if (exact is None) == (self.training.mode == "exact"):
            raise MalformedStudy("exact", 'goes with training.mode = "exact", and only with it')
        if exact is None:
            if self.outcome.task in ("count", "days"):
                raise MalformedStudy("outcome.kind", "only an exact study has such an outcome")
            return
        if exact.coefficients(len(self.columns)) > MAX_COEFFICIENTS:
            raise MalformedStudy("features", f"an exact study has at most {MAX_COEFFICIENTS} coefficients")
        if self.priors:
            raise MalformedStudy("exact", "starts from zero, and its fit is its result")
        if bool(self.features) == (exact.model == "kaplan-meier"):
            raise MalformedStudy("features", "a model has some, a Kaplan-Meier curve has none")

    def _check_one_shot(self) -> None:
        if (self.one_shot is None) == (self.training.mode == "one-shot"):
            raise MalformedStudy("one_shot", 'goes with training.mode = "one-shot", and only with it')
        if self.one_shot is None:
            return
        if self.model != "logistic" or self.outcome.task not in ("binary", "regression"):
            raise MalformedStudy("study.model", "one sum makes a linear or a logistic model")
        if len(self.columns) >= MAX_COEFFICIENTS:
            raise MalformedStudy("features", f"one sum makes at most {MAX_COEFFICIENTS} coefficients")
        if self.local != "none":
            raise MalformedStudy("study.local", "one sum trains no part that stays at a site")
        if self.validation is not None and self.validation.patience:
            raise MalformedStudy("validation.patience", "is 0 for one sum: there is nothing to end early")

    def _check_mode(self) -> None:
        mode, training = self.training.mode, self.training
        if (self.local_training is None) == (mode == "local"):
            raise MalformedStudy("local", 'goes with training.mode = "local", and only with it')
        if self.clipping is not None and mode != "shared-noise":
            raise MalformedStudy("clipping", "goes with shared noise")
        if training.sampling_rate != 1.0 and mode != "shared-noise":
            raise MalformedStudy("training.sampling_rate", "goes with shared noise: see local.sampling_rate")
        if mode == "local" and (training.optimizer != "momentum" or training.average):
            raise MalformedStudy("training.optimizer", "a local step is plain, with momentum at most")

    def _check_priors(self) -> None:
        if self.priors and (self.model != "logistic" or self.outcome.outputs != 1):
            raise MalformedStudy(
                "study.prior_bias", "only a logistic model with one output starts from priors"
            )
        for place, feature in enumerate(self.features):
            if feature.prior and len(feature.columns) - feature.missing_flag != 1:
                raise MalformedStudy(f"features[{place}].prior", "needs a feature of one column")

    def _check_validation(self) -> None:
        plan = self.validation
        if plan is None:
            return
        if self.exact is not None:
            raise MalformedStudy(
                "validation",
                "not of an exact study: its result comes with standard errors and a likelihood. What is to "
                "be tried on patients it has not seen is a model with privacy: another mode",
            )
        if not plan.looks(self.training.rounds):
            raise MalformedStudy(
                "validation.every", "the run has fewer rounds: the model would never be tried"
            )
        if self.training.train_fraction + plan.fraction > 1.0:
            raise MalformedStudy("validation.fraction", "with train_fraction at most 1 together")
        if plan.metric == "accuracy" and self.outcome.task not in ("binary", "multiclass"):
            raise MalformedStudy("validation.metric", "this outcome has no classes: the loss decides")

    def _lay_out(self) -> None:
        outputs = self.outcome.outputs
        if self.exact is not None:
            layout, last = self.exact.layout(len(self.columns)), 0
        elif self.fusion is None:
            layout = model_layout.chain(len(self.columns), self.hidden, outputs)
            last = layout[-1].inputs
        else:
            layout, last = model_layout.fused(self.fusion, self.modalities, self.hidden, outputs)
        if self.local == "head" and not last:
            raise MalformedStudy("study.local", "late fusion has no last layer to add a head to")
        if self.fusion is not None and self.fusion.kind == "late" and self.hidden:
            raise MalformedStudy("study.hidden", "late fusion adds logits: nothing lies behind them")
        if model_layout.size(layout) > MAX_PARAMETERS:
            raise MalformedStudy("study.hidden", f"at most {MAX_PARAMETERS} parameters")
        if self.aggregation.encrypted_layers and self.training.mode != "shared-noise":
            raise MalformedStudy("aggregation.encrypted_layers", 'goes with training.mode = "shared-noise"')
        check_layers(self.aggregation, [layer.name for layer in layout])
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "own_layout", model_layout.local(self.local, last, outputs))
        if self.carried > MAX_CARRIED:
            path = "training.optimizer" if self.local_training is None else "local.aggregator"
            raise MalformedStudy(path, f"model and memory are more than {MAX_CARRIED} numbers")

    @property
    def parameters(self) -> int:
        """How many numbers the shared model has: each layer's weights and biases."""
        return model_layout.size(self.layout)

    @property
    def carried(self) -> int:
        """How many numbers go from round to round: the shared model, and what the steps to it left behind."""
        if self.local_training is not None:
            return self.parameters + self.local_training.remembered(self.parameters)
        return self.parameters + self.training.remembered(self.parameters) + (self.clipping is not None)

    @property
    def local_layout(self) -> Layout:
        """The layers of a site's own part that move while the shared part is trained: all of it, or none."""
        return self.own_layout if self.own_part.trained == "along" else ()

    @property
    def local_parameters(self) -> int:
        """How many numbers of a site's own move while the shared part is trained."""
        return model_layout.size(self.local_layout)

    @property
    def own_parameters(self) -> int:
        """How many numbers each site ends with of its own, besides."""
        return model_layout.size(self.own_layout)

    @property
    def tables(self) -> frozenset[str]:
        """The CDM tables that features and outcome read (the cohort's come on top)."""
        named = {f.records.table for f in self.features if f.records is not None}
        if self.feature_set is not None:
            named |= self.feature_set.tables
        if self.outcome.task in ("survival", "days"):
            named.add("observation_period")
        return frozenset({"person", self.outcome.records.table} | named)

    @classmethod
    def parse(cls, toml: bytes) -> Self:
        """Return the study written in `toml`. Raises: MalformedStudy, naming the path of what is wrong."""
        return cls.from_json(read_toml(toml))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the study that a parsed form (of TOML or of `to_json`) describes. Raises: MalformedStudy."""
        top = Fields(value, "$")
        head = top.section("study")
        name, project = (checked_text(*head.take(key), SHORT_NAME) for key in ("name", "project"))
        unnoised = "exact" in top
        model = "" if unnoised else checked_name(*head.take("model"), MODELS)
        widths = [] if unnoised else checked_list(*head.take("hidden", []), at_most=MAX_LAYERS)
        hidden = tuple(checked_int(width, "study.hidden", low=1, high=MAX_HIDDEN) for width in widths)
        local = "none" if unnoised else checked_name(*head.take("local", "none"), LOCAL_PARTS)
        prior_bias = checked_float(*head.take("prior_bias", 0.0), low=-MAX_PRIOR, high=MAX_PRIOR)
        head.done()
        fusion = parse_fusion(top.section("fusion")) if model == "fusion" else None
        try:
            cohort = Cohort.parse(top.take("cohort")[0])
        except MalformedCohort as error:
            raise MalformedStudy(f"cohort.{error.path}", error.reason) from error
        parsed, features_from = _features(top)
        if fusion is not None:
            _check_modalities(parsed)
        outcome = parse_outcome(top.section("outcome"))
        exact = parse_exact(top.section("exact"), outcome) if unnoised else None
        training = _training(top.section("training"), exact)
        one_shot = None
        if "one_shot" in top or training.mode == "one-shot":
            section = top.section("one_shot") if "one_shot" in top else Fields({}, "one_shot")
            one_shot = parse_one_shot(section, columns=sum(len(f.columns) for f in parsed))
        study = cls(
            name=name,
            project=project,
            model=model if exact is None else exact.model,
            hidden=hidden,
            cohort=cohort,
            outcome=outcome,
            features=parsed,
            privacy=NO_PRIVACY if exact else _privacy(top.section("privacy"), one_shot),
            training=training,
            sites=_sites(top.section("sites")),
            validation=parse_validation(top.section("validation")) if "validation" in top else None,
            fusion=fusion,
            local=local,
            own_part=parse_own_part(top.section("own_part")) if "own_part" in top else USUAL_OWN_PART,
            feature_set=features_from,
            prior_bias=prior_bias,
            exact=exact,
            one_shot=one_shot,
            local_training=parse_local(top.section("local")) if "local" in top else None,
            clipping=parse_clipping(top.section("clipping")) if "clipping" in top else None,
            aggregation=parse_aggregation(top.section("aggregation")) if "aggregation" in top else USUAL,
        )
        if features_from is not None:
            _check_after(study.outcome, features_from)
        top.done()
        return study

    def to_json(self) -> dict[str, Any]:
        """Return the form that `from_json` reads, with every default written out."""
        head: dict[str, Any] = {"name": self.name, "project": self.project}
        if self.exact is None:
            head["model"] = self.model
        if self.hidden:
            head["hidden"] = list(self.hidden)
        if self.local != "none":
            head["local"] = self.local
        if self.prior_bias:
            head["prior_bias"] = self.prior_bias
        fusion = {} if self.fusion is None else {"fusion": self.fusion.to_json()}
        features: dict[str, Any] = {"features": [f.to_json() for f in self.features]}
        if self.feature_set is not None:
            features = {"feature_set": self.feature_set.to_json()}
        elif not self.features:
            features = {}
        return {
            "study": head,
            **fusion,
            "cohort": self.cohort.to_json(),
            "outcome": self.outcome.to_json(),
            **features,
            **self._price(),
            "sites": _as_json(self.sites, but={"step_deadline_s": STEP_DEADLINE_S}),
            **({} if self.validation is None else {"validation": self.validation.to_json()}),
            **({"own_part": own_part} if (own_part := self.own_part.to_json()) else {}),
            **({"aggregation": aggregation} if (aggregation := self.aggregation.to_json()) else {}),
        }

    def _price(self) -> dict[str, Any]:
        """Return the sections that say what is paid for, and how it is walked."""
        if self.exact is not None:
            training = {"mode": "exact", "train_fraction": self.training.train_fraction}
            return {"exact": self.exact.to_json(), "training": training}
        if self.one_shot is not None:
            training = {"mode": "one-shot", "train_fraction": self.training.train_fraction}
            privacy = {k: v for k, v in _as_json(self.privacy).items() if k != "clip_norm"}
            return {"privacy": privacy, "one_shot": self.one_shot.to_json(), "training": training}
        return {
            "privacy": _as_json(self.privacy),
            "training": _as_json(self.training, but=LATER),
            **({} if self.local_training is None else {"local": self.local_training.to_json()}),
            **({} if self.clipping is None else {"clipping": self.clipping.to_json()}),
        }

    def canonical(self) -> bytes:
        """Return one encoding per plan."""
        return canonical.encode(self.to_json())

    def plan_hash(self) -> bytes:
        """Return the 32 bytes by which hospitals approve this plan and by which messages name it."""
        return canonical.digest({"format": FORMAT, "plan": self.to_json()})


LATER = {"optimizer": "momentum", "mode": "shared-noise", "sampling_rate": 1.0}  # keys of [training]


def _as_json(part: Privacy | Training | Sites, *, but: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all fields but those that are as `but` says: keys that came later, at their defaults."""
    found = {name: getattr(part, name) for name in type(part).__slots__}
    return {
        name: value for name, value in found.items() if name not in (but or {}) or value != (but or {})[name]
    }


def _features(top: Fields) -> tuple[tuple[Feature, ...], FeatureSet | None]:
    if "exact" in top and "features" not in top and "feature_set" not in top:
        return (), None  # a curve has none
    if "feature_set" in top:
        found = FeatureSet.from_json(*top.take("feature_set"))
        return found.features, found
    features = checked_list(*top.take("features"), at_most=MAX_FEATURES)
    if not features:
        raise MalformedStudy("features", "a study has at least one feature")
    return tuple(parse_feature(Fields(f, f"features[{n}]")) for n, f in enumerate(features)), None


def _check_after(outcome: Outcome, features: FeatureSet) -> None:
    """Refuse an outcome of days that features look at: they would tell it."""
    window = outcome.records.window
    first = 0 if outcome.task in ("survival", "days") else None if window is None else window.from_days
    if first is None or first <= features.last_day:
        raise MalformedStudy("outcome.window", f"begins after day {features.last_day}, the features' last")


def _check_modalities(features: tuple[Feature, ...]) -> None:
    for place, feature in enumerate(features):
        if not feature.modality:
            raise MalformedStudy(f"features[{place}].modality", "is missing: a fusion model groups by it")
    if len({feature.modality for feature in features}) > MAX_MODALITIES:
        raise MalformedStudy("features", f"at most {MAX_MODALITIES} modalities")


def _privacy(fields: Fields, one_shot: OneShot | None) -> Privacy:
    clip_norm = one_shot.clip_norm if one_shot else None
    if clip_norm is None:
        clip_norm = checked_float(*fields.take("clip_norm"), above=0.0, high=1e6)
    found = Privacy(
        epsilon=checked_float(*fields.take("epsilon"), above=0.0, high=100.0),
        delta=checked_float(*fields.take("delta"), above=0.0, high=0.01),
        clip_norm=clip_norm,
        max_sites_per_patient=checked_int(*fields.take("max_sites_per_patient"), low=1, high=MAX_SITES),
    )
    fields.done()
    return found


def _training(fields: Fields, exact: Exact | None) -> Training:
    if exact is not None:
        return _one_round(fields, mode="exact", sums=exact.sums)
    if fields.is_("mode", "one-shot"):
        return _one_round(fields, mode="one-shot", sums=1)
    found = Training(
        rounds=checked_int(*fields.take("rounds"), low=1, high=MAX_STEPS),
        steps_per_round=checked_int(*fields.take("steps_per_round"), low=1, high=MAX_STEPS),
        learning_rate=checked_float(*fields.take("learning_rate"), above=0.0, high=1e6),
        momentum=checked_float(*fields.take("momentum", 0.0), low=0.0, high=0.999),
        l2=checked_float(*fields.take("l2", 0.0), low=0.0, high=1e6),
        average=checked_flag(*fields.take("average", False)),
        expected_patients=checked_int(*fields.take("expected_patients"), low=1, high=10**9),
        train_fraction=checked_float(*fields.take("train_fraction"), above=0.0, high=1.0),
        optimizer=checked_name(*fields.take("optimizer", "momentum"), OPTIMIZERS),
        mode=checked_name(*fields.take("mode", "shared-noise"), MODES),
        sampling_rate=checked_rate(*fields.take("sampling_rate", 1.0)),
    )
    fields.done()
    if found.steps > MAX_STEPS:
        raise MalformedStudy("training.rounds", f"at most {MAX_STEPS} steps in all")
    return found


def _one_round(fields: Fields, *, mode: str, sums: int) -> Training:
    """Return what a study that descends no gradient has of this section: one round of at most `sums` sums."""
    checked_name(*fields.take("mode"), (mode,))
    fraction = checked_float(*fields.take("train_fraction", 1.0), above=0.0, high=1.0)
    fields.done()
    return Training(1, sums, 1.0, 0.0, 0.0, False, 1, fraction, mode=mode)


def _sites(fields: Fields) -> Sites:
    found = Sites(
        minimum=checked_int(*fields.take("minimum"), low=2, high=MAX_SITES),
        tolerance=checked_int(*fields.take("tolerance"), low=0, high=MAX_SITES),
        step_deadline_s=checked_float(
            *fields.take("step_deadline_s", STEP_DEADLINE_S), low=1.0, high=MAX_STEP_DEADLINE_S
        ),
    )
    fields.done()
    if found.tolerance >= found.minimum - 1:
        raise MalformedStudy("sites.tolerance", "at least two sites must remain when the tolerated ones fall")
    return found
