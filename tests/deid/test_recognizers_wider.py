"""What is found and kept in dictation, exports, chats and letters, and in Spanish addresses."""

from __future__ import annotations

import pytest

from deid.notes import NoteFinder, NotePolicy
from deid.spans import Category
from tests.deid.gone import gone

# spaCy, which presidio imports, imports its command line, whose typer uses names that click deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def finder() -> NoteFinder:
    return NoteFinder.open()


@pytest.fixture(scope="module")
def spanish() -> NoteFinder:
    return NoteFinder.open("es")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Call five five five, oh one two three.", "five"),
        ("Account number three six eight nine zero two. We gave two.", "eight"),
        ("Seen on the third of May, twenty twenty one, in clinic.", "third"),
        ("Born two slash twelve slash sixty one.", "slash"),
        ("Since Thursday the 14th he is better.", "14th"),
        ("PID|1||59-88-65^^^MR||VAN DEN BERG^JORIS^R||19380123|F", "JORIS"),
        ("Follow me on insta @bo_zhouh lol.", "bo_zhouh"),
        ("Medicare: 7499 16385 6/1", "16385"),
        ("Found at 45.62831, -110.43072 by hikers.", "110.43"),
        ("Closed by hdunlap on 02.08.18", "hdunlap"),
        ("Insulin verified w/ VK RN.", "VK"),
        ("He moved to Stoke-on-Trent in spring.", "on-Trent"),
        ("Pt's wife is at SW1A 1AA now.", "1AA"),
        ("Deputy Kowalski #7299 on scene.", "7299"),
        ("LMP 12/25 c/w 9 wk US", "12/25"),
        ("Date of service: 2019/07/10\nCC: cough", "2019"),
        ("DOI: 8/4/2016, claim open", "2016"),
        ("Abd al-Karim Najjar is here.", "Abd"),
        ("Jasmine: on it\nKofi: thanks\nJasmine: done", "Jasmine"),
    ],
)
def test_what_is_said_exported_or_chatted_is_found(finder: NoteFinder, text: str, left: str) -> None:
    assert left not in gone(finder, text)


@pytest.mark.parametrize(
    "text",
    [
        "Rechecked in twenty minutes, GCS fifteen, two tablets every six hours.",
        "Vision 20/40, MoCA 22/30, strength 5/5, 24/7 care.",
        "Variant NM_007294.4:c.1066-6T>G, rs80357906.",
        "App v2.3.1 installed; form rev 3.2.",
        "Cycle 3 day 1 of FOLFOX, hospital day 4.",
        "Charcot-Marie-Tooth and Cheyne-Stokes breathing, Hawkins-Kennedy negative.",
        "Given at bedside @home dose.",
    ],
)
def test_scores_variants_versions_and_eponyms_stay(finder: NoteFinder, text: str) -> None:
    assert gone(finder, text) == text


def test_a_title_or_degree_beside_a_name_is_not_needed(finder: NoteFinder) -> None:
    assert gone(finder, "Scrub: Mustafa Haddad, CST") == "Scrub: ______________, CST"


def test_a_kind_that_the_policy_keeps_hides_none_that_goes() -> None:
    """The tagger may be surer of a profession where a rule sees a number: the number goes all the same."""
    text = "Date July the fifteenth, account number three six eight nine zero two."
    kept = NotePolicy(frozenset(Category) - {Category.PROFESSION})
    assert "nine" not in gone(NoteFinder.open(policy=kept), text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Domicilio: calle cartagena 19, 3B.", "cartagena"),
        ("Hospital Clínico. C/ Feixa Llarga, s/n. 08907 Lorca", "Llarga"),
        ("Ramón Puga, 52. 32005 Ourense", "Puga"),
        ("Intervenido en 1997 y tratado.", "1997"),
        ("28905 Getafe (Madrid), España", "Madrid"),
        ("Remitido por: Dr.Jorge Subirá Ríos.", "Subirá"),
        ("Mujer de 34 años natural de Ponferrada.", "Ponferrada"),
        ("Médico: M.a José Tapia Guerrero", "Guerrero"),
        ("En febrero y abril de 2002 acude.", "febrero"),
        ("Apartado de Correos 20134", "20134"),
    ],
)
def test_spanish_addresses_years_and_names(spanish: NoteFinder, text: str, left: str) -> None:
    assert left not in gone(spanish, text)


@pytest.mark.parametrize("text", ["Omeprazol 20 mg vía oral 2 veces.", "Plaqueta 150, vía aérea 7.5"])
def test_spanish_routes_are_no_streets(spanish: NoteFinder, text: str) -> None:
    assert gone(spanish, text) == text
