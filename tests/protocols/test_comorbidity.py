"""Comorbidity indices against the published tables, typed here a second time and tried on every short code.

Patterns: Quan et al. 2005, tables 1 and 2. Weights: Charlson et al. 1987; van Walraven et al. 2009, table 2.
"""

import itertools
import re
import string

import pytest

from protocols import comorbidity

CHARLSON = {
    "myocardial-infarction": (1, "I2[12]|I252"),
    "heart-failure": (1, "I099|I110|I130|I132|I255|I420|I42[5-9]|I43|I50|P290"),
    "peripheral-vascular": (1, "I7[01]|I731|I73[89]|I771|I790|I792|K551|K55[89]|Z95[89]"),
    "cerebrovascular": (1, "G4[56]|H340|I6[0-9]"),
    "dementia": (1, "F0[0-3]|F051|G30|G311"),
    "chronic-pulmonary": (1, "I27[89]|J4[0-7]|J6[0-7]|J684|J701|J703"),
    "rheumatic": (1, "M0[56]|M315|M3[234]|M351|M353|M360"),
    "peptic-ulcer": (1, "K2[5-8]"),
    "mild-liver": (1, "B18|K70[01239]|K71[3457]|K7[34]|K760|K76[23489]|Z944"),
    "diabetes": (1, "E1[0-4][01689]"),
    "diabetes-complicated": (2, "E1[0-4][23457]"),
    "paralysis": (2, "G041|G114|G80[12]|G8[12]|G83[012349]"),
    "renal": (2, "I120|I131|N03[2-7]|N05[2-7]|N1[89]|N250|Z49[012]|Z940|Z992"),
    "cancer": (
        2,
        "C[01]|C2[0-6]|C3[0-4]|C3[789]|C4[01]|C43|C4[5-9]|C5[0-8]|C6|C7[0-6]|C8[1-5]|C88|C9[0-7]",
    ),
    "severe-liver": (3, "I85[09]|I864|I982|K704|K711|K72[19]|K76[567]"),
    "metastatic-cancer": (6, "C7[789]|C80"),
    "hiv": (6, "B2[0124]"),
}
ELIXHAUSER = {
    "heart-failure": (7, "I099|I110|I13[02]|I255|I420|I42[5-9]|I43|I50|P290"),
    "arrhythmia": (5, "I44[123]|I45[69]|I4[789]|R00[018]|T821|Z450|Z950"),
    "valvular": (-1, "A520|I0[5678]|I09[18]|I3[4-9]|Q23[0-3]|Z95[234]"),
    "pulmonary-circulation": (4, "I2[67]|I28[089]"),
    "peripheral-vascular": (2, "I7[01]|I73[189]|I771|I79[02]|K55[189]|Z95[89]"),
    "hypertension": (0, "I10"),
    "hypertension-complicated": (0, "I1[1235]"),
    "paralysis": (7, "G041|G114|G80[12]|G8[12]|G83[012349]"),
    "other-neurological": (
        6,
        "G1[0-3]|G2[0-2]|G25[45]|G31[289]|G32|G3[567]|G4[01]|G93[14]|R470|R56",
    ),
    "chronic-pulmonary": (3, "I27[89]|J4[0-7]|J6[0-7]|J684|J70[13]"),
    "diabetes": (0, "E1[0-4][019]"),
    "diabetes-complicated": (0, "E1[0-4][2-8]"),
    "hypothyroidism": (0, "E0[0-3]|E890"),
    "renal": (5, "I120|I131|N1[89]|N250|Z49[012]|Z940|Z992"),
    "liver": (11, "B18|I85|I864|I982|K70|K71[13457]|K7[234]|K760|K76[2-9]|Z944"),
    "peptic-ulcer": (0, "K2[5-8][79]"),
    "hiv": (0, "B2[0124]"),
    "lymphoma": (9, "C8[1-5]|C88|C96|C90[02]"),
    "metastatic-cancer": (12, "C7[789]|C80"),
    "solid-tumour": (4, "C[01]|C2[0-6]|C3[0-4]|C3[789]|C4[01]|C43|C4[5-9]|C5[0-8]|C6|C7[0-6]|C97"),
    "rheumatic": (
        0,
        "L94[013]|M0[568]|M12[03]|M30|M31[0-3]|M3[2-5]|M45|M46[189]",
    ),
    "coagulopathy": (3, "D6[5-8]|D69[13456]"),
    "obesity": (-4, "E66"),
    "weight-loss": (6, "E4[0-6]|R634|R64"),
    "fluid-electrolyte": (5, "E222|E8[67]"),
    "blood-loss-anaemia": (-2, "D500"),
    "deficiency-anaemia": (-2, "D50[89]|D5[123]"),
    "alcohol": (0, "F10|E52|G621|I426|K292|K70[039]|T51|Z502|Z714|Z721"),
    "drugs": (-7, "F1[1-6]|F1[89]|Z715|Z722"),
    "psychosis": (0, "F20|F2[2345]|F2[89]|F302|F31[25]"),
    "depression": (-3, "F204|F31[345]|F3[23]|F341|F412|F432"),
}
TABLES = {"charlson": CHARLSON, "elixhauser": ELIXHAUSER}


@pytest.mark.parametrize("index", TABLES)
def test_every_short_code_is_in_the_groups_of_the_published_table(index: str) -> None:
    names = [group.name for group in comorbidity.groups(index)]
    assert names == list(TABLES[index])
    patterns = [(name, re.compile(pattern)) for name, (_, pattern) in TABLES[index].items()]
    endings = ["", *string.digits]
    found = 0
    for letter, number, ending in itertools.product(string.ascii_uppercase, range(100), endings):
        code = f"{letter}{number:02d}{ending}"
        expected = [name for name, pattern in patterns if pattern.match(code)]
        assert [names[place] for place in comorbidity.groups_of(index, code)] == expected, code
        found += bool(expected)
    assert found > 1000


@pytest.mark.parametrize("index", TABLES)
def test_every_group_has_its_published_weight(index: str) -> None:
    weights, _ = comorbidity.weights(index)
    assert list(weights) == [weight for weight, _ in TABLES[index].values()]
