"""Who the generated documents are about: people and towns of nobody's, some of them in no list of the finder.

Nothing here is shared with `sim.notes`, from which the finder's tagger learned.

Guarantee: with `unlisted`, no part of a name or a town is in the finder's lists of names, places or English
words; only what stands around it can give it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from deid.lexicon.language import language
from deid.lexicon.lists import folded
from deid.tagger import ENGLISH_WORD, NAME_OR_PLACE, TOKEN, membership

Rng = np.random.Generator
T = TypeVar("T")

GIVEN = [
    "Aaliyah",
    "Aarav",
    "Abena",
    "Agnieszka",
    "Aiko",
    "Alejandra",
    "Amadou",
    "Amina",
    "Anastasia",
    "Andre",
    "Aoife",
    "Asha",
    "Ayesha",
    "Beatriz",
    "Bogdan",
    "Bram",
    "Brendan",
    "Camila",
    "Carlos",
    "Chiamaka",
    "Chidi",
    "Claire",
    "Darnell",
    "Deepak",
    "Dmitri",
    "Eleni",
    "Elif",
    "Emeka",
    "Esperanza",
    "Fatima",
    "Fiona",
    "Francesca",
    "Giulia",
    "Gretchen",
    "Guillermo",
    "Gunther",
    "Hamza",
    "Hanna",
    "Harold",
    "Hiroshi",
    "Ibrahim",
    "Ingrid",
    "Isabela",
    "Jamal",
    "Jaroslav",
    "Javier",
    "Jiho",
    "Joao",
    "Kateryna",
    "Keisha",
    "Kenji",
    "Khadija",
    "Kofi",
    "Kwame",
    "Lakshmi",
    "Latoya",
    "Leila",
    "Liam",
    "Luis",
    "Magda",
    "Malik",
    "Maria",
    "Marek",
    "Mateo",
    "Mei",
    "Miguel",
    "Min-jun",
    "Mohammed",
    "Nadia",
    "Ngozi",
    "Niamh",
    "Nikolai",
    "Olga",
    "Omar",
    "Padraig",
    "Pilar",
    "Priya",
    "Rachel",
    "Rafael",
    "Rajesh",
    "Rashid",
    "Ruth",
    "Sakura",
    "Samuel",
    "Sanjay",
    "Sean",
    "Shanice",
    "Siobhan",
    "Sofia",
    "Sunil",
    "Svetlana",
    "Tamika",
    "Tariq",
    "Thuy",
    "Tomasz",
    "Tyrone",
    "Valentina",
    "Viktor",
    "Wei",
    "Xiomara",
    "Yasmin",
    "Yusuf",
    "Zainab",
    "Zofia",
    "Edna",
    "Mildred",
    "Gladys",
    "Walter",
    "Eugene",
    "Roscoe",
    "Opal",
    "Barbara",
    "Jo-Ann",
    "Mary-Kate",
    "D'Andre",
    "Jean-Luc",
    "Anne-Marie",
    "La'Tisha",
]
# given names and family names that are words, or of whom something in medicine has its name
WORD_GIVEN = [
    "Will",
    "May",
    "Rose",
    "Hope",
    "Grace",
    "Faith",
    "Joy",
    "Dawn",
    "Summer",
    "Autumn",
    "April",
    "June",
    "August",
    "Mark",
    "Bill",
    "Grant",
    "Drew",
    "Rich",
    "Miles",
    "Chance",
    "Chase",
    "Hunter",
    "Art",
    "Gene",
    "Pat",
    "Sue",
    "Ray",
    "Dean",
    "Guy",
    "Frank",
    "Earnest",
    "Violet",
    "Iris",
    "Daisy",
    "Olive",
    "Ivy",
    "Pearl",
    "Ruby",
    "Amber",
    "Angel",
    "Mercy",
    "Patience",
    "Destiny",
]
FAMILY = [
    "Abdullah",
    "Adeyemi",
    "Aguilar",
    "Ahmed",
    "Al-Masri",
    "Andersson",
    "Antonopoulos",
    "Banerjee",
    "Bergstrom",
    "Bianchi",
    "Castillo",
    "Chaudhry",
    "Chen",
    "Choi",
    "Cohen",
    "Dąbrowski",
    "Delgado",
    "Diallo",
    "Dimitrov",
    "Dubois",
    "Eriksson",
    "Fernandes",
    "Fitzgerald",
    "Gallagher",
    "García",
    "Gonzalez",
    "Goldberg",
    "Hernandez",
    "Hoang",
    "Hussain",
    "Ivanova",
    "Jankowski",
    "Jimenez",
    "Kang",
    "Kaur",
    "Kaczmarek",
    "Khan",
    "Kowalski",
    "Kumar",
    "Le",
    "Lindholm",
    "Lopez",
    "MacDonald",
    "McAllister",
    "McCarthy",
    "Mendoza",
    "Moreau",
    "Müller",
    "Murphy",
    "Mwangi",
    "Nakamura",
    "Ng",
    "Nguyen",
    "Novak",
    "O'Brien",
    "O'Shaughnessy",
    "Oduya",
    "Okafor",
    "Okonkwo",
    "Ortiz",
    "Osei",
    "Papadopoulos",
    "Park",
    "Patel",
    "Pereira",
    "Petrov",
    "Phan",
    "Popescu",
    "Rahman",
    "Ramirez",
    "Reyes",
    "Rossi",
    "Sato",
    "Schneider",
    "Sharma",
    "Silva",
    "Singh",
    "Sokolov",
    "Suzuki",
    "Tanaka",
    "Tesfaye",
    "Torres",
    "Tran",
    "Vasquez",
    "Vu",
    "Wang",
    "Washington",
    "Watanabe",
    "Yamamoto",
    "Yilmaz",
    "Zhang",
    "Ziegler",
    "Johnson",
    "Williams",
    "Jenkins",
    "Robinson",
    "Peterson",
    "Whitfield",
    "Hutchins",
    "Pettigrew",
    "Larkin",
    "Boudreaux",
    "Thibodeaux",
    "Hatfield",
]
WORD_FAMILY = [
    "Young",
    "Long",
    "Brown",
    "Black",
    "White",
    "Green",
    "Gray",
    "Short",
    "Small",
    "Little",
    "Strong",
    "Wise",
    "Day",
    "Rivers",
    "Hill",
    "Wood",
    "Stone",
    "Fields",
    "Cook",
    "Cross",
    "Church",
    "Temple",
    "Price",
    "Love",
    "Cash",
    "Banks",
    "Bush",
    "Rice",
    "Bean",
    "Berry",
    "Snow",
    "Frost",
    "Winter",
    "Noel",
    "March",
    "Moody",
    "Savage",
    "Best",
    "Good",
    "Bone",
    "Head",
    "Foot",
    "Hurt",
    "Payne",
    "Coffin",
    "King",
    "Bishop",
    "Pope",
    "Marsh",
    "Ford",
    "Carr",
    "Swift",
    "Sharp",
    "Stern",
    "Drain",
    "Case",
    "Page",
    "Rush",
    "Walker",
    "Carter",
]
EPONYM_FAMILY = [
    "Foley",
    "Parkinson",
    "Bell",
    "Graves",
    "Cushing",
    "Wilson",
    "Baker",
    "Murphy",
    "Turner",
    "Crohn",
    "Addison",
    "Hickman",
    "Fowler",
    "Gleason",
    "Allen",
]
PARTICLES = (
    "van der ",
    "de la ",
    "von ",
    "St. ",
    "del ",
    "Van ",
    "De ",
    "al-",
    "Abu ",
    "D'",
    "Mc",
    "O'",
    "da ",
    "ben ",
)

_GIVEN_PARTS = (
    (("Olu", "Ade", "Ayo", "Ife", "Temi", "Oye", "Abi"), ("dotunla", "wunmike", "kemisola", "tunrayo", "shindaro", "bukanola")),
    (("Tsi", "Khat", "Mzi", "Gvan", "Zura"), ("rakeli", "unela", "bikoni", "ntsiko")),
    (("Jay", "Brax", "Kyn", "Zay", "Da", "Tay", "Khal", "Ley"), ("vionne", "lynnlee", "tavious", "kenzlie", "shawnique", "quarius", "zleigh")),
    (("Thiru", "Nila", "Kava", "Dinu", "Yoga"), ("chelvi", "vathani", "rathnee", "kumaren", "eswarie")),
    (("Kahi", "Male", "Tau", "Siona", "Fale"), ("lohana", "kaiula", "tasina", "manutai", "fetuo")),
    (("Enkh", "Oyun", "Nur", "Zhan", "Bat"), ("tuyagul", "bayarma", "jargalan", "sultanbe", "gulsima")),
    (("Xochi", "Citla", "Itza", "Nayel"), ("quetzin", "lmina", "chelina", "tlamari")),
    (("Gwen", "Bron", "Eurf", "Llyw"), ("orwela", "fyddan", "ryllisa", "arionn")),
)  # fmt: skip
_FAMILY_PARTS = (
    (("Kveri", "Goderd", "Lashkh", "Tomash"), ("shviladze", "idzeli", "ianishvil")),
    (("Papa", "Kara", "Hadji", "Deli"), ("nikolitsis", "yannakos", "thomaidou")),
    (("Vira", "Jaya", "Guna", "Wije", "Rata"), ("wardhene", "sekeratne", "tillakey", "singhage")),
    (("Okwu", "Chukwu", "Nwa", "Eze", "Ani"), ("dilibe", "nenyem", "kaegbu", "olisah")),
    (("Hjor", "Brynj", "Stein", "Thorv"), ("leifsen", "arsdottur", "grimmsen")),
    (("Ostrow", "Krzem", "Wodz", "Biel"), ("nieczki", "lawczyk", "ienowka", "iszewna")),
    (("Thornle", "Wither", "Crake", "Pember", "Quill", "Hebble"), ("thwaitel", "bothamley", "watersen", "coombey", "sholt")),
    (("Rakoto", "Andria", "Ravalo"), ("manjakely", "nantenain", "zafimahe")),
    (("Tlax", "Quau", "Coyo", "Huitz"), ("calteco", "tzinco", "huatl", "mecatl")),
)  # fmt: skip
TOWNS = [
    "Akron",
    "Albuquerque",
    "Bakersfield",
    "Biloxi",
    "Boise",
    "Brockton",
    "Buffalo",
    "Camden",
    "Chattanooga",
    "Cincinnati",
    "Dayton",
    "Duluth",
    "Durham",
    "El-Paso",
    "Fresno",
    "Galveston",
    "Hartford",
    "Houston",
    "Joliet",
    "Knoxville",
    "Laredo",
    "Lowell",
    "Macon",
    "Memphis",
    "Milwaukee",
    "Modesto",
    "Mobile",
    "Omaha",
    "Peoria",
    "Pittsburgh",
    "Providence",
    "Pueblo",
    "Quincy",
    "Reading",
    "Reno",
    "Rochester",
    "Sacramento",
    "Savannah",
    "Scranton",
    "Spokane",
    "Stockton",
    "Tampa",
    "Toledo",
    "Tucson",
    "Tulsa",
    "Waco",
    "Wichita",
    "Worcester",
    "Yonkers",
    "Leeds",
    "Bristol",
    "Galway",
    "Ottawa",
    "Brisbane",
    "Lyon",
    "Porto",
    "Malmö",
    "Kraków",
]
_TOWN_PARTS = (
    ("Kettle", "Pell", "Wexen", "Tarrow", "Grist", "Umber", "Merrow", "Haskel", "Dunmar", "Velda", "Ossip", "Tchoup", "Nanti", "Skook"),
    ("brooke", "foldt", "marche", "stowe", "minstre", "wickley", "umcheag", "quissett", "burghe", "villette", "atonka", "wannock"),
)  # fmt: skip


def pick(rng: Rng, items: Sequence[T]) -> T:
    """Return one of the items, all alike likely."""
    return items[int(rng.integers(len(items)))]


def listed(name: str) -> bool:
    """Say whether a part of the name is in a list that the finder knows."""
    lists = membership(language("en"))
    return any(lists.get(folded(part), 0) & (NAME_OR_PLACE | ENGLISH_WORD) for part in TOKEN.findall(name))


def _composed(rng: Rng, parts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> str:
    while True:
        heads, tails = pick(rng, parts)
        name = pick(rng, heads) + pick(rng, tails)
        if not listed(name):
            return name


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of nobody's."""

    given: str
    middle: str
    family: str
    suffix: str
    unlisted: bool

    @classmethod
    def draw(cls, rng: Rng, *, unlisted: bool, family: str = "") -> Person:
        """Return a person; with `family` one of that family."""
        middle = pick(rng, "ABCDEGHJKLMNPRSTVW")
        if unlisted:
            last = family or _composed(rng, _FAMILY_PARTS)
            return cls(_composed(rng, _GIVEN_PARTS), middle, last, "", True)
        given = pick(rng, WORD_GIVEN if rng.random() < 0.15 else GIVEN)
        r = rng.random()
        if family:
            last = family
        elif r < 0.14:
            last = pick(rng, WORD_FAMILY)
        elif r < 0.2:
            last = pick(rng, EPONYM_FAMILY)
        elif r < 0.27:
            last = pick(rng, PARTICLES) + pick(rng, FAMILY)
        elif r < 0.34:
            last = f"{pick(rng, FAMILY)}-{pick(rng, FAMILY)}"
        else:
            last = pick(rng, FAMILY)
        return cls(
            given, middle, last, pick(rng, (" Jr.", " Sr.", " III")) if rng.random() < 0.04 else "", False
        )

    def form(self, how: str) -> str:
        """Return the name written in one of the ways of documents."""
        g, m, f = self.given, self.middle, self.family
        forms = {
            "": f"{g} {f}{self.suffix}", "full": f"{g} {f}", "mid": f"{g} {m}. {f}{self.suffix}", "first": g, "last": f,
            "comma": f"{f}, {g} {m}", "comma.": f"{f}, {g} {m}.", "tight": f"{f},{g}", "flast": f"{g[0]}. {f}", "f": f"{g[0]}{f}",
            "init": f"{g[0]}{f[0]}".upper(), "inits": f"{g[0]}{m}{f[0]}".upper(), "dots": f"{g[0]}.{m}.{f[0].upper()}.",
            "firstl": f"{g} {f[0].upper()}.", "lfirst": f"{f} {g}", "user": f"{g[0]}{f}".lower().replace(" ", "").replace("'", "").replace(".", ""),
        }  # fmt: skip
        if how in forms:
            return forms[how]
        changed = how[:-2] if how.endswith("_u") or how.endswith("_l") else how
        text = forms[changed]
        return text.upper() if how.endswith("_u") else text.lower()


def town(rng: Rng, *, unlisted: bool) -> str:
    """Return a town."""
    if unlisted:
        return _composed(rng, (_TOWN_PARTS,))
    return pick(rng, TOWNS).replace("-", " ")
