"""Questions that are none: random bytes, broken envelopes, and what a researcher should not have signed."""

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np

from protocols import canonical, envelope
from protocols import question as questions
from protocols.envelope import Purpose
from tests.network.consortium import Consortium
from tests.network.standing import CIRCE, DRUG, LATE, question

T = TypeVar("T")
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    10**400,
    1e308,
    -0.0,
    "",
    "x" * 5_000,
    "'; DROP TABLE person; --",
    "\u0000",
    "١٢٣",
    [],
    [[]],
    {},
    {"kind": "count"},
    {"$ne": 1},
    ["person"] * 5_000,
]
FORMS: list[dict[str, Any]] = [
    {"kind": "count"},
    {"kind": "breakdown", "by": "age_band", "edges": [40, 60], "total": True},
    {"kind": "histogram", "concept": 21, "edges": [0.0, 2.0, 4.0], "window": {"from_days": -9, "to_days": 9}},
    {"kind": "mean", "concept": 20, "lower": 0.0, "upper": 8.0},
    {"kind": "contingency", "other": DRUG},
    {"kind": "incidence", "outcome": DRUG, "first_year": 2019, "last_year": 2021},
    {"kind": "survival", "outcome": CIRCE, "horizon_days": 360, "interval_days": 120},
    {"kind": "attrition"},
    {"kind": "feasibility", "at_least": 250},
]


def malformed(consortium: Consortium, count: int, *, seed: int) -> Iterator[bytes]:
    """Yield so many envelopes, none of which holds a question; the same ones for the same seed and keys."""
    maker = _Maker(consortium, seed)
    made = 0
    while made < count:
        found = maker()
        if not maker.is_question(found):
            made += 1
            yield found


class _Maker:
    """Spoils questions of a researcher whose key it has."""

    def __init__(self, consortium: Consortium, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        who = consortium.researcher
        self._name, self._key = who.name, who.identity_key()
        self._whole = [question(form, cohort=cohort) for form in FORMS for cohort in (LATE, CIRCE)]
        self._sent = [one.signed(signer=self._name, key=self._key) for one in self._whole]
        once = [self._noise, self._cut, self._flipped, self._signed_noise, self._signed_text, self._purpose]
        self._ways: list[Callable[[], bytes]] = [*once, *[self._signed_values] * len(once)]

    def __call__(self) -> bytes:
        return self._one_of(self._ways)()

    def is_question(self, data: bytes) -> bool:
        """Return whether, by chance, it still is one: with another valid epsilon, say."""
        try:
            questions.opened(data, key_of={self._name: self._key.public_key()})
        except ValueError:
            return False
        return True

    def _one_of(self, found: Sequence[T]) -> T:
        return found[self._rng.integers(len(found))]

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self._one_of(self._whole).to_bytes())
        return fields

    def _signed(self, payload: bytes, *, purpose: str = Purpose.QUESTION) -> bytes:
        return envelope.sign(payload, purpose=purpose, signer=self._name, key=self._key).to_bytes()

    def _noise(self) -> bytes:
        return self._rng.bytes(int(self._rng.integers(0, 400)))

    def _cut(self) -> bytes:
        one = self._one_of(self._sent)
        return one[: self._rng.integers(len(one))]

    def _flipped(self) -> bytes:
        one = bytearray(self._one_of(self._sent))
        one[self._rng.integers(len(one))] ^= 1 << int(self._rng.integers(8))
        return bytes(one)

    def _purpose(self) -> bytes:
        return self._signed(self._one_of(self._whole).to_bytes(), purpose=Purpose.STUDY)

    def _signed_noise(self) -> bytes:
        return self._signed(self._noise())

    def _signed_text(self) -> bytes:
        """The right values in another encoding than the one there is; and what costs a careless parser."""
        fields = self._fields()
        texts = [
            json.dumps(fields),
            json.dumps(fields, sort_keys=True, separators=(",", ":")) + " ",
            json.dumps(fields)[:-1] + ', "version": 2}',
            json.dumps(fields | {"epsilon": float("nan")}),
            "[" * 100_000,
            json.dumps(fields | {"cohort": json.loads("[" * 60 + "]" * 60)}),
        ]
        return self._signed(self._one_of(texts).encode())

    def _signed_values(self) -> bytes:
        fields = self._fields()
        for _ in range(int(self._rng.integers(1, 3))):
            _spoil(fields, self._rng)
        return self._signed(canonical.encode(fields))


def _spoil(fields: Any, rng: np.random.Generator) -> None:
    """Change one place of a JSON value: another value, one key less, one key more."""
    place: Any = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            place = inner
            continue
        choice = rng.integers(4)
        if choice == 0:
            del place[key]
        elif choice == 1 and isinstance(place, dict):
            place["Expression" if rng.random() < 0.5 else "sql"] = deepcopy(JUNK[rng.integers(len(JUNK))])
        else:
            place[key] = deepcopy(JUNK[rng.integers(len(JUNK))])
        return
