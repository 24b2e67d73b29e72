"""Which signals there are, in which unit each is kept, and what of a day or an hour it is summarized to.

LOINC codes are facts about signals (© Regenstrief Institute, loinc.org/license). A code stands on a summary
only where it means just that: an hourly mean of heart rate is a heart rate (8867-4), its standard
deviation is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """How samples of a signal add up."""

    LEVEL = "level"  # a value at a moment: means, extremes
    TOTAL = "total"  # an amount over an interval: sums
    BEATS = "beats"  # intervals between heart beats: variability


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    unit: UCUM; everything stored is in it. low, high: outside of them a sample is no measurement of a living
    person, and is turned away. bin_s: how often one expects a sample: coverage is the share of bins of
    this width
    that hold one. hourly: whether hours are summarized, or days alone (what is measured a few times a day).
    by_end: the sample belongs to the day in which it ends (sleep).
    """

    name: str
    unit: str
    low: float
    high: float
    bin_s: int = 600
    form: Form = Form.LEVEL
    hourly: bool = True
    by_end: bool = False
    loinc: str | None = None  # of a mean (level) or of an hour's or a day's total


_ALL = (
    Signal("heart_rate", "/min", 20, 300, loinc="8867-4"),
    Signal("pulse_rate", "/min", 20, 300, loinc="8889-8"),  # by pulse oximetry
    Signal("resting_heart_rate", "/min", 20, 200, 86_400, hourly=False, loinc="40443-4"),  # the device's own
    Signal("walking_heart_rate", "/min", 20, 250, 86_400, hourly=False),
    Signal("hrv_sdnn", "ms", 0, 1000, 86_400, hourly=False, loinc="80404-7"),  # the device's own
    Signal("hrv_rmssd", "ms", 0, 1000, 300, hourly=False),  # the device's own
    Signal("rr_interval", "ms", 200, 3000, 600, Form.BEATS),
    Signal("respiratory_rate", "/min", 2, 80, loinc="9279-1"),
    Signal("spo2", "%", 30, 100, loinc="59408-5"),
    Signal("glucose", "mg/dL", 10, 1000, 900, loinc="99504-3"),  # interstitial; a Libre gives one in 15 min
    Signal("blood_glucose", "mg/dL", 10, 1500, 86_400, hourly=False, loinc="2339-0"),  # a finger's drop
    Signal("body_temperature", "Cel", 25, 45, 3600, hourly=False, loinc="8310-5"),
    Signal("abp_systolic", "mm[Hg]", 20, 350, loinc="76215-3"),
    Signal("abp_diastolic", "mm[Hg]", 5, 250, loinc="76213-8"),
    Signal("abp_mean", "mm[Hg]", 10, 300, loinc="76214-6"),
    Signal("nbp_systolic", "mm[Hg]", 20, 350, 3600, loinc="76534-7"),
    Signal("nbp_diastolic", "mm[Hg]", 5, 250, 3600, loinc="76535-4"),
    Signal("nbp_mean", "mm[Hg]", 10, 300, 3600, loinc="76536-2"),
    Signal("bp_systolic", "mm[Hg]", 20, 350, 86_400, hourly=False, loinc="8480-6"),
    Signal("bp_diastolic", "mm[Hg]", 5, 250, 86_400, hourly=False, loinc="8462-4"),
    Signal("body_weight", "kg", 0.2, 700, 86_400, hourly=False, loinc="29463-7"),
    Signal("body_mass_index", "kg/m2", 5, 200, 86_400, hourly=False, loinc="39156-5"),
    Signal("body_height", "cm", 20, 280, 86_400, hourly=False, loinc="8302-2"),
    Signal("vo2_max", "mL/(kg.min)", 5, 100, 86_400, hourly=False),
    Signal("steps", "{steps}", 0, 100_000, 3600, Form.TOTAL, loinc="41950-7"),  # of 24 hours: days alone
    Signal("distance", "km", 0, 1000, 3600, Form.TOTAL, hourly=False),
    Signal("flights_climbed", "{flights}", 0, 5000, 3600, Form.TOTAL, hourly=False),
    Signal("active_energy", "kcal", 0, 30_000, 3600, Form.TOTAL, hourly=False),
    Signal("basal_energy", "kcal", 0, 30_000, 3600, Form.TOTAL, hourly=False),
    Signal("exercise_time", "min", 0, 1440, 3600, Form.TOTAL, hourly=False),
    Signal("sleep", "min", 0, 2880, 86_400, Form.TOTAL, hourly=False, by_end=True, loinc="93832-4"),
)

SIGNALS: dict[str, Signal] = {signal.name: signal for signal in _ALL}

# What sources write for a unit of ours: ours = theirs · factor + offset.
_SAME = (1.0, 0.0)
_MMOL = (18.0156, 0.0)  # mg/dL per mmol/L of glucose, 180.156 g/mol
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "/min": {"/min": _SAME, "count/min": _SAME, "bpm": _SAME, "pm": _SAME, "brpm": _SAME, "count/s": (60, 0)},
    "ms": {"ms": _SAME, "s": (1000, 0)},
    "%": {"%": _SAME, "fraction": (100, 0)},
    "mg/dL": {"mg/dL": _SAME, "mg/dl": _SAME, "mmol/L": _MMOL, "mmol/l": _MMOL},
    "Cel": {"Cel": _SAME, "degC": _SAME, "C": _SAME, "degF": (5 / 9, -160 / 9), "F": (5 / 9, -160 / 9)},
    "mm[Hg]": {"mm[Hg]": _SAME, "mmHg": _SAME, "kPa": (7.500616827, 0)},
    "kg": {"kg": _SAME, "g": (0.001, 0), "lb": (0.45359237, 0), "st": (6.35029318, 0)},
    "kg/m2": {"kg/m2": _SAME, "count": _SAME},
    "cm": {"cm": _SAME, "m": (100, 0), "ft": (30.48, 0), "in": (2.54, 0)},
    "mL/(kg.min)": {"mL/(kg.min)": _SAME, "mL/min·kg": _SAME, "ml/kg*min": _SAME},
    "{steps}": {"{steps}": _SAME, "count": _SAME},
    "{flights}": {"{flights}": _SAME, "count": _SAME},
    "km": {"km": _SAME, "m": (0.001, 0), "mi": (1.609344, 0), "yd": (0.0009144, 0)},
    "kcal": {"kcal": _SAME, "Cal": _SAME, "kJ": (1 / 4.184, 0)},
    "min": {"min": _SAME, "s": (1 / 60, 0), "hr": (60, 0)},
}


def conversion(signal: str, unit: str) -> tuple[float, float] | None:
    """Return (factor, offset) from a source's unit to the signal's own; None if it is not a unit of it."""
    known = SIGNALS.get(signal)
    return None if known is None else UNITS.get(known.unit, {}).get(unit)
