"""Genomes come in and are scored by two commands; whoever withdraws is gone from them."""

from pathlib import Path

from fedtwin.node_ingest import GENOMES, forget_genomes, open_store
from node.genomes.store import GenomeStore
from tests.fedtwin.conftest import Fedtwin
from tests.node.genomes.test_genomes import write_score, write_vcf

LABS = """
[source]
name = "labs"
version = 1
files = ["labs.csv"]
[patient]
column = "mrn"
[person]
year_of_birth = "yob"
[date]
column = "day"
format = "%Y-%m-%d"
[[events]]
table = "measurement"
column = "value"
kind = "number"
concept_id = 3004249
"""


def test_a_hospital_loads_and_scores_genomes(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    home = ("--home", str(hospital), "--json")
    (tmp_path / "labs.csv").write_text("mrn,yob,day,value\nA,1970,2020-01-05,1\nB,1980,2021-01-05,2\n")
    (tmp_path / "labs.toml").write_text(LABS)
    (tmp_path / "samples.csv").write_text("sample,patient\nM1,A\nM2,B\n")
    vcf, pgs = write_vcf(tmp_path / "a.vcf"), write_score(tmp_path / "s.txt", "1 100 G A 0.5")
    assert fedtwin("node", "ingest", str(tmp_path / "labs.csv"), *home).code == 0
    samples = ("--samples", str(tmp_path / "samples.csv"))
    loaded = fedtwin("node", "load-genomes", str(vcf), *samples, *home)
    assert (loaded.json["stored"], loaded.json["persons"]) == (4, 2)
    scored = fedtwin("node", "score-genomes", str(pgs), *home).json
    assert (scored["score"], scored["genomes"][0]["stored"]) == ("PGS000001", 2)
    unfit = write_score(tmp_path / "u.txt", "1 7 G A 0.5")
    assert fedtwin("node", "score-genomes", str(unfit), *home).code == 3

    with open_store(hospital) as store:
        values = store.cursor().execute(
            "SELECT value_as_number FROM measurement WHERE measurement_source_value = 'PGS000001'"
        )
        assert sorted(values.fetchall()) == [(0.0,), (0.5,)]
        with store.writing() as cursor:
            cursor.execute("INSERT INTO fedtwin_withdrawn SELECT min(person_id) FROM person")
        forget_genomes(hospital, store)
    genomes = GenomeStore(hospital / GENOMES)
    assert [genomes.about(name).persons for name in genomes.names()] == [1]
