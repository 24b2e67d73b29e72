"""Names of drugs as hospitals write them and as RxNorm writes them, in one form.

RxNorm says ingredient, strength, form, brand ("metformin hydrochloride 500 MG Oral Tablet [Glucophage]"),
with strengths in MG, MG/ML, UNT or MEQ. Hospitals say "METFORMIN HCL 500MG TAB", "0.5 g", "125 mg/5 mL".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from node.concept_maps.wording import plain

_WORDS = {
    "tab": "tablet", "tabs": "tablet", "tbl": "tablet", "tablets": "tablet", "cap": "capsule",
    "caps": "capsule", "capsules": "capsule", "inj": "injection", "injectable": "injection",
    "vial": "injection",
    "amp": "injection", "ampule": "injection", "iv": "injection", "soln": "solution", "sol": "solution",
    "susp": "suspension", "oint": "ointment", "supp": "suppository", "inh": "inhalation",
    "inhaler": "inhalation", "inhalant": "inhalation", "neb": "nebulizer", "po": "oral",
    "hcl": "hydrochloride", "hbr": "hydrobromide", "asa": "aspirin", "apap": "acetaminophen",
    "paracetamol": "acetaminophen", "salbutamol": "albuterol", "hctz": "hydrochlorothiazide",
    "er": "extended release", "xr": "extended release", "sr": "extended release", "xl": "extended release",
    "cr": "extended release", "la": "extended release", "ec": "delayed release", "dr": "delayed release",
    "hrs": "hour", "hr": "hour", "h": "hour", "actuat": "actuation", "act": "actuation", "puff": "actuation",
    "top": "topical", "opht": "ophthalmic", "ophth": "ophthalmic", "sl": "sublingual", "td": "transdermal",
}  # fmt: skip
# Salts and waters: the ingredient is the same one without them.
_SALTS = frozenset(
    ("hydrochloride", "hydrobromide", "sodium", "sulfate", "tartrate", "bitartrate", "maleate", "mesylate",
     "besylate", "succinate", "fumarate", "acetate", "phosphate", "citrate", "monohydrate", "dihydrate",
     "trihydrate", "anhydrous", "medoxomil", "cilexetil", "disoproxil", "calcium", "magnesium", "potassium")
)  # fmt: skip
_IN_MG = {"mg": 1.0, "g": 1000.0, "gm": 1000.0, "gram": 1000.0, "grams": 1000.0, "mcg": 0.001, "ug": 0.001,
          "microgram": 0.001, "micrograms": 0.001, "ng": 1e-6}  # fmt: skip
_COUNTED = {
    "unt": "unt",
    "unit": "unt",
    "units": "unt",
    "iu": "unt",
    "u": "unt",
    "meq": "meq",
    "mmol": "mmol",
}
_NUMBER = r"(?<![\w.])(\d[\d,]*(?:\.\d+)?|\.\d+)"
_UNIT = "|".join(sorted((*_IN_MG, *_COUNTED), key=len, reverse=True))
_STRENGTH = re.compile(
    rf"{_NUMBER}\s*-?\s*({_UNIT}|%)(?:\s*/\s*(\d+(?:\.\d+)?)?\s*(ml|l|actuat\w*|puff|spray|hr?|hour|tablet|tab))?(?![a-z])",
    re.IGNORECASE,
)
_BARE = re.compile(r"\d+(?:\.\d+)?")
_CUT = "..."  # OMOP's names have 255 characters at most


@dataclass(frozen=True, slots=True)
class DrugName:
    """A name taken apart. `words` are without strengths, numbers and salts, in the one form."""

    words: tuple[str, ...]
    strengths: frozenset[str]
    cut_word: str | None = None  # how the word begins that OMOP's limit has cut

    @property
    def text(self) -> str:
        """The words and strengths as one text, for comparing how it is written."""
        return " ".join((*self.words, *sorted(self.strengths)))


def drug_name(text: str) -> DrugName:
    """Take a name apart.

    >>> drug_name("METFORMIN HCL 0.5GM TAB").text == drug_name("Metformin 500 MG Tablet").text
    True
    >>> sorted(drug_name("Amoxicillin 125 mg/5 mL susp").strengths)
    ['25 mg/ml']
    """
    strengths = frozenset(_strength(*found.groups()) for found in _STRENGTH.finditer(text))
    cut = None
    if text.endswith(_CUT):
        cut = re.split(r"[^a-z0-9]+", text.removesuffix(_CUT).lower())[-1] or None
        text = text.removesuffix(_CUT)[: -len(cut)] if cut else text.removesuffix(_CUT)
    rest = plain(_STRENGTH.sub(" ", text)).replace("%", " ")
    words = [word for said in rest.split() for word in _WORDS.get(said, said).split()]
    words = [word for word in dict.fromkeys(words) if not _BARE.fullmatch(word) and word != "ml"]
    # What stands first is no salt of anything: potassium chloride, calcium carbonate.
    return DrugName(tuple(words[:1] + [word for word in words[1:] if word not in _SALTS]), strengths, cut)


class DrugIndex:
    """Names of drugs taken apart, to see how well labels agree with them."""

    def __init__(self, names: Sequence[str]) -> None:
        found = [drug_name(name) for name in names]
        self._words = _places(word for name in found for word in name.words)
        self._strengths = _places(strength for name in found for strength in name.strengths)
        self._of_words = _marks([name.words for name in found], self._words)
        self._of_strengths = _marks([name.strengths for name in found], self._strengths)
        self._word_counts = np.array([len(name.words) for name in found], np.float32)
        self._strength_counts = np.array([len(name.strengths) for name in found], np.float32)
        self._cut = [(place, name.cut_word) for place, name in enumerate(found) if name.cut_word is not None]

    def scores(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Return how well each label agrees with each name, 0 to 1: shares of words and strengths in common.

        A label that says no strength agrees with all. Of a name that OMOP has cut, a word of the label that
        no name has may be what is missing; such a name is not held against what it says more.
        """
        found = [drug_name(label) for label in labels]
        both = self._in_common([name.words for name in found], self._words, self._of_words)
        counts = np.array([len(name.words) for name in found], np.float32)[:, None]
        words = 2 * both / np.maximum(1, counts + self._word_counts)
        for row, name in enumerate(found):
            unknown = [word for word in name.words if word not in self._words]
            for place, begin in self._cut:
                if any(word.startswith(begin) for word in unknown):
                    words[row, place] = (both[row, place] + 1) / counts[row, 0]
        both = self._in_common([name.strengths for name in found], self._strengths, self._of_strengths)
        counts = np.array([len(name.strengths) for name in found], np.float32)[:, None]
        strengths = both / np.maximum(1, counts + self._strength_counts - both)
        return np.asarray(np.where(counts > 0, (2 * words + strengths) / 3, words), np.float32)

    def _in_common(
        self, said: Sequence[Collection[str]], places: dict[str, int], names: sparse.csr_matrix
    ) -> NDArray[np.float32]:
        return np.asarray((_marks(said, places) @ names.T).todense(), np.float32)


def _places(words: Iterable[str]) -> dict[str, int]:
    return {word: place for place, word in enumerate(dict.fromkeys(words))}


def _marks(said: Sequence[Collection[str]], places: dict[str, int]) -> sparse.csr_matrix:
    pairs = [(row, places[word]) for row, words in enumerate(said) for word in words if word in places]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    shape = (len(said), max(1, len(places)))
    return sparse.csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), shape=shape)


def _strength(number: str, unit: str, per: str | None, of: str | None) -> str:
    amount = float(number.replace(",", ""))
    unit = unit.lower()
    if unit == "%":  # of a solution or an ointment: grams in a hundred
        amount, unit, per, of = amount * 10, "mg", None, "ml"
    elif unit in _IN_MG:
        amount, unit = amount * _IN_MG[unit], "mg"
    else:
        unit = _COUNTED[unit]
    if of is None or of.lower().startswith("tab"):
        return f"{amount:g} {unit}"
    of = of.lower()
    volume = float(per or 1) * (1000 if of == "l" else 1)
    of = "ml" if of == "l" else "hour" if of.startswith("h") else "actuation" if of[0] in "aps" else of
    return f"{amount / volume:g} {unit}/{of}"
