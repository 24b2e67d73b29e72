"""What became of a folder of files, in numbers: in = stored + turned away, and what stands in the CDM.

`python -m tests.node.ingest.ledgers FOLDER...` prints the summaries of folders of ../shared/data.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from node.genomes.store import GenomeStore
from node.ingest.pipeline import Report
from node.ingest.registry import READERS
from node.omop import starter
from node.omop.side_tables import WAITING, waiting
from tests.node.made_facts import CLOCK, Hospital, hospital

# Wearables and monitors do not say whose they are; somebody at the hospital has to.
BELONGING = """
[source]
timezone = "UTC"
[patients]
"apple_health_export.xml" = "anna"
"test_file.csv" = "ben"
"test_file_freestyle.csv" = "cleo"
"s00001*" = "dora"
"""
# The monitor's file is of the year 2896 (its publishers moved it there); a node takes nothing of the future.
FUTURE, PAST = "10/10/2896", "10/10/2016"
VARIANTS = (".vcf", ".vcf.gz", ".bcf")


def taken_in(folder: Path, where: Path) -> tuple[Hospital, Report]:
    """Load a copy of a folder (the names decide nothing but the order) into a new store in `where`."""
    site = hospital(where, words=False)
    starter.ensure(site.store, now=CLOCK.now())
    shutil.copytree(folder, site.folder, dirs_exist_ok=True)
    (site.folder / "signals.toml").write_text(BELONGING)
    for header in site.folder.glob("*.hea"):
        text = header.read_text()
        header.chmod(0o600)
        header.write_text(text.replace(FUTURE, PAST))
    return site, site.take(readers=READERS)


def summary(site: Hospital, report: Report) -> dict[str, Any]:
    """Return what became of the files, by format, and what the store holds."""
    formats: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    for one in report.sources:
        assert one.unreadable is None, f"a file of {one.format}: {one.unreadable}"
        assert one.records_in == one.stored + one.quarantined, f"a file of {one.format} lost records"
        assert sum(one.reasons.values()) == one.quarantined, f"a file of {one.format} names no reason"
        formats.setdefault(one.format, Counter()).update(
            files=1, records_in=one.records_in, stored=one.stored, superseded=one.superseded
        )
        reasons.setdefault(one.format, Counter()).update(one.reasons)
    fields = site.rows("SELECT reason, count(*) FROM fedtwin_quarantine WHERE NOT whole_row GROUP BY 1")
    return {
        "sources": {
            name: dict(counts) | {"turned_away": dict(sorted(reasons[name].items()))}
            for name, counts in sorted(formats.items())
        },
        "fields_turned_away": dict(sorted(fields)),
        "without_reader": dict(sorted(Counter(Path(name).suffix for name in report.without_reader).items())),
        "cdm": {name: count for name, count in site.store.counts().items() if count and name not in _WORDS},
        "waiting": {
            name: count
            for name, query in _WAITING.items()
            if (count := site.rows(f"SELECT count(*) FROM {query}")[0][0])
        },
        "unmapped": _unmapped(site),
    }


# cover is told in parts, which lie beside the CDM whether or not their person is described
_WAITING = {name: waiting(name) for name in WAITING} | {
    "payer_plan_period": "fedtwin_held_payer_plan_period"
    " WHERE person_id NOT IN (SELECT person_id FROM person)"
}
_WORDS = (
    "concept", "concept_ancestor", "concept_relationship", "concept_synonym", "vocabulary",
    "source_to_concept_map", "cdm_source",
)  # fmt: skip


def _unmapped(site: Hospital) -> dict[str, int]:
    """Records by table, in the CDM or waiting, whose code the starter vocabulary does not have."""
    rows = site.rows(
        "SELECT table_name, count(*) FROM fedtwin_provenance"
        " WHERE regexp_matches(transformations, '\\bunmapped\\b') GROUP BY 1 ORDER BY 1"
    )
    return dict(rows)


def genotypes(folder: Path, where: Path) -> dict[str, Any]:
    """Return what became of the variants of a folder's files."""
    site = hospital(where, words=False)
    genomes = GenomeStore(where / "genomes")
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(VARIANTS):
            load = genomes.add(path, site.vault, namespace="patient", build="GRCh37")
            turned_away = load.turned_away or {}
            assert load.records == load.stored + sum(turned_away.values())
            found[path.name] = {
                "records": load.records,
                "stored": load.stored,
                "samples": load.samples,
                "turned_away": dict(sorted(turned_away.items())),
            }
    site.store.close()
    site.vault.close()
    return found


def main() -> None:
    """Print the summaries."""
    for name in sys.argv[1:]:
        with TemporaryDirectory() as made:
            if "vcf" in name:
                found = genotypes(Path(name), Path(made))
            else:
                site, report = taken_in(Path(name), Path(made))
                found = summary(site, report)
                site.store.close()
                site.vault.close()
        print(json.dumps({Path(name).name: found}, indent=1))


if __name__ == "__main__":
    main()
