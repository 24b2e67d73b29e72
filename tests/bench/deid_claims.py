"""What is claimed of de-identification and is true or not: the tests that try it, counted by claim.

The figures of `deid`, `deid_cores` and `deid_dicom` are shares; these are yes or no: each row of PS3.15's
table under every option, other programs' results beside ours, validity by dciodvfy, linkage with a register
against the stated risk, intervals, sameness, unlinkability, and no identifier in any output.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from tests.bench.figure import Figure

ROOT = Path(__file__).parents[2]
DICOM, TEXT = "tests/deid/dicom", "tests/deid/test_surrogates.py"
CLAIMS: dict[str, tuple[str, ...]] = {
    "every row of PS3.15's table, by profile and option": (f"{DICOM}/test_profile_table.py",),
    "beside dicom-anonymizer, and valid for dciodvfy": (f"{DICOM}/test_other_programs.py",),
    "writing blanked, other pixels unchanged": (f"{DICOM}/test_pixels.py",),
    "linkage finds no more than the stated risk": ("tests/threats/test_deid_linkage.py",),
    "intervals are kept": (
        "tests/deid/test_dates.py::test_intervals_of_one_patient_stay",
        f"{TEXT}::test_the_days_between_two_full_dates_stay_the_same",
        f"{DICOM}/test_engine.py::test_intervals_stay_and_days_do_not",
    ),
    "same input and key, same output; no identifier of the input in it": (
        f"{TEXT}::test_no_output_holds_any_identifier_of_the_input_and_the_same_input_and_key_give_the_same",
        f"{DICOM}/test_engine.py::test_the_same_input_and_key_give_the_same_output_and_another_key_another",
        f"{DICOM}/test_engine.py::test_nothing_of_the_patient_is_in_texts_that_the_table_does_not_name",
        f"{TEXT}::test_surrogates_of_the_public_sets_hold_no_marked_identifier",
    ),
    "two nodes or projects cannot be joined without the key": (
        f"{TEXT}::test_without_the_key_the_outputs_of_two_hospitals_cannot_be_linked",
        "tests/deid/test_vault.py::test_exports_for_two_projects_share_no_id_and_no_shift_and_hang_on_no_key_of_the_store",
        f"{DICOM}/test_engine.py::test_exports_of_two_projects_cannot_be_joined",
    ),
    "formats of marked texts: JSON and i2b2 2014 XML": ("tests/deid/test_gold_formats.py",),
}  # fmt: skip


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield how many tests of each claim passed, of those that ran; name on stderr what did not."""
    for claim, tests in CLAIMS.items():
        passed, ran, skipped = tried(tests, quick=quick)
        yield Figure(claim, passed, f"tests passed; {skipped} skipped", ran, "that ran")


def tried(tests: tuple[str, ...], *, quick: bool) -> tuple[int, int, int]:
    """Return how many tests passed, ran, and were skipped. Raises: RuntimeError."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "report.xml"
        less = ["-m", "not slow"] if quick else []
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={kept}"]
        done = subprocess.run([*command, *less, *tests], cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: some failed
            raise RuntimeError(f"pytest could not run {tests}")
        cases = list(ElementTree.parse(kept).iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    for case in bad:
        sys.stderr.write(f"# failed: {case.get('classname')}::{case.get('name')}\n")
    ran = len(cases) - skipped
    return ran - len(bad), ran, skipped
