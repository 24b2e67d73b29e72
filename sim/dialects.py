"""How each of four hospitals writes down the same things: names, codes, units, dates, and what it leaves out.

Code sets are the hospitals' own or ICD-10, LOINC and RxNorm ids; the concepts they stand for are OMOP's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lab:
    """One quantity as a hospital records it: written = round(true × factor, decimals)."""

    code: str
    unit: str
    factor: float = 1.0
    decimals: int = 1

    @property
    def scale(self) -> float:
        """What a written value is multiplied by to get the standard unit."""
        return 1.0 / self.factor

    def to_standard(self, written: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values in the standard unit, as a mapping would compute them."""
        return written * self.scale


@dataclass(frozen=True, slots=True)
class Dialect:
    """One hospital's way to write. Keys of the dicts are the names of `sim.hospitals`."""

    slug: str
    title: str
    record_number: str  # format of the direct identifier
    date_format: str
    sex: tuple[str, str]  # male, female
    yes_no: tuple[str, str] | None  # smoker; None: never recorded
    labs: dict[str, Lab]
    conditions: dict[str, str]
    drugs: dict[str, str]
    visit_kinds: dict[str, str]
    missing: str  # how a missing value is written
    missing_share: dict[str, float] = field(default_factory=dict)
    wide_labs: bool = False  # one column per lab instead of one row per lab
    columns: dict[str, str] = field(default_factory=dict)  # other column names than ours

    def column(self, name: str) -> str:
        """Return this hospital's name for a column."""
        return self.columns.get(name, name)


# Standard concepts: (OMOP concept id, OMOP id of the standard unit).
LAB_CONCEPTS = {
    "sbp_mmhg": (3004249, 8876),  # Systolic blood pressure, mmHg
    "cholesterol_mg_dl": (3027114, 8840),  # Cholesterol [Mass/volume] in Serum or Plasma, mg/dL
    "hba1c_percent": (3004410, 8554),  # Hemoglobin A1c/Hemoglobin.total in Blood, %
    "creatinine_mg_dl": (3016723, 8840),  # Creatinine [Mass/volume] in Serum or Plasma, mg/dL
    "bmi_kg_m2": (3038553, 9531),  # Body mass index (BMI) [Ratio], kg/m2
}
CONDITION_CONCEPTS = {
    "diabetes": 201826,  # Type 2 diabetes mellitus
    "hypertension": 320128,  # Essential hypertension
    "atrial_fibrillation": 313217,  # Atrial fibrillation
    "heart_failure": 316139,  # Heart failure: the outcome
}
DRUG_CONCEPTS = {"metformin": 1503297, "statin": 1545958}  # metformin, atorvastatin (ingredients)
VISIT_CONCEPTS = {"outpatient": 9202, "inpatient": 9201, "emergency": 9203}
LAB_PLAUSIBLE = {  # outside, in the standard unit, is a typing error
    "sbp_mmhg": (40, 300),
    "cholesterol_mg_dl": (50, 600),
    "hba1c_percent": (3, 20),
    "creatinine_mg_dl": (0.1, 20),
    "bmi_kg_m2": (10, 80),
}
SEX_CONCEPTS = (8507, 8532)  # male, female
SMOKER_CONCEPT = 4298794  # Smoker
ECG_CONCEPT = 4163951  # Electrocardiographic procedure

_ICD10 = {
    "diabetes": "E11.9",
    "hypertension": "I10",
    "atrial_fibrillation": "I48.91",
    "heart_failure": "I50.9",
}

NORTHGATE = Dialect(
    slug="northgate",
    title="Northgate University Hospital",
    record_number="NG{:07d}",
    date_format="%Y-%m-%d",
    sex=("M", "F"),
    yes_no=("Y", "N"),
    labs={
        "sbp_mmhg": Lab("8480-6", "mm[Hg]", decimals=0),
        "cholesterol_mg_dl": Lab("2093-3", "mg/dL", decimals=0),
        "hba1c_percent": Lab("4548-4", "%"),
        "creatinine_mg_dl": Lab("2160-0", "mg/dL", decimals=2),
        "bmi_kg_m2": Lab("39156-5", "kg/m2"),
    },
    conditions=_ICD10,
    drugs={"metformin": "RX6809", "statin": "RX83367"},
    visit_kinds={"outpatient": "AMB", "inpatient": "IMP", "emergency": "EMER"},
    missing="",
    missing_share={"cholesterol_mg_dl": 0.15, "hba1c_percent": 0.10},
)

SAINT_AUREL = Dialect(
    slug="saint-aurel",
    title="Klinikum Sankt Aurel",
    record_number="A-{:06d}",
    date_format="%d.%m.%Y",
    sex=("m", "w"),
    yes_no=("1", "0"),
    labs={
        "sbp_mmhg": Lab("RRSYS", "mmHg", decimals=0),
        "cholesterol_mg_dl": Lab("CHOL", "mmol/L", factor=1 / 38.67, decimals=2),
        "hba1c_percent": Lab("HBA1C", "%"),
        "creatinine_mg_dl": Lab("KREA", "umol/L", factor=88.42, decimals=0),
        "bmi_kg_m2": Lab("BMI", "kg/m2"),
    },
    conditions={
        "diabetes": "DM2",
        "hypertension": "HYPT",
        "atrial_fibrillation": "VHF",
        "heart_failure": "HINS",
    },
    drugs={"metformin": "METF", "statin": "ATOR"},
    visit_kinds={"outpatient": "ambulant", "inpatient": "stationaer", "emergency": "notfall"},
    missing="NA",
    missing_share={"cholesterol_mg_dl": 0.2, "hba1c_percent": 0.05, "creatinine_mg_dl": 0.05},
    columns={
        "mrn": "patientennummer",
        "name": "patientenname",
        "address": "anschrift",
        "phone": "telefon",
        "birth_date": "geburtsdatum",
        "sex": "geschlecht",
        "smoker": "raucher",
        "ecg": "ekg",
        "recorded": "aufnahme",
        "visit": "fall",
        "kind": "fallart",
        "date": "datum",
        "code": "kuerzel",
        "value": "wert",
        "end_date": "bis",
        "note": "bemerkung",
    },
)

LAKESIDE = Dialect(
    slug="lakeside",
    title="Lakeside General",
    record_number="{:08d}",
    date_format="%m/%d/%Y",
    sex=("Male", "Female"),
    yes_no=("current", "never"),
    labs={  # body mass index is not recorded at all
        "sbp_mmhg": Lab("sys_bp", "mmHg", decimals=0),
        "cholesterol_mg_dl": Lab("chol_total", "mg/dL", decimals=0),
        "hba1c_percent": Lab("a1c", "%"),
        "creatinine_mg_dl": Lab("creat", "mg/dL", decimals=2),
    },
    conditions=_ICD10,
    drugs={"metformin": "0093-1048", "statin": "0071-0155"},
    visit_kinds={"outpatient": "OP", "inpatient": "IP", "emergency": "ER"},
    missing="-9",
    missing_share={"cholesterol_mg_dl": 0.3, "hba1c_percent": 0.2, "creatinine_mg_dl": 0.1},
    wide_labs=True,
    columns={"mrn": "PAT_ID", "birth_date": "DOB", "sex": "GENDER", "date": "EVENT_DT", "visit": "ENC_ID"},
)

VALLEY = Dialect(
    slug="valley",
    title="Valley District Hospital",
    record_number="V{:05d}",
    date_format="%Y%m%d",
    sex=("1", "2"),
    yes_no=None,  # smoking is not recorded
    labs={  # cholesterol is not recorded
        "sbp_mmhg": Lab("BP-S", "kPa", factor=0.133322, decimals=1),
        "hba1c_percent": Lab("GLYHB", "%"),
        "creatinine_mg_dl": Lab("CREA", "umol/L", factor=88.42, decimals=0),
        "bmi_kg_m2": Lab("BMI", "kg/m2"),
    },
    conditions={
        "diabetes": "250",
        "hypertension": "401",
        "atrial_fibrillation": "427",
        "heart_failure": "428",
    },
    drugs={"metformin": "D-MET", "statin": "D-STA"},
    visit_kinds={"outpatient": "1", "inpatient": "2", "emergency": "3"},
    missing="?",
    missing_share={"hba1c_percent": 0.25, "bmi_kg_m2": 0.3},
    columns={"mrn": "no", "birth_date": "born", "date": "day", "code": "item", "value": "result"},
)

DIALECTS = (NORTHGATE, SAINT_AUREL, LAKESIDE, VALLEY)
