"""Identities planted in the input are looked for everywhere, and the look itself is shown to see."""

import subprocess
import sys
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from deid.canary import MOST_PEOPLE, Watch, canaries
from fedtwin.deid_canary import Flight, _load, _look_into_store, _scratch_home, fly, note_of, planted
from fedtwin.node_ingest import open_store
from privacy.rng import SecureBits
from tests.privacy.seeded_bits import SeededBits

PEOPLE = canaries(MOST_PEOPLE, bits=SeededBits(4))
ONE = PEOPLE[3]


def test_no_two_canaries_share_anything_and_moved_dates_never_meet() -> None:
    forms = [form for person in PEOPLE for _, form in person.forms()]
    shared = {form for form in forms if forms.count(form) > 1}
    # a number without separators is another form of the same number
    assert not {form for form in shared if not form.replace("-", "").isdigit()}
    days = sorted([one.seen for one in PEOPLE])
    assert all((later - before).days > 2 * 365 for before, later in pairwise(days))
    with pytest.raises(ValueError, match="1 to 9"):
        canaries(MOST_PEOPLE + 1, bits=SeededBits(4))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("family", f"seen by {ONE.family.upper()} today"),
        ("given", ONE.given),
        ("mrn", f"x{ONE.mrn}x"),
        ("mrn", int(ONE.mrn)),
        ("ssn", ONE.ssn.replace("-", "")),
        ("phone", ONE.phone),
        ("born", ONE.born.strftime("%m/%d/%Y")),
        ("born", ONE.born),
        ("seen", datetime(ONE.seen.year, ONE.seen.month, ONE.seen.day, 10)),
        ("email", ONE.email.encode("utf-16-le")),
    ],
)
def test_the_watch_sees_each_form_of_an_identity(what: str, value: object) -> None:
    finds = Watch(PEOPLE).in_values([value], "here")
    assert (ONE.number, what) in {(find.canary, find.what) for find in finds}
    assert {find.canary for find in finds} == {ONE.number}


def test_the_watch_sees_nothing_where_nothing_is() -> None:
    values = ["chest pain", 120, 128.5, date(2020, 1, 1), b"\x00" * 100, None, True]
    assert not Watch(PEOPLE).in_values(values, "here")


def test_every_planted_file_holds_every_canary(tmp_path: Path) -> None:
    folder, watch = planted(tmp_path / "in", PEOPLE), Watch(PEOPLE)
    for file in ("export.ndjson", "messages.hl7", "canaries.csv"):
        finds = watch.in_bytes((folder / file).read_bytes(), file)
        assert {find.canary for find in finds} == set(range(MOST_PEOPLE)), file
    kinds = {find.what for find in watch.in_values([note_of(ONE)], "note")}
    assert kinds == {"given", "family", "mrn", "ssn", "phone", "email", "street", "account", "born", "seen"}


@pytest.mark.slow
def test_a_leak_in_the_store_is_found_where_it_lies(tmp_path: Path) -> None:
    """The history of a leak: put a name into a note and a number into a measurement, and look."""
    home = _scratch_home(tmp_path / "home", None)
    said = _load(home, planted(tmp_path / "in", PEOPLE))
    watch, flight = Watch(PEOPLE), Flight()
    assert _look_into_store(home, watch, flight) >= MOST_PEOPLE, said
    clean = set(flight.finds)
    with open_store(home) as store, store.writing() as cursor:
        cursor.execute("UPDATE note SET note_text = note_text || ?", [f" {ONE.street}"])
        cursor.execute("UPDATE measurement SET value_as_number = ?", [float(ONE.mrn)])
        cursor.execute("UPDATE measurement SET measurement_date = ?", [ONE.seen])
    again = Flight()
    _look_into_store(home, watch, again)
    found = {(find.canary, find.what, find.where) for find in again.finds - clean}
    assert (ONE.number, "street", "note.note_text") in found
    assert (ONE.number, "mrn", "measurement.value_as_number") in found
    assert (ONE.number, "seen", "measurement.measurement_date") in found


def test_no_process_of_ours_dumps_its_memory() -> None:
    ask = "import resource; from fedtwin.cli import dump_no_memory as n; n()"
    ask += "; print(resource.getrlimit(resource.RLIMIT_CORE))"
    shell = 'ulimit -c unlimited 2>/dev/null; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", ask], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"(0, 0)"


@pytest.mark.slow
def test_nothing_of_planted_identities_comes_out_anywhere(tmp_path: Path) -> None:
    """Store, files, output, crash, features and update, under the rules that a home begins with."""
    flight = fly(tmp_path, bits=SecureBits())
    assert flight.loaded >= MOST_PEOPLE
    assert {"output", "column", "file", "crash", "tensor"} <= flight.looked.keys()
    assert flight.looked["column"] > 500
    assert not flight.finds


@pytest.mark.slow
def test_where_texts_are_kept_what_the_finder_misses_stands_in_texts_and_nowhere_else() -> None:
    """Names that no list holds are the hardest there are; what is missed of them is counted, not denied."""
    flight = fly(None, bits=SecureBits())
    assert flight.loaded >= MOST_PEOPLE
    texts = ("note_text", "value_as_string", "value_source_value", "value_text", "store/omop.duckdb")
    assert not [find for find in flight.finds if not find.where.endswith(texts)]
    missed = {(find.canary, find.what) for find in flight.finds}
    assert len(missed) <= 0.05 * MOST_PEOPLE * 10  # of ten identifiers of each person
