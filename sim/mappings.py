"""The mapping files of each dialect: what the hospital's own staff would write for `fedtwin node ingest`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from sim.dialects import (
    CONDITION_CONCEPTS,
    DRUG_CONCEPTS,
    ECG_CONCEPT,
    LAB_CONCEPTS,
    LAB_PLAUSIBLE,
    SEX_CONCEPTS,
    SMOKER_CONCEPT,
    VISIT_CONCEPTS,
    Dialect,
)


def write_mappings(dialect: Dialect, folder: Path) -> None:
    """Write one TOML file per kind of source table into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "patients": _patients(dialect),
        "labs": _wide_labs(dialect) if dialect.wide_labs else _long_labs(dialect),
        "diagnoses": _coded(
            dialect, "diagnoses", "condition_occurrence", dialect.conditions, CONDITION_CONCEPTS
        ),
        "medications": _coded(dialect, "medications", "drug_exposure", dialect.drugs, DRUG_CONCEPTS),
    }
    for kind, local in dialect.visit_kinds.items():
        texts[f"visits_{kind}"] = _visits(dialect, f"visits_{local}", VISIT_CONCEPTS[kind])
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(f"# {dialect.title}\n\n{text}", encoding="utf-8")


def _head(dialect: Dialect, name: str, *, date: str) -> str:
    missing = ["", dialect.missing] if dialect.missing else [""]
    title = f"{dialect.slug}-{name}".lower()
    return (
        f"[source]\nname = {_q(title)}\nversion = 1\nfiles = [{_q(name + '.csv')}]\n"
        f"missing = {json.dumps(missing)}\n\n"
        f"[patient]\ncolumn = {_q(dialect.column('mrn'))}\n\n"
        f"[date]\ncolumn = {_q(dialect.column(date))}\nformat = {_q(dialect.date_format)}\n"
    )


def _patients(dialect: Dialect) -> str:
    sexes = _map(zip(dialect.sex, SEX_CONCEPTS, strict=True))
    birth = f"{{ column = {_q(dialect.column('birth_date'))}, format = {_q(dialect.date_format)} }}"
    text = _head(dialect, "patients", date="recorded")
    text += f"\n[person]\nbirth_date = {birth}\n"
    text += f"sex = {{ column = {_q(dialect.column('sex'))}, map = {sexes} }}\n"
    for name in ("name", "address", "phone"):
        text += f"\n[columns.{_q(dialect.column(name))}]\nidentifier = true\n"
    if dialect.yes_no:
        text += (
            f'\n[[events]]\nname = "Smoker"\ntable = "observation"\ncolumn = {_q(dialect.column("smoker"))}\n'
        )
        text += f'kind = "present"\npresent = [{_q(dialect.yes_no[0])}]\nconcept_id = {SMOKER_CONCEPT}\n'
    text += '\n[[events]]\nname = "Electrocardiogram"\ntable = "procedure_occurrence"\n'
    text += f'column = {_q(dialect.column("ecg"))}\nkind = "present"\npresent = ["1"]\n'
    text += f"concept_id = {ECG_CONCEPT}\n"
    return text


def _visits(dialect: Dialect, name: str, concept: int) -> str:
    text = _head(dialect, name, date="date")
    return text + f"\n[visit]\nconcept_id = {concept}\ncolumn = {_q(dialect.column('visit'))}\n"


def _long_labs(dialect: Dialect) -> str:
    text = _head(dialect, "labs", date="date")
    for name in ("unit", "note"):
        text += f"\n[columns.{_q(dialect.column(name))}]\nignore = true\n"
    for name, lab in dialect.labs.items():
        when = f"{{ column = {_q(dialect.column('code'))}, values = [{_q(lab.code)}] }}"
        text += _lab(name, dialect.column("value"), lab.scale) + f"when = {when}\n"
    return text


def _wide_labs(dialect: Dialect) -> str:
    text = _head(dialect, "labs", date="date")
    return text + "".join(_lab(name, lab.code, lab.scale) for name, lab in dialect.labs.items())


def _lab(name: str, column: str, scale: float) -> str:
    concept, unit = LAB_CONCEPTS[name]
    low, high = LAB_PLAUSIBLE[name]
    return (
        f'\n[[events]]\nname = {_q(name)}\ntable = "measurement"\ncolumn = {_q(column)}\nkind = "number"\n'
        f"concept_id = {concept}\nunit_concept_id = {unit}\nscale = {scale!r}\nrange = [{low}, {high}]\n"
    )


def _coded(
    dialect: Dialect, name: str, table: str, codes: Mapping[str, str], concepts: Mapping[str, int]
) -> str:
    text = _head(dialect, name, date="date")
    meaning = _map((code, concepts[key]) for key, code in codes.items())
    text += f'\n[[events]]\ntable = "{table}"\n'
    text += f"concept = {{ column = {_q(dialect.column('code'))}, map = {meaning} }}\n"
    if table == "drug_exposure":
        text += f"end = {{ column = {_q(dialect.column('end_date'))}, format = {_q(dialect.date_format)} }}\n"
    return text


def _map(pairs: Iterable[tuple[str, int]]) -> str:
    return "{ " + ", ".join(f"{_q(code)} = {concept}" for code, concept in pairs) + " }"


def _q(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string
