"""People, places, dates and numbers of nobody: what stands in generated notes.

Guarantee: everything is drawn from word lists and the given generator of random numbers; the same seed gives
the same identities. Roughly one name in six is in no list, so that what learns from the notes cannot lean on lists.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import TypeVar

import numpy as np

from deid.lexicon.lists import read_list

Rng = np.random.Generator
T = TypeVar("T")

PARTICLES = ("de", "de la", "van", "van der", "von", "al-", "bin", "del", "di", "da", "dos", "le", "ter", "el", "ben", "St. ", "De", "Van", "Von", "La", "Du", "Mac", "Mc", "O'", "O’", "D'", "Al-", "Abu", "Ibn", "d'", "d’", "D’", "L'", "dell'", "O'", "Ó ", "Ní ", "Mc", "af ", "zu ", "von ")  # fmt: skip
ONSETS = ("b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kh", "kr", "l", "m", "n", "ng", "p", "ph", "pr", "qu", "r", "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "y", "z", "zh", "", "", "ts", "sv", "gh", "mb")  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ei", "ia", "io", "oo", "ou", "y", "ae", "eo", "ö", "é", "á", "ë", "ü", "í", "å", "ø", "ê", "ó", "ã")  # fmt: skip
CODAS = ("", "", "", "n", "r", "s", "l", "m", "k", "t", "d", "th", "rk", "nd", "st", "ng", "ck", "ff", "rn", "x", "sh", "nn", "z", "č", "ń", "ł")  # fmt: skip
NATURE = ("Alder", "Amber", "Ash", "Aspen", "Bay", "Bell", "Birch", "Black", "Blue", "Bracken", "Bramble", "Briar", "Bright", "Brook", "Cedar", "Cherry", "Clear", "Cliff", "Cold", "Copper", "Coral", "Crane", "Crest", "Cypress", "Deer", "Eagle", "East", "Elder", "Elm", "Ember", "Fair", "Falcon", "Fern", "Field", "Fox", "Glen", "Gold", "Granite", "Green", "Grove", "Harbor", "Hawk", "Hawthorn", "Hazel", "Heather", "High", "Hollow", "Holly", "Iron", "Ivy", "Juniper", "Kestrel", "Lake", "Lark", "Laurel", "Linden", "Maple", "Marsh", "Meadow", "Mill", "Moss", "Mountain", "North", "Oak", "Olive", "Orchard", "Otter", "Pebble", "Pine", "Poplar", "Quail", "Raven", "Red", "Ridge", "River", "Robin", "Rock", "Rose", "Rowan", "Sable", "Sage", "Sand", "Silver", "Sky", "South", "Sparrow", "Spring", "Spruce", "Star", "Stone", "Summer", "Sun", "Swan", "Sycamore", "Thistle", "Thorn", "Timber", "Valley", "Vine", "Walnut", "West", "Whit", "White", "Wild", "Willow", "Wind", "Winter", "Wolf", "Wood", "Yarrow")  # fmt: skip
NAME_TAILS = ("wood", "field", "ton", "ford", "well", "ley", "worth", "by", "more", "brook", "dale", "mere", "ridge", "stone", "shaw", "bury", "bridge", "feld", "burg", "ham", "wick", "vane", "holm", "heath", "son", "sen", "ström", "berg", "qvist", "ov", "ova", "enko", "ski", "ska", "wicz", "ić", "vić", "escu", "idis", "poulos", "yan", "dóttir", "ez", "inho", "etti", "ini", "eau", "ard", "mann", "stein", "stra", "sma", "nen")  # fmt: skip
TOWN_TAILS = ("wick", "ford", "haven", "mere", "bridge", "ton", "ville", "burg", "burgh", "field", "bury", "stead", "port", "mouth", "dale", "hurst", "worth", "ham", "chester", "shire", "moor", "stad", "by", "vik", "heim", "grad", "ovo", "ice", "dorf", "hausen", "kirchen", "court", "ac", "polis", "landia")  # fmt: skip
TOWN_WORDS = ("Falls", "Crossing", "Heights", "Springs", "Bay", "Beach", "Park", "Hills", "City", "Hollow", "Junction", "Grove", "Lake", "Point", "Reach", "Heath", "Basin", "Landing", "Mills", "Harbor", "Village", "Township", "Corners", "Ridge", "Valley")  # fmt: skip
TOWN_HEADS = ("New", "North", "South", "East", "West", "Port", "Fort", "San", "Santa", "St.", "Saint", "Mount", "Lake", "Upper", "Lower", "Glen", "El", "Los", "Las", "La", "Le", "Great", "Old", "Cite", "Villa", "Bad", "Point")  # fmt: skip
STREETS = ("Street", "St", "St.", "Avenue", "Ave", "Ave.", "Road", "Rd", "Rd.", "Lane", "Ln", "Drive", "Dr", "Dr.", "Boulevard", "Blvd", "Blvd.", "Court", "Ct", "Ct.", "Place", "Pl", "Way", "Circle", "Cir", "Terrace", "Ter", "Trail", "Parkway", "Pkwy", "Square", "Highway", "Hwy", "Loop", "Row", "Crescent", "Close", "Alley", "Pike", "Turnpike", "Path", "Walk", "Grove", "Gardens", "Mews", "Hill", "Plaza", "Vista", "Run", "Crossing", "View", "Point", "Ridge")  # fmt: skip
STATES = {"Alabama": "AL", "Alaska": "AK", "Arizona": "AZ", "Arkansas": "AR", "California": "CA", "Colorado": "CO", "Connecticut": "CT", "Delaware": "DE", "Florida": "FL", "Georgia": "GA", "Hawaii": "HI", "Idaho": "ID", "Illinois": "IL", "Indiana": "IN", "Iowa": "IA", "Kansas": "KS", "Kentucky": "KY", "Louisiana": "LA", "Maine": "ME", "Maryland": "MD", "Massachusetts": "MA", "Michigan": "MI", "Minnesota": "MN", "Mississippi": "MS", "Missouri": "MO", "Montana": "MT", "Nebraska": "NE", "Nevada": "NV", "New Hampshire": "NH", "New Jersey": "NJ", "New Mexico": "NM", "New York": "NY", "North Carolina": "NC", "North Dakota": "ND", "Ohio": "OH", "Oklahoma": "OK", "Oregon": "OR", "Pennsylvania": "PA", "Rhode Island": "RI", "South Carolina": "SC", "South Dakota": "SD", "Tennessee": "TN", "Texas": "TX", "Utah": "UT", "Vermont": "VT", "Virginia": "VA", "Washington": "WA", "West Virginia": "WV", "Wisconsin": "WI", "Wyoming": "WY"}  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOLIDAYS = ("Christmas", "Thanksgiving", "Easter", "New Year's Day", "New Year's Eve", "Labor Day", "Memorial Day", "Halloween", "the Fourth of July", "Independence Day", "Christmas Eve", "Valentine's Day", "Veterans Day", "Columbus Day", "Hanukkah", "Ramadan", "Passover", "Mother's Day", "Father's Day", "MLK Day", "Good Friday", "Boxing Day", "Diwali", "Eid")  # fmt: skip
HOSPITALS = ("Hospital", "Hospital", "Medical Center", "Medical Center", "General Hospital", "Regional Medical Center", "Clinic", "Memorial Hospital", "Community Hospital", "Children's Hospital", "University Hospital", "Health Center", "Health Centre", "Urgent Care", "Family Practice", "Family Medicine", "Nursing Home", "Rehabilitation Center", "Rehabilitation Hospital", "Hospice", "Surgery Center", "Surgical Centre", "Imaging", "Imaging Center", "Dialysis", "Dialysis Center", "Pediatrics", "Cardiology Associates", "Orthopedics", "Medical Group", "Medical Pavilion", "Cancer Center", "Heart Institute", "Eye Institute", "Women's Center", "Care Home", "Skilled Nursing Facility", "Assisted Living", "Infirmary", "Healthcare", "Health System", "Primary Care", "Primary Care Practice", "Sleep Clinic", "Surgery", "Medical Practice", "Wellness Center", "Recovery Clinic", "Infusion Centre", "Pain Clinic", "Hospital Trust", "Laboratory", "Diagnostics", "Pharmacy", "Home Care", "Home Care Organisation", "Outpatient Unit", "Rehabilitation Unit", "Birth Center", "Psychiatric Center", "VA Medical Center", "Day Surgery", "Walk-in Clinic", "Maternity Hospital", "Oncology", "Radiology", "Neurology Clinic", "Dental Practice", "Care Center", "Veterans Hospital", "Manor", "Hospital and Clinics", "Therapy Center", "Treatment Center", "Polyclinic", "Sanatorium", "Health and Rehab", "Rehab and Wellness", "Health & Rehabilitation", "Regional", "Memorial", "General", "Medical Arts", "VA", "VAMC", "Birthing Center", "Renal Care", "Wound Center", "Eye Associates", "Family Health", "Behavioral Health", "Hospital for Children", "Medical Plaza", "Place", "Village", "Commons")  # fmt: skip
COMPANIES = ("Inc", "Inc.", "LLC", "Ltd", "Corporation", "Corp.", "Company", "Co.", "Group", "Industries", "Bank", "Insurance", "Foods", "Motors", "Airlines", "Electric", "Logistics", "Construction", "Partners", "Systems", "Software", "University", "College", "High School", "Elementary School", "Police Department", "Fire Department", "Steel", "Mutual", "Foundation", "Church", "Media", "Holdings", "Supply", "Plumbing", "Associates", "School District", "& Sons", "& Sons Painting", "Bros", "and Daughters Catering", "Elementary", "Middle School", "Primary School", "Academy", "Community College", "Preschool", "Daycare", "Head Start", "State University", "Tech", "Diner", "Nails", "Bakery", "Mill", "Steelworks", "Shipyard", "Auto Parts", "Body Shop", "Trucking", "Farms", "Warehouse", "Hardware", "Credit Union", "Savings Bank", "Public Schools", "Transit", "Landscaping", "Towing", "Ambulance")  # fmt: skip
HOSTS = ("gmail.com", "yahoo.com", "hotmail.com", "aol.com", "outlook.com", "example.com", "example.org", "mail.example.net", "icloud.com", "verizon.net", "comcast.net", "protonmail.com", "hospital.org", "clinic.example", "care.example.org")  # fmt: skip
TOP = ("com", "org", "net", "edu", "io", "gov", "co.uk", "de", "fr", "info", "health", "example", "be", "se", "ca", "com.au", "es", "it", "nl", "us")  # fmt: skip
PROFESSIONS = ("teacher", "nurse", "electrician", "plumber", "truck driver", "accountant", "lawyer", "firefighter", "police officer", "carpenter", "engineer", "software engineer", "farmer", "waitress", "cook", "chef", "secretary", "librarian", "mechanic", "salesman", "construction worker", "retired teacher", "bus driver", "cashier", "machinist", "welder", "pharmacist", "dentist", "journalist", "painter", "musician", "pilot", "janitor", "hairdresser", "bartender", "postal worker", "real estate agent", "social worker", "professor", "student", "veteran", "bricklayer", "tailor", "fisherman", "butcher", "baker", "warehouse worker", "security guard", "coal miner", "architect")  # fmt: skip


@cache
def _names(which: str) -> tuple[str, ...]:
    return tuple(read_list(which))


@cache
def _words_too(which: str, count: int) -> tuple[str, ...]:
    """Return those of the commonest names that are English words too: Will, Rose, Young."""
    words = frozenset(read_list("words"))
    return tuple(name for name in _names(which)[:count] if name.lower() in words)


def pick(rng: Rng, items: Sequence[T]) -> T:
    """Return one of the items, all alike likely."""
    return items[int(rng.integers(len(items)))]


def common(rng: Rng, items: tuple[str, ...], power: float = 2.5) -> str:
    """Return one of the items; those that stand first are likelier."""
    return items[int(len(items) * rng.random() ** power)]


def syllables(rng: Rng, count: int) -> str:
    """Return a pronounceable word that is in no list."""
    return "".join(
        pick(rng, ONSETS)
        + (pick(rng, VOWELS[:14]) if rng.random() < 0.85 else pick(rng, VOWELS))
        + pick(rng, CODAS)
        for _ in range(count)
    )


def first_name(rng: Rng) -> str:
    """Return a given name."""
    r = rng.random()
    if r < 0.16:
        return syllables(rng, int(rng.integers(1, 4))).capitalize()
    if r < 0.2:
        return f"{common(rng, _names('first_names'))}-{common(rng, _names('first_names'))}"
    if r < 0.27:
        return pick(rng, _words_too("first_names", 1500))
    return common(rng, _names("first_names"), 2.5 if r < 0.6 else 1.0)


def last_name(rng: Rng) -> str:
    """Return a family name."""
    r = rng.random()
    if r < 0.12:
        return (
            syllables(rng, int(rng.integers(1, 3))) + (pick(rng, NAME_TAILS) if rng.random() < 0.4 else "")
        ).capitalize()
    if r < 0.2:
        return pick(rng, NATURE) + pick(rng, NAME_TAILS[:24])
    if r < 0.27:
        particle = pick(rng, PARTICLES)
        gap = "" if particle[-1] in "-'’ " or particle in ("Mac", "Mc") else " "
        return particle + gap + common(rng, _names("surnames"), 1.5)
    if r < 0.32:
        return f"{common(rng, _names('surnames'))}-{common(rng, _names('surnames'), 1.5)}"
    if r < 0.34:
        return f"{common(rng, _names('surnames'))} {common(rng, _names('surnames'), 1.5)}"
    if r < 0.41:
        return pick(rng, _words_too("surnames", 4000))
    return common(rng, _names("surnames"), 3.0 if r < 0.65 else 1.2)


@dataclass(frozen=True, slots=True)
class Person:
    """A person of nobody's."""

    first: str
    middle: str
    last: str

    @classmethod
    def draw(cls, rng: Rng) -> Person:
        """Return a new person."""
        return cls(first_name(rng), first_name(rng), last_name(rng))

    def written(self, rng: Rng, *, form: str = "") -> str:
        """Return the name in one of the ways notes write it."""
        f, m, l = self.first, self.middle, self.last  # noqa: E741 -- first, middle, last
        forms = {
            "full": f"{f} {l}", "middle": f"{f} {m[0]}. {l}", "middle-": f"{f} {m[0]} {l}", "all": f"{f} {m} {l}",
            "initial": f"{f[0]}. {l}", "initials": f"{f[0]}.{m[0]}. {l}", "initial-": f"{f[0]} {l}",
            "comma": f"{l}, {f}", "comma m": f"{l}, {f} {m[0]}.", "comma m-": f"{l}, {f} {m[0]}", "comma i": f"{l}, {f[0]}.",
            "comma all": f"{l}, {f} {m}", "comma tight": f"{l},{f}", "comma i-": f"{l}, {f[0]}", "reversed": f"{l} {f}",
            "jr": f"{f} {l} {pick(rng, ('Jr.', 'Sr.', 'III', 'II', 'Jr', 'IV'))}", "nick": f'{f} "{m}" {l}', "trail": f"{l} {f[0]}", "trail2": f"{l} {f[0]}{m[0]}", "first l": f"{f} {l[0].upper()}.",
            "first": f, "last": l,
        }  # fmt: skip
        if not form:
            r = rng.random()
            if r < 0.42:
                form = "full"
            elif r < 0.86:
                form = pick(rng, tuple(forms)[1:-7])
            else:
                form = pick(rng, tuple(forms)[:-2])
        text = forms[form]
        r = rng.random()
        return text.upper() if r < 0.09 else text.lower() if r < 0.012 + 0.09 else text


def digits(rng: Rng, count: int) -> str:
    """Return so many digits."""
    return "".join(str(d) for d in rng.integers(0, 10, count))


def letters(rng: Rng, count: int) -> str:
    """Return so many capital letters."""
    return "".join(string.ascii_uppercase[i] for i in rng.integers(0, 26, count))


def shaped(rng: Rng, shape: str) -> str:
    """Return `shape` with each 9 a digit, each A a capital letter and each x a hexadecimal digit."""
    return "".join(
        digits(rng, 1) if c == "9" else letters(rng, 1) if c == "A" else "0123456789abcdef"[int(rng.integers(16))] if c == "x" else c
        for c in shape
    )  # fmt: skip


NUMBER_SHAPES = ("999999", "9999999", "99999999", "999999999", "9999999999", "99999", "999-99-99", "9999-9999", "999 999 99", "99-99-99", "999-9999", "A-9999999", "A9999999", "AA999999", "AA-999999", "AA 999999", "AAA-99999", "9999/9999", "999-999-999", "AA99-9999-99", "AA-9999-9999", "A999999999", "9999999A", "999999-A", "99A9999", "AAA999999999", "AA/99999999/99", "AAAA-99999999-A", "#999999", "9999.9999", "99-999999", "AA99999999", "AA-99999-99", "9-999-999", "A99-999999", "AA:999999", "999999/99", "AAA/9999/99", "999 99 999", "A9A9A9A9", "99-9999999", "AAA-AAA-9999", "AA999-A999", "9999 9999 9999")  # fmt: skip


def number(rng: Rng) -> str:
    """Return an identifying number of some institution's own shape."""
    r = rng.random()
    if r < 0.75:
        return shaped(rng, pick(rng, NUMBER_SHAPES))
    parts = [
        ("A" * int(rng.integers(1, 4)) if rng.random() < 0.3 else "9" * int(rng.integers(2, 6)))
        for _ in range(int(rng.integers(1, 4)))
    ]
    if not any("9" in part for part in parts):
        parts.append("999999")
    text = pick(rng, ("-", "", "/", " ", ".", "-")).join(parts)
    return shaped(rng, text + ("" if len(text) > 4 else "9999"))


def phone(rng: Rng) -> str:
    """Return a telephone number."""
    if rng.random() < 0.68:
        area, mid, end = f"{rng.integers(201, 990)}", f"{rng.integers(200, 999)}", digits(rng, 4)
        if rng.random() < 0.4:
            mid = "555"
        text = pick(
            rng,
            (f"({area}) {mid}-{end}", f"{area}-{mid}-{end}", f"{area}.{mid}.{end}", f"({area}){mid}-{end}", f"{area} {mid} {end}", f"+1 {area} {mid} {end}",
             f"+1-{area}-{mid}-{end}", f"1-{area}-{mid}-{end}", f"{area}{mid}{end}", f"{mid}-{end}", f"+1 ({area}) {mid}-{end}", f"{area}/{mid}-{end}", f"001-{area}-{mid}-{end}", f"{mid} {end}", f"+1{area}{mid}{end}"),
        )  # fmt: skip
        if rng.random() < 0.12:
            text += pick(rng, (" x", " ext. ", " ext ", " extension ", "x")) + digits(
                rng, int(rng.integers(2, 5))
            )
        return text
    return shaped(rng, pick(rng, ("+44 99 9999 9999", "+44 9999 999999", "09999 999 999", "099 9999 9999", "+49 99 9999999", "+33 9 99 99 99 99", "09 99 99 99 99", "99 99 99 99", "999 99 999", "+46 (0)99 999 99", "+41 (0)99 999 99 99", "999 999 999", "(99) 9999-9999", "(999) 999 99 99", "+61 9 9999 9999", "99-999 99 99", "09.99.99.99.99", "+34 999 999 999", "999.999.99.99", "+7 999 999-99-99", "+81-9-9999-9999", "(09) 9999 9999", "9999 9999", "999 9999", "(99) 999-999")))  # fmt: skip


def email(rng: Rng, person: Person) -> str:
    """Return an e-mail address, mostly of the person."""
    f, l = (x.lower().replace(" ", "").replace("'", "") for x in (person.first, person.last))  # noqa: E741
    local = pick(rng, (f"{f}.{l}", f"{f}{l}", f"{f[0]}{l}", f"{l}{digits(rng, 2)}", f"{f}_{l}{digits(rng, 3)}", f"{f}+{syllables(rng, 2)}", f"{syllables(rng, 3)}{digits(rng, 2)}", f"{f[0]}.{l}-{digits(rng, 1)}"))  # fmt: skip
    host = pick(rng, HOSTS) if rng.random() < 0.6 else f"{syllables(rng, 2)}.{pick(rng, TOP)}"
    text = f"{local}@{host}"
    return text.upper() if rng.random() < 0.04 else text


def url(rng: Rng) -> str:
    """Return an address of a page."""
    host = f"{pick(rng, ('www.', '', 'portal.', 'my.', 'care.'))}{syllables(rng, 2)}{pick(rng, NATURE) if rng.random() < 0.3 else ''}.{pick(rng, TOP)}"
    path = pick(rng, ("", "/", f"/patient/{digits(rng, 6)}", f"/record/{digits(rng, 4)}?case={digits(rng, 3)}&v=1", f"/~{syllables(rng, 2)}", f"/{syllables(rng, 2)}/{shaped(rng, 'xxxxxxxx')}"))  # fmt: skip
    text = pick(rng, ("https://", "http://", "www.", "https://www.")) + host.removeprefix("www.") + path
    return text


def ip(rng: Rng) -> str:
    """Return an internet address."""
    if rng.random() < 0.75:
        return ".".join(str(n) for n in rng.integers(1, 255, 4))
    return shaped(
        rng,
        pick(
            rng,
            (
                "2001:db8:xxxx::xxxx",
                "fe80::xxxx:xxxx:xxxx:xxxx",
                "2001:db8:xxxx:xxxx:xxxx:xxxx:xxxx:xxxx",
                "2001:db8::xx",
            ),
        ),
    )


def ssn(rng: Rng) -> str:
    """Return a social security number's shape."""
    return shaped(
        rng,
        pick(
            rng,
            (
                "999-99-9999",
                "999-99-9999",
                "999-99-9999",
                "999 99 9999",
                "999999999",
                "***-**-9999",
                "xxx-xx-9999".replace("x", "X"),
                "999.99.9999",
            ),
        ),
    )


def town(rng: Rng) -> str:
    """Return a town, one in three in no list."""
    r = rng.random()
    if r < 0.12:
        name = (syllables(rng, int(rng.integers(1, 3))) + pick(rng, TOWN_TAILS)).capitalize()
        if rng.random() < 0.1:
            name = f"{name} {pick(rng, ('V', 'S', 'Ø', 'N', 'C', 'II', 'upon Avon', 'am Main', 'sur Mer', 'de la Sierra', 'do Sul', 'nad Labem', 'di Sopra', 'VIC', 'ZH'))}"
    elif r < 0.2:
        name = syllables(rng, int(rng.integers(1, 4))).capitalize()
    elif r < 0.28:
        name = pick(rng, NATURE) + pick(rng, TOWN_TAILS[:20])
    elif r < 0.33:
        name = f"{pick(rng, NATURE)} {pick(rng, TOWN_WORDS)}"
    elif r < 0.38:
        name = f"{pick(rng, TOWN_HEADS)} {common(rng, _names('surnames'))}"
    elif r < 0.4:
        low, high = pick(rng, ((0x391, 0x3A9), (0x410, 0x42F), (0x3B1, 0x3C9), (0x430, 0x44F)))
        name = "".join(chr(c) for c in rng.integers(low, high, int(rng.integers(4, 10))) if c != 0x3A2)
    else:
        name = common(rng, _names("places"), 2.0)
    if r < 0.33 and rng.random() < 0.2:
        name = f"{name} {pick(rng, TOWN_WORDS)}"
    return name.upper() if rng.random() < 0.05 else name


def zip_code(rng: Rng) -> str:
    """Return a postal code."""
    return shaped(
        rng,
        pick(
            rng,
            (
                "99999",
                "99999",
                "99999",
                "99999",
                "99999-9999",
                "A9A 9A9",
                "AA9 9AA",
                "9999",
                "9999 AA",
                "99-999",
                "999 99",
                "999999",
                "99999-999",
                "A9 9AA",
            ),
        ),
    )


def street(rng: Rng) -> str:
    """Return a street with its number."""
    base = pick(rng, (common(rng, _names("surnames"), 2.0), pick(rng, NATURE), pick(rng, NATURE) + pick(rng, NAME_TAILS[:16]), first_name(rng), pick(rng, ("Main", "Park", "Oak", "Church", "High", "Washington", "Second", "5th", "42nd", "Martin Luther King", "Broadway", "Elm")), syllables(rng, 2).capitalize(), town(rng)))  # fmt: skip
    house = str(int(10 ** rng.uniform(0.5, 4.6)))
    r = rng.random()
    if r < 0.6:
        way = pick(rng, STREETS)
        heading = pick(rng, ("", "", "", "N ", "South ", "W. ", "NE ", "East "))
        return f"{house} {heading}{base} {way}"
    foreign = (
        f"{base}{pick(rng, ('straße', 'strasse', 'gatan', 'vägen', 'gata', 'veien', 'vej', 'gade', 'katu', 'tie', 'weg', 'laan', 'straat', 'plein', 'str.', 'götu'))} {house[:3]}",
        f"{pick(rng, ('Via', 'Rua', 'Calle', 'Avenida', 'Avda.', 'Rue', 'rue de', 'Rue du', 'Piazza', 'Paseo', 'Carrer', 'Strada', 'ul.', 'Plaza', 'Av.', 'C/', 'Quai', 'Viale', 'Largo', 'Travessa', 'Jalan', 'Postbus', 'Calle de la', 'Avenue', 'Boulevard', 'Chemin des', 'Al.', 'os.'))} {base}{pick(rng, (' ', ', ', ' nº ', ' '))}{house[:3]}",
        f"{house[:3]} {pick(rng, ('rue', 'rue de', 'avenue', 'boulevard', 'allée', 'chemin', 'place', 'Rue', 'Rue El', 'Cité', 'impasse'))} {base}",
        f"{base} {pick(rng, ('u.', 'utca', 'út', 'tér', 'tänav', 'tee', 'iela', 'gatvė', 'Sokak', 'Caddesi', 'náměstí', 'ulica', 'ulice', 'cesta', 'trg', 'allé', 'backen', 'stræde'))} {house[:3]}{pick(rng, ('.', ''))}",
        f"{base} {house[:4]}",
        f"{pick(rng, ('P.O. Box', 'PO Box', 'P. O. Box', 'Box', 'Postbox'))} {house}",
        f"{base} {pick(rng, ('House', 'Cottage', 'Lodge', 'Tower', 'Court', 'Mansions', 'Farm'))}, {house[:2]} {base} {pick(rng, STREETS)}",
    )
    return pick(rng, foreign)


def unit(rng: Rng) -> str:
    """Return a flat's number."""
    return pick(rng, ("Apt ", "Apt. ", "Suite ", "Unit ", "#", "Apartment ", "Appartement ", "Appt ", "Wohnung ", "Piso ", "Ste ", "Flat ", "Room ", "Floor ", "Bldg ", "Lot ", "apt. ")) + pick(rng, (digits(rng, 3), digits(rng, 2), digits(rng, 1), f"{digits(rng, 1)}{letters(rng, 1)}", letters(rng, 1)))  # fmt: skip


def _way(rng: Rng) -> str:
    return pick(
        rng,
        (
            street(rng),
            f"{first_name(rng)} {pick(rng, STREETS)}",
            f"{last_name(rng)} {pick(rng, STREETS)}",
            f"{town(rng)} {pick(rng, STREETS)}",
            syllables(rng, 2).capitalize(),
        ),
    )


def address(rng: Rng) -> str:
    """Return a postal address, in one line or several."""
    r = rng.random()
    state = pick(rng, tuple(STATES.values())) if rng.random() < 0.8 else pick(rng, tuple(STATES))
    gap = pick(rng, (", ", ", ", ", ", "\n", " ", " | ", "\n  ", ",\n"))
    if r < 0.04:
        return pick(rng, (f"PSC {digits(rng, 4)}, Box {digits(rng, 4)}", f"Unit {digits(rng, 4)} Box {digits(rng, 4)}", f"USS {last_name(rng)}", f"CMR {digits(rng, 3)}, Box {digits(rng, 3)}")) + gap + pick(rng, ("APO", "FPO", "DPO")) + pick(rng, (" AA ", " AE ", " AP ")) + digits(rng, 5)  # fmt: skip
    if r < 0.06:
        return f"{pick(rng, ('the corner of ', 'corner of ', '', 'the intersection of '))}{_way(rng)} and {_way(rng)}"
    parts = [street(rng)]
    if rng.random() < 0.3:
        parts.append(unit(rng))
    if rng.random() < 0.08:
        parts[0] = f"{digits(rng, int(rng.integers(2, 6)))} {parts[0]}"
    if rng.random() < 0.9:
        if rng.random() < 0.6:
            parts.append(
                f"{town(rng)}, {state} {zip_code(rng)}"
                if rng.random() < 0.9
                else f"{town(rng)} {state} {zip_code(rng)}"
            )
        else:
            parts.append(
                pick(rng, (f"{zip_code(rng)} {town(rng)}", f"{town(rng)} {zip_code(rng)}", town(rng)))
            )
            if rng.random() < 0.5:
                parts.append(country(rng) + (f" {zip_code(rng)}" if rng.random() < 0.2 else ""))
    text = parts[0] + "".join(
        (gap if n or rng.random() < 0.7 else pick(rng, (" ", ", "))) + part
        for n, part in enumerate(parts[1:])
    )
    q = rng.random()
    return text.upper() if q < 0.05 else text.lower() if q < 0.07 else text


def country(rng: Rng) -> str:
    """Return a country."""
    return pick(rng, _names("places")[:245]) if rng.random() < 0.6 else pick(rng, ("United States", "USA", "Canada", "Mexico", "England", "UK", "U.K.", "Ireland", "Germany", "France", "Spain", "Italy", "Portugal", "Brazil", "India", "China", "Japan", "Korea", "Vietnam", "the Philippines", "Puerto Rico", "Haiti", "Cuba", "Poland", "Russia", "Ukraine", "Greece", "Turkey", "Iran", "Iraq", "Egypt", "Nigeria", "Kenya", "Ghana", "Australia", "New Zealand", "Sweden", "Norway", "Finland", "Denmark", "Iceland", "Czech Republic", "Hungary", "Estonia", "Cyprus", "Tunisia", "South Africa", "Switzerland", "Austria", "Belgium", "Netherlands", "Scotland", "Wales", "Guatemala", "El Salvador", "Colombia", "Peru", "Uruguay", "Argentina", "Chile", "Greenland", "Slovenia", "Cambodia", "Pakistan", "Bangladesh", "Somalia", "Ethiopia"))  # fmt: skip


def hospital(rng: Rng, home: str) -> str:
    """Return the name of a hospital, clinic or practice."""
    kind = pick(rng, HOSPITALS)
    r = rng.random()
    base = (
        home if r < 0.2 else town(rng) if r < 0.4 else common(rng, _names("surnames"), 2.0) if r < 0.55
        else f"{pick(rng, NATURE)} {pick(rng, TOWN_WORDS)}" if r < 0.65 else f"{pick(rng, NATURE)}{pick(rng, TOWN_TAILS[:16])}" if r < 0.7
        else pick(rng, ("St. ", "Saint ", "Mount ", "Our Lady of ")) + common(rng, _names("first_names")) + pick(rng, ("", "'s", "’s")) if r < 0.82
        else syllables(rng, 2).capitalize() if r < 0.9 else pick(rng, ("Mercy", "Providence", "Sacred Heart", "Good Samaritan", "Unity", "Grace", "Trinity", "Bethesda", "Hope", "Northside", "Lakeside", "Riverside", "Sunrise", "Community", "Memorial", "Regional", "Advent", "Baptist", "Methodist", "Presbyterian", "Beth Israel", "Sinai"))
    )  # fmt: skip
    q = rng.random()
    if q < 0.03:
        return (
            "".join(w[0] for w in (base + " " + kind).split() if w[0].isalpha()).upper()
            if " " in base
            else f"{base.upper()}"
        )
    text = (
        f"{base} {kind}"
        if q < 0.93
        else f"{pick(rng, ('University of', 'Hospital of', 'Clinica', 'Centre of'))} {base}"
    )
    return text.upper() if q < 0.08 else text


def company(rng: Rng) -> str:
    """Return the name of an employer, a school, an insurer."""
    r = rng.random()
    base = (
        common(rng, _names("surnames"))
        if r < 0.4
        else pick(rng, NATURE) + " " + pick(rng, NATURE)
        if r < 0.6
        else syllables(rng, 2).capitalize()
        if r < 0.8
        else town(rng)
    )
    if r < 0.12:
        return f"{base}, {last_name(rng)} and {last_name(rng)}"
    if r < 0.2:
        return f"{base}-{last_name(rng)}"
    return f"{base} {pick(rng, COMPANIES)}" if rng.random() < 0.85 else base


def day(rng: Rng, around: date, spread_days: int) -> date:
    """Return a day near another."""
    return around + timedelta(days=int(rng.integers(-spread_days, spread_days + 1)))


def _ordinal(n: int) -> str:
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def written_date(rng: Rng, d: date, *, partial: bool = True) -> str:
    """Return a date in one of the ways notes write it."""
    month, mon = MONTHS[d.month - 1], MONTHS[d.month - 1][:3]
    yy, y, m, n = f"{d.year % 100:02d}", d.year, d.month, d.day
    r = rng.random()
    if r < 0.4:
        sep = pick(rng, ("/", "/", "/", "-", "-", "."))
        a, b = pick(
            rng, ((f"{m:02d}", f"{n:02d}"), (str(m), str(n)), (f"{n:02d}", f"{m:02d}"), (str(n), str(m)))
        )
        return f"{a}{sep}{b}{sep}{pick(rng, (str(y), str(y), yy))}"
    if r < 0.52:
        return pick(rng, (f"{y}-{m:02d}-{n:02d}", f"{y}/{m:02d}/{n:02d}", f"{y}-{m}-{n}", f"{y}{m:02d}{n:02d}", f"{y}.{m:02d}.{n:02d}", f"{y}-{m:02d}-{n:02d}T{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:00Z", f"{y}-{m:02d}-{n:02d} {rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:{rng.integers(0, 60):02d}"))  # fmt: skip
    if r < 0.78 or not partial:
        return pick(rng, (f"{month} {n}, {y}", f"{mon} {n}, {y}", f"{mon}. {n}, {y}", f"{n} {month} {y}", f"{n} {mon} {y}", f"{n}-{mon}-{y}", f"{n:02d}-{mon}-{yy}", f"{n:02d}{mon.upper()}{y}", f"{month} {_ordinal(n)}, {y}", f"{month} {_ordinal(n)} {y}", f"the {_ordinal(n)} of {month} {y}", f"{mon.upper()} {n} {y}", f"{WEEKDAYS[d.weekday()]}, {month} {n}, {y}", f"{month} {n} {y}", f"{_ordinal(n)} {month} {y}", f"{mon}-{n:02d}-{y}", f"{mon}/{n}/{y}", f"{month.lower()} {n}, {y}", f"{month.upper()} {n}, {y}"))  # fmt: skip
    if r < 0.9:
        return pick(rng, (f"{m}/{n}", f"{m}/{n}", f"{month} {n}", f"{month} {_ordinal(n)}", f"{mon} {n}", f"{n} {mon}", f"{n} {month}", f"the {_ordinal(n)} of {month}", f"{m:02d}/{n:02d}", f"{m}-{n}"))  # fmt: skip
    return pick(rng, (f"{month} {y}", f"{month} {y}", f"{m}/{y}", f"{m:02d}/{y}", f"{mon} {y}", f"{mon} '{yy}", f"{month} of {y}", str(y), str(y), f"{month}", f"{mon}-{yy}", f"{WEEKDAYS[d.weekday()]}", pick(rng, HOLIDAYS), f"{pick(rng, ('summer', 'winter', 'spring', 'fall', 'autumn'))} of {y}", f"early {y}", f"'{yy}"))  # fmt: skip
