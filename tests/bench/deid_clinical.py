"""Clinical sentences in which nobody is named: every removal is one too many.

Terms are those of the starter vocabulary (drugs and their brands, conditions, measurements, vaccines, with
their synonyms), eponyms of textbooks, laboratory values, doses. They are put into sentences as notes have
them: in lists, after headings, in capitals, at the beginning of a line.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np

EPONYMS = (
    "Parkinson's disease", "Cushing syndrome", "Foley catheter", "Crohn's disease", "Hodgkin lymphoma",
    "Bell's palsy", "Babinski sign", "Glasgow Coma Scale 15", "Apgar 8 and 9", "Graves disease",
    "Addison's disease", "Alzheimer dementia", "Barrett esophagus", "Wilson disease", "Marfan syndrome",
    "Raynaud phenomenon", "Kawasaki disease", "Murphy sign negative", "McBurney point tenderness",
    "Romberg negative", "Trendelenburg position", "Swan-Ganz catheter", "Hickman line", "Jackson-Pratt drain",
    "Whipple procedure", "Nissen fundoplication", "Billroth II", "Mallory-Weiss tear", "Guillain-Barré",
    "Lewy body dementia", "Charcot foot", "Dupuytren contracture", "Colles fracture", "Baker cyst",
    "Ewing sarcoma", "Wilms tumor", "Kaposi sarcoma", "Meckel diverticulum", "Sjögren syndrome",
    "Hashimoto thyroiditis", "Wernicke encephalopathy", "Korsakoff", "Huntington disease", "Tourette",
    "Gleason 3+4", "Child-Pugh B", "Wells score 4.5", "Ranson criteria", "Kussmaul respirations",
    "Homans sign", "Osgood-Schlatter", "Legg-Calvé-Perthes", "Turner syndrome", "Down syndrome",
    "Klinefelter syndrome", "Fanconi anemia", "Bartter syndrome", "Paget disease", "Pott disease",
    "Ringer's lactate", "Doppler ultrasound", "Holter monitor", "Papanicolaou smear", "Coombs test",
    "Gram stain", "Wood's lamp", "Yankauer suction", "Allen test", "Valsalva maneuver", "Heimlich maneuver",
)  # fmt: skip
VALUES = (
    "Na 138, K 4.2, Cl 102, HCO3 24, BUN 18, Cr 1.1", "WBC 11.2, Hgb 9.8, Hct 29.4, Plt 212", "HbA1c 7.9 %",
    "INR 2.4, PTT 34.1", "pH 7.31, pCO2 48, pO2 71", "BP 128/76, HR 88, RR 18, SpO2 96 %, T 37.2",
    "troponin 0.04 ng/mL", "LDL 131 mg/dL", "TSH 2.13 mIU/L", "eGFR 61", "EF 45-50 %", "FEV1/FVC 0.68",
    "L4-L5 disc", "C5-C6", "T2 hyperintensity", "stage IIIA", "grade 2/6 murmur", "G2P1", "NYHA III",
    "ASA 2", "ECOG 1", "GCS 14", "MELD 18", "APACHE II 21", "CHA2DS2-VASc 4", "5 x 3 x 2 cm", "10 mL/h",
)  # fmt: skip
DOSES = (
    "{} 40 mg PO daily", "{} 5 mg by mouth twice a day", "{} 1 g IV q8h", "{} 10 mg qhs prn", "{} 0.5 mg/kg",
    "started on {}", "allergic to {}", "{} was stopped",
)  # fmt: skip
FRAMES = (
    "Assessment: {}.", "History of {}.", "{} noted on exam.", "No evidence of {}.", "Plan: follow up {}.",
    "The patient denies {}.", "PMH:\n- {}\n- hypertension", "Concern for {}; will recheck in 6 weeks.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, and where in it the term stands that must stay."""

    text: str
    start: int
    end: int


def sentences(*, seed: int = 7) -> list[Sentence]:
    """Return a sentence for each term and form; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    drugs, others = list(_terms("ingredients", "vaccines")), list(_terms("conditions", "measurements"))
    pairs = [(DOSES[int(rng.integers(len(DOSES)))], term) for term in drugs]
    pairs += [(FRAMES[int(rng.integers(len(FRAMES)))], term) for term in (*others, *EPONYMS, *VALUES)]
    pairs += [(FRAMES[int(rng.integers(len(FRAMES)))], term.upper()) for term in (*others, *EPONYMS)]
    found = []
    for frame, term in pairs:
        start = frame.index("{}")
        found.append(Sentence(frame.format(term), start, start + len(term)))
    return found


def _terms(*files: str) -> Iterator[str]:
    folder = resources.files("node.omop").joinpath("starter")
    for file in files:
        text = folder.joinpath(f"{file}.csv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            yield row["name"]
            yield from filter(None, row["synonyms"].split(";"))
