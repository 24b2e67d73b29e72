"""A small download as athena.ohdsi.org packs it, of concepts that are nobody's."""

from pathlib import Path

VERSION = "v5.0 01-JAN-26"
PARENT, CHILD, OTHER, SOURCE = 5_000_000, 5_000_001, 5_000_002, 5_000_003
FILES = {
    "CONCEPT.csv": [
        "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code"
        "\tvalid_start_date\tvalid_end_date\tinvalid_reason",
        f'{PARENT}\tA "parent", with quotes\tCondition\tMade\tDisorder\tS\tp\t19700101\t20991231\t',
        f"{CHILD}\tA child\tCondition\tMade\tDisorder\tS\tc\t19700101\t20991231\t",
        f"{OTHER}\tAnother\tCondition\tMade\tDisorder\tS\to\t19700101\t20991231\t",
        f"{SOURCE}\tA local code\tCondition\tMade10\tCode\t\ts\t19700101\t20991231\t",
    ],
    "CONCEPT_ANCESTOR.csv": [
        "ancestor_concept_id\tdescendant_concept_id\tmin_levels_of_separation\tmax_levels_of_separation",
        *(f"{above}\t{below}\t{int(above != below)}\t{int(above != below)}" for above, below in [
            (PARENT, PARENT), (CHILD, CHILD), (OTHER, OTHER), (PARENT, CHILD)]),
    ],
    "CONCEPT_RELATIONSHIP.csv": [
        "concept_id_1\tconcept_id_2\trelationship_id\tvalid_start_date\tvalid_end_date\tinvalid_reason",
        f"{SOURCE}\t{OTHER}\tMaps to\t19700101\t20991231\t",
    ],
    "VOCABULARY.csv": [
        "vocabulary_id\tvocabulary_name\tvocabulary_reference\tvocabulary_version\tvocabulary_concept_id",
        f"None\tOMOP Standardized Vocabularies\tOMOP generated\t{VERSION}\t44819096",
    ],
    "DRUG_STRENGTH.csv": ["not\tread"],
}  # fmt: skip


def download(folder: Path, **instead: list[str] | None) -> Path:
    """Write the download, with other lines for the files named (without `.csv`), or without them if None."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in FILES.items():
        found = instead.get(name.removesuffix(".csv"), lines)
        if found is not None:
            (folder / name).write_text("\n".join(found) + "\n", encoding="utf-8")
    return folder
