"""Units: UCUM text -> OMOP's unit concept, and a value into the one unit that its measurement is kept in.

`units.csv` has the units' sizes and OMOP's concepts of them; `canonical_units.csv` has, by measurement
concept, the unit to keep and what links amount and mass: the molar mass in g/mol and the valence. A
measurement that is not listed keeps the unit it came with; a unit that is not known, or of another dimension,
is kept as written with concept 0 and nothing is converted.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

# as laboratories write them -> UCUM
_WRITTEN = {
    "mmhg": "mm[Hg]",
    "mm hg": "mm[Hg]",
    "bpm": "/min",
    "beats/min": "/min",
    "beats/minute": "/min",
    "breaths/min": "/min",
    "/minute": "/min",
    "c": "Cel",
    "°c": "Cel",
    "degc": "Cel",
    "deg c": "Cel",
    "f": "[degF]",
    "°f": "[degF]",
    "degf": "[degF]",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "[lb_us]": "[lb_av]",
    "in": "[in_i]",
    "[in_us]": "[in_i]",
    "percent": "%",
    "kgs": "kg",
    "cms": "cm",
    "mcg": "ug",
    "mcg/l": "ug/L",
    "mcg/dl": "ug/dL",
    "mcg/ml": "ug/mL",
    "µg/l": "ug/L",
    "µmol/l": "umol/L",
    "μmol/l": "umol/L",
    "iu/l": "[IU]/L",
    "miu/l": "m[IU]/L",
    "uiu/ml": "u[IU]/mL",
    "µiu/ml": "u[IU]/mL",
    "k/ul": "10*3/uL",
    "k/µl": "10*3/uL",
    "x10e3/ul": "10*3/uL",
    "10^3/ul": "10*3/uL",
    "10e3/ul": "10*3/uL",
    "thou/ul": "10*3/uL",
    "10^9/l": "10*9/L",
    "x10^9/l": "10*9/L",
    "10e9/l": "10*9/L",
    "m/ul": "10*6/uL",
    "10^6/ul": "10*6/uL",
    "x10e6/ul": "10*6/uL",
    "10^12/l": "10*12/L",
    "10e12/l": "10*12/L",
    "/100": "%",
    "x10*3/ul": "10*3/uL",
    "x10*6/ul": "10*6/uL",
    "x10*9/l": "10*9/L",
    "x10*12/l": "10*12/L",
    "umoll": "umol/L",
    "mmoll": "mmol/L",
    "mlmin": "mL/min",
    # ISO/IEEE 11073-10101, which devices send
    "mdc_dim_percent": "%",
    "mdc_dim_mmhg": "mm[Hg]",
    "mdc_dim_kilo_pascal": "kPa",
    "mdc_dim_cm_h2o": "cm[H2O]",
    "mdc_dim_beat_per_min": "/min",
    "mdc_dim_resp_per_min": "/min",
    "mdc_dim_x_l_per_min": "L/min",
    "mdc_dim_x_l": "L",
    "mdc_dim_milli_l": "mL",
    "mdc_dim_degc": "Cel",
    "mdc_dim_fahr": "[degF]",
    "mdc_dim_kilo_g": "kg",
    "mdc_dim_centi_m": "cm",
    "mdc_dim_sec": "s",
    "mdc_dim_min": "min",
    "mdc_dim_milli_mole_per_l": "mmol/L",
    "mdc_dim_milli_g_per_dl": "mg/dL",
}
_AMOUNT, _MASS, _EQUIVALENT = "amount concentration", "mass concentration", "equivalent concentration"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: value in the dimension's base = value · factor + offset."""

    ucum: str
    concept_id: int
    dimension: str
    factor: float
    offset: float


@dataclass(frozen=True, slots=True)
class Canonical:
    """The unit that a measurement is kept in."""

    unit: Unit
    molar_mass_g_per_mol: float | None
    valence: int | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """kept value = value · factor + offset, in the unit of `concept_id`."""

    concept_id: int
    factor: float = 1.0
    offset: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether the number becomes another one."""
        return (self.factor, self.offset) != (1.0, 0.0)


@cache
def units() -> MappingProxyType[str, Unit]:
    """Return the known units by UCUM code."""
    return MappingProxyType(
        {
            row["ucum"]: Unit(
                row["ucum"],
                int(row["concept_id"]),
                row["dimension"],
                float(row["factor"]),
                float(row["offset"]),
            )
            for row in _rows("units.csv")
        }
    )


@cache
def canonical() -> MappingProxyType[int, Canonical]:
    """Return the units to keep, by measurement concept."""
    return MappingProxyType(
        {
            int(row["concept_id"]): Canonical(
                units()[row["ucum"]],
                float(row["molar_mass_g_per_mol"]) if row["molar_mass_g_per_mol"] else None,
                int(row["valence"]) if row["valence"] else None,
            )
            for row in _rows("canonical_units.csv")
        }
    )


def ucum_of(text: str) -> str:
    """Return a unit as UCUM writes it, if it is written in a way that is known.

    >>> ucum_of("mmHg"), ucum_of("mg/dl"), ucum_of("furlong")
    ('mm[Hg]', 'mg/dL', 'furlong')
    """
    text = text.strip()
    if text in units():
        return text
    return _WRITTEN.get(text.lower()) or _by_lower().get(text.lower(), text)


def conversion(measurement_concept_id: int, text: str, *, concepts: Mapping[str, int]) -> Conversion:
    """Return how a value in the unit `text` of a measurement is kept.

    Args:
        concepts: the vocabulary's unit concepts by UCUM code, where there is one; they go before our own.
    """
    ucum = ucum_of(text)
    unit = units().get(ucum)
    as_is = Conversion(concepts.get(text.strip()) or concepts.get(ucum) or (unit.concept_id if unit else 0))
    kept = canonical().get(measurement_concept_id)
    if kept is None or unit is None:
        return as_is
    link = _link(unit.dimension, kept)
    if link is None:
        return as_is
    concept = concepts.get(kept.unit.ucum) or kept.unit.concept_id
    if unit.ucum == kept.unit.ucum or (unit.factor, unit.offset, link) == (
        kept.unit.factor,
        kept.unit.offset,
        1.0,
    ):
        return Conversion(concept)
    return Conversion(
        concept,
        unit.factor * link / kept.unit.factor,
        (unit.offset * link - kept.unit.offset) / kept.unit.factor,
    )


def _link(dimension: str, kept: Canonical) -> float | None:
    """What one of the base unit of `dimension` is in the base unit of the kept one's; None if nothing."""
    wanted = kept.unit.dimension
    if dimension == wanted:
        return 1.0
    mass, valence = kept.molar_mass_g_per_mol, kept.valence
    links = {
        (_AMOUNT, _MASS): mass,
        (_MASS, _AMOUNT): 1 / mass if mass else None,
        (_EQUIVALENT, _AMOUNT): 1 / valence if valence else None,
        (_EQUIVALENT, _MASS): mass / valence if mass and valence else None,
    }
    return links.get((dimension, wanted))


@cache
def _by_lower() -> MappingProxyType[str, str]:
    """Codes by their lower case, where only one unit is written so: mg and Mg are not the same."""
    found: dict[str, list[str]] = {}
    for code in units():
        found.setdefault(code.lower(), []).append(code)
    return MappingProxyType({lower: codes[0] for lower, codes in found.items() if len(codes) == 1})


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("node.omop").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
