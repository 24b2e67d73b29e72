"""Numbers and codes for numbers and codes: in the same form, and nobody's.

Digits become digits and letters letters; separators, capitals and lengths stay, so that a number means the
same to a reader and to a program. Social security numbers come from the area that is never issued. Where a
number could pass a check (Luhn for cards, NPI and many record numbers; mod 11 for NHS numbers; mod 97 for
IBAN; the ninth place of a VIN), the surrogate fails it: it is no valid number of another person.
"""

from __future__ import annotations

import re

from deid.surrogates_draw import Draw, expanded

_WORD_BEFORE = re.compile(
    r"\s*(?:(?:mrn|ssn|id|no|nr|acct|account|policy|member|lic|license|dea|npi|serial|sn|vin|plate|record)"
    r"\b[\s.:#]*)+",
    re.IGNORECASE,
)
_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9,
                                                   2, 3, 4, 5, 6, 7, 8, 9), strict=True))  # fmt: skip
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_FEWEST_CHECKED = 8  # shorter numbers have no check digit that is in use
_FEWEST_FREE = 2  # a single digit or letter cannot be told from any other
# 900 to 999 are no area numbers of the Social Security Administration; as a taxpayer's number (ITIN, ATIN)
# only groups from 50 are issued
_SSN_AREAS, _SSN_GROUPS = range(900, 1000), range(1, 50)


def number_like(value: str, draw: Draw) -> str:
    """Return a number or code in the form of `value`. Raises: NothingFits."""
    before = _WORD_BEFORE.match(value)
    start = before.end() if before else 0
    body = value[start:]
    if sum(map(str.isalnum, body)) < _FEWEST_FREE:
        start, body = 0, value
    plain = "".join(filter(str.isalnum, body)).upper()
    new = draw.fitting(
        "number",
        plain,
        lambda stream: written_as(plain, expanded(stream, len(plain))),
        accept=lambda made: not could_be_valid(made),
    )
    return value[:start] + fill(body, new)


def ssn_like(value: str, draw: Draw) -> str:
    """Return a social security number that was never issued, in the form of `value`."""
    plain = "".join(filter(str.isdigit, value))
    if len(plain) != 9:
        return number_like(value, draw)

    def make(stream: bytes) -> str:
        area = _SSN_AREAS[int.from_bytes(stream[:4], "big") % len(_SSN_AREAS)]
        group = _SSN_GROUPS[int.from_bytes(stream[4:8], "big") % len(_SSN_GROUPS)]
        return f"{area}{group:02}{int.from_bytes(stream[8:12], 'big') % 10_000:04}"

    return fill(value, draw.fitting("ssn", plain, make))


def written_as(model: str, stream: bytes) -> str:
    """Return letters for letters and digits for digits; one that does not begin with 0 still does not."""
    made = []
    for place, (letter, byte) in enumerate(zip(model, stream, strict=False)):
        if letter.isdigit():
            first = place == 0 and letter != "0" and len(model) > 1
            made.append(str(1 + byte % 9 if first else byte % 10))
        else:
            made.append("ABCDEFGHJKLMNPRSTUVWXYZ"[byte % 23])  # as in a VIN, without I, O and Q
    return "".join(made)


def fill(form: str, new: str) -> str:
    """Return `form` with its letters and digits replaced by those of `new`, in the form's capitals.

    >>> fill("ab-12", "XY34")
    'xy-34'
    """
    letters = iter(new)
    return "".join(
        (next(letters, "0").lower() if one.islower() else next(letters, "0")) if one.isalnum() else one
        for one in form
    )


def could_be_valid(plain: str) -> bool:
    """Return whether letters and digits pass a check that real numbers of their form pass."""
    if plain.isdigit() and len(plain) >= _FEWEST_CHECKED:
        npi = len(plain) == 10 and luhn("80840" + plain)
        nhs = len(plain) == 10 and _mod_11(plain)
        return luhn(plain) or npi or nhs
    if len(plain) == 17 and not set(plain) & set("IOQ"):
        return vin(plain)
    return len(plain) >= 15 and plain[:2].isalpha() and plain[2:4].isdigit() and iban(plain)


def luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of ISO/IEC 7812-1.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def vin(plain: str) -> bool:
    """Return whether the ninth place is the check digit of 49 CFR 565.15.

    >>> vin("1M8GDM9AXKP042788"), vin("1M8GDM9A1KP042788")
    (True, False)
    """
    total = sum(
        weight * (int(letter) if letter.isdigit() else _VIN_VALUES[letter])
        for weight, letter in zip(_VIN_WEIGHTS, plain, strict=True)
    )
    return plain[8] == "0123456789X"[total % 11]


def iban(plain: str) -> bool:
    """Return whether the second pair are the check digits of ISO 13616.

    >>> iban("GB82WEST12345698765432"), iban("GB83WEST12345698765432")
    (True, False)
    """
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _mod_11(digits: str) -> bool:
    check = 11 - sum((10 - place) * int(digit) for place, digit in enumerate(digits[:9])) % 11
    return check % 11 == int(digits[9]) and check != 10
