"""Dates, numbers and addresses of nobody's in the shapes that documents give them."""

from __future__ import annotations

from datetime import date, timedelta

from tests.deid.styles.people import Person, Rng, pick, town

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOLIDAYS = ("Thanksgiving", "Christmas", "Labor Day", "Easter", "New Year's Eve", "the Fourth of July", "Halloween", "Memorial Day", "Ramadan", "Mother's Day")  # fmt: skip
STREET_NAMES = ("Orchard", "Maple", "Lakeshore", "Old Mill", "Sycamore", "Martin Luther King", "Prospect", "Chestnut Hill", "Bayview", "Cedar Ridge", "Columbus", "Jefferson", "Pine", "2nd", "14th", "Cherry Tree")  # fmt: skip
STREET_KINDS = ("St", "Street", "Ave", "Avenue", "Rd", "Road", "Blvd", "Lane", "Ln.", "Dr", "Court", "Ct", "Way", "Terrace", "Pkwy", "Circle", "Place", "Hwy")  # fmt: skip
STATES = (
    "MA",
    "OH",
    "TX",
    "CA",
    "NY",
    "PA",
    "FL",
    "GA",
    "WA",
    "MI",
    "NC",
    "OR",
    "LA",
    "AZ",
    "Ohio",
    "Texas",
    "Georgia",
)


def ordinal(n: int) -> str:
    """Return 1st, 2nd, 3rd and on."""
    return f"{n}{'th' if 10 < n < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def digits(rng: Rng, count: int) -> str:
    """Return so many digits, the first no zero."""
    return "".join(str(int(d)) for d in (rng.integers(1, 10), *rng.integers(0, 10, count - 1)))


def shaped(rng: Rng, shape: str) -> str:
    """Return the shape with each # a digit and each @ a capital letter."""
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    return "".join(digits(rng, 1) if c == "#" else pick(rng, letters) if c == "@" else c for c in shape)


def a_date(rng: Rng, near: date, how: str) -> str:
    """Return a date near another, written in one of the ways of documents."""
    day = near + timedelta(days=int(rng.integers(-400, 30)))
    y, m, d, month = day.year, day.month, day.day, MONTHS[day.month - 1]
    yy = f"{y % 100:02d}"
    ways = {
        "us": (f"{m:02d}/{d:02d}/{y}", f"{m}/{d}/{y}", f"{m}/{d}/{yy}", f"{m:02d}-{d:02d}-{y}", f"{m:02d}/{d:02d}/{yy}", f"{m}-{d}-{yy}"),
        "iso": (f"{y}-{m:02d}-{d:02d}", f"{y}/{m:02d}/{d:02d}", f"{y}{m:02d}{d:02d}"),
        "dot": (f"{d:02d}.{m:02d}.{y}", f"{d}.{m}.{yy}"),
        "long": (f"{month} {d}, {y}", f"{month} {ordinal(d)}, {y}", f"{d} {month} {y}", f"{month[:3]} {d}, {y}", f"{month[:3]}. {d}, {y}", f"{DAYS[day.weekday()]}, {month} {d}, {y}"),
        "md": (f"{m}/{d}", f"{m:02d}/{d:02d}"),
        "part": (f"{month[:3]} of {y}", f"{month} {y}", f"{month} of {y}", f"{month[:3]} {y}", f"{m}/{y}", f"{month[:3]}-{yy}", f"{month} '{yy}"),
        "ord": (f"{month} {ordinal(d)}", f"the {ordinal(d)} of {month}", f"{month} {d}", f"{d} {month[:3]}", f"{month[:3]} {d}"),
        "day": (f"the {ordinal(d)}",),
        "wd": (DAYS[day.weekday()], DAYS[day.weekday()][:3], DAYS[day.weekday()]),
        "hol": HOLIDAYS,
        "mil": (f"{d:02d}{month[:3].upper()}{y}", f"{d:02d} {month[:3].upper()} {yy}", f"{d:02d}-{month[:3].upper()}-{y}", f"{d}-{month[:3]}-{yy}"),
        "dt": (f"{y}-{m:02d}-{d:02d}T{int(rng.integers(0, 24)):02d}:{int(rng.integers(0, 60)):02d}:00", f"{y}-{m:02d}-{d:02d} {int(rng.integers(0, 24)):02d}:{int(rng.integers(0, 60)):02d}:{int(rng.integers(0, 60)):02d}"),
        "yr": (str(y - int(rng.integers(0, 25))),),
        "birth": (f"{m:02d}/{d:02d}/{y - int(rng.integers(20, 80))}", f"{month} {d}, {y - int(rng.integers(20, 80))}", f"{y - int(rng.integers(20, 80))}-{m:02d}-{d:02d}", f"{m}/{d}/{int(rng.integers(31, 99))}", f"{d:02d}{month[:3].upper()}{y - int(rng.integers(20, 80))}"),
    }  # fmt: skip
    if not how:
        how = pick(rng, ("us", "us", "us", "iso", "long", "long", "dot", "mil"))
    return pick(rng, ways[how])


def street(rng: Rng, *, unlisted: bool) -> str:
    """Return a house in a street."""
    name = town(rng, unlisted=True) if unlisted else pick(rng, STREET_NAMES)
    head = pick(rng, ("", "", "", "N ", "West ", "S. "))
    flat = pick(rng, ("", "", "", " Apt 4B", ", Unit 12", " #302", ", Apartment 7", " Lot 9", ", Suite 210"))
    return f"{int(rng.integers(2, 9900))} {head}{name} {pick(rng, STREET_KINDS)}{flat}"


def address(rng: Rng, home: str, *, unlisted: bool) -> str:
    """Return a whole address of one of many shapes."""
    state, code = pick(rng, STATES), digits(rng, 5)
    name = pick(rng, STREET_NAMES)
    return pick(
        rng,
        (
            f"{street(rng, unlisted=unlisted)}, {home}, {state} {code}",
            f"{street(rng, unlisted=unlisted)}\n{home}, {state} {code}",
            f"{street(rng, unlisted=unlisted)}, {home} {state} {code}-{digits(rng, 4)}",
            f"{street(rng, unlisted=unlisted)}, {home}, {state}",
            f"PO Box {digits(rng, 4)}, {home}, {state} {code}",
            f"P.O. Box {digits(rng, 3)}\n{home}, {state} {code}",
            f"RR {digits(rng, 1)} Box {digits(rng, 3)}, {home}, {state} {code}",
            f"Rural Route {digits(rng, 1)}, Box {digits(rng, 2)}, {home} {state}",
            f"Flat {digits(rng, 1)}, {digits(rng, 2)} {name} Road, {home} {shaped(rng, '@@# #@@')}",
            f"{digits(rng, 3)} {name} Cres, {home}, ON {shaped(rng, '@#@ #@#')}",
        ),
    )


PHONES = ("(###) 555-01##", "###-555-01##", "###.555.01##", "### 555 01##", "555-01##", "+1 ### 555 01##", "1-###-555-01##", "(###)555-01##", "###/555-01##", "(###) 555-01## x###", "###-555-01## ext. ##", "020 7946 0###", "+44 20 7946 0###", "###55501##")  # fmt: skip
MRNS = ("#######", "########", "######", "###-##-##", "###-##-###", "## ## ##", "@######", "@@-######", "E#########", "##-####-#", "MR#######", "0#######", "### ### ###", "##########")  # fmt: skip
ACCOUNTS = (
    "##########",
    "V00#########",
    "####-####-##",
    "@@#########",
    "###########",
    "#### #### ####",
    "H########-#",
)
PLANS = ("@@@#########", "#@@#-@@#-@@##", "W#########", "@@@ ### ### ###", "##########", "YHZ########", "#########A", "####-#######-##")  # fmt: skip
LICENSES = (
    "@#######",
    "@@#######",
    "###-##-####-@",
    "@###-####-####",
    "##########",
    "MD.######",
    "RN-######",
)
PLATES = ("@@@ ####", "#@@@###", "@@@-####", "@@## @@@", "###-@@@", "@@@####")
SERIALS = (
    "@@@######@",
    "SN######",
    "##@@####",
    "@#########",
    "########",
    "@@#-####-##",
    "##########",
    "NBX######@",
)
OTHERS = ("S##-#####", "@@##-######", "##########", "RAD-##-#######", "#######-#", "A####-###", "CT##-######", "####-######", "##@##########", "@-#######")  # fmt: skip


def udi(rng: Rng) -> str:
    """Return a device identifier as its label prints it."""
    return f"(01)00{digits(rng, 12)}(17){digits(rng, 6)}(21){shaped(rng, '@######')}"


def vin(rng: Rng) -> str:
    """Return a vehicle's number; its check digit need not fit."""
    return shaped(rng, pick(rng, ("#@@@@##@##@######", "#@#@@##@#@@######", "@@@@@##@##@######")))


def email(rng: Rng, person: Person) -> str:
    """Return somebody's address."""
    g, f = (
        part.lower().replace(" ", "").replace("'", "").replace(".", "")
        for part in (person.given, person.family)
    )
    local = pick(
        rng,
        (
            f"{g}.{f}",
            f"{g[0]}{f}{digits(rng, 2)}",
            f"{f}_{g}",
            f"{g}{digits(rng, 4)}",
            f"the.{f}s",
            f"{g}+health",
        ),
    )
    return f"{local}@{pick(rng, ('gmail.com', 'yahoo.co.uk', 'stvincent-health.org', 'me.com', 'cox.net', 'example.org', 'school.k12.oh.us'))}"


def url(rng: Rng, person: Person) -> str:
    """Return an address of a page."""
    who = person.family.lower().replace(" ", "").replace("'", "").replace(".", "")
    return pick(
        rng,
        (f"https://mychart.example.org/p/{digits(rng, 7)}", f"www.caringbridge.example/visit/{who}", f"http://10.4.{digits(rng, 2)}.8/pacs?acc={digits(rng, 8)}",
         f"facebook.com/{who}{digits(rng, 2)}", f"https://images.example.net/view?study={digits(rng, 9)}", f"gofundme.com/f/{who}-family"),
    )  # fmt: skip


def ip(rng: Rng) -> str:
    """Return an internet address."""
    return pick(rng, (f"10.{digits(rng, 2)}.{digits(rng, 1)}.{digits(rng, 2)}", f"192.168.{digits(rng, 1)}.{digits(rng, 2)}", f"203.0.113.{digits(rng, 2)}", "2001:db8:85a3::8a2e:370:7334"))  # fmt: skip
