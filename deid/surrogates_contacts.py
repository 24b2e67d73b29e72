"""Telephone numbers, mail and web addresses that nobody has, in the form of those they stand for."""

from __future__ import annotations

import ipaddress
import re

from deid.surrogates_draw import Draw, NothingFits, expanded
from deid.surrogates_names import surnames
from deid.surrogates_numbers import fill, written_as

DOMAINS = ("example.com", "example.org", "example.net")  # RFC 2606
_EXTENSION = re.compile(r"(?:\s*(?:ext|x|extension)\.?\s*)(\d+)\s*\Z", re.IGNORECASE)
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(?:www\.)?", re.IGNORECASE)
_DRAMA_UK = "7700900"  # Ofcom: 07700 900000 to 900999 are for drama
_DOCUMENTATION_4 = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737
_DOCUMENTATION_6 = "2001:db8"  # RFC 3849


def phone_like(value: str, draw: Draw) -> str:
    """Return a telephone number in the form of `value`.

    Numbers of ten digits (or eleven from 1) and of seven get 555-0100 to 555-0199, which North America keeps
    for fiction; British mobile numbers get Ofcom's. Others get 555 01 where that fits, else other digits.
    """
    extension = _EXTENSION.search(value)
    body, tail = (value[: extension.start()], value[extension.start() :]) if extension else (value, "")
    if extension:
        digits = extension.group(1)
        new = draw.fitting("extension", digits, lambda stream: written_as(digits, stream))
        tail = fill_digits(tail, new)
    plain = "".join(filter(str.isdigit, body))
    if len(plain) < 2:
        raise NothingFits
    return fill_digits(body, draw.fitting("phone", plain, lambda stream: _phone(plain, stream))) + tail


def _phone(plain: str, stream: bytes) -> str:
    """Return digits in the place of `plain`, of a range for fiction where its form has one."""
    digits = "".join(str(byte % 10) for byte in stream)
    line = f"55501{digits[:2]}"
    if len(plain) == 7:
        return line
    if len(plain) == 10 or (len(plain) == 11 and plain[0] == "1"):
        # an area code looks like one: 2 to 9, then any but two equal digits, which stand for services
        area = f"{2 + stream[10] % 8}{stream[11] % 9}{stream[12] % 10}"
        area = area if area[1] != area[2] else f"{area[:2]}{(int(area[2]) + 1) % 10}"
        return plain[:-10] + area + line
    for prefix in ("44", "0", "0044"):
        if plain.startswith(prefix + "7") and len(plain) == len(prefix) + 10:
            return prefix + _DRAMA_UK + digits[:3]
    if len(plain) >= 9:
        return plain[:1] + digits[: len(plain) - 8] + line
    return written_as(plain, stream)


def fill_digits(form: str, new: str) -> str:
    """Return `form` with its digits replaced by those of `new`; letters stay."""
    digits = iter(new)
    return "".join(next(digits, "0") if one.isdigit() else one for one in form)


def email_like(value: str, draw: Draw) -> str:
    """Return an address at a domain that nobody can have (RFC 2606)."""
    folded = value.casefold()

    def make(stream: bytes) -> str:
        name = surnames()[int.from_bytes(stream[:4], "big") % len(surnames())].lower()
        return f"{name}.{int.from_bytes(stream[4:8], 'big') % 10_000:04}"

    local = draw.fitting("email", folded, make)
    # the domain alone names nobody; it may be the one that the text already has
    return f"{local}@{DOMAINS[draw.stream('domain', folded, 0)[0] % len(DOMAINS)]}"


def url_like(value: str, draw: Draw) -> str:
    """Return a web address at such a domain, with a path as long as the one of `value`."""
    scheme = _SCHEME.match(value)
    start = scheme.group() if scheme else ""
    host, slash, path = value[len(start) :].partition("/")
    domain = DOMAINS[draw.stream("host", host.casefold(), 0)[0] % len(DOMAINS)]
    plain = "".join(filter(str.isalnum, path))
    if not plain:
        name = draw.choice("host name", host.casefold(), surnames()).lower()
        return f"{start}{name}.{domain}{slash}{path}"
    new = draw.fitting(
        "path",
        plain,
        lambda stream: written_as(plain.upper(), expanded(stream, len(plain))),
    )
    return f"{start}{domain}{slash}{fill(path, new)}"


def ip_like(value: str, draw: Draw) -> str:
    """Return an address of a range that documents are written with."""
    plain = value.strip().casefold()
    if ":" in plain:
        tail = draw.fitting("ip", plain, lambda stream: f"{stream[:2].hex()}:{stream[2:4].hex()}")
        return str(ipaddress.IPv6Address(f"{_DOCUMENTATION_6}:{tail}::1"))
    return draw.fitting(
        "ip", plain, lambda stream: f"{_DOCUMENTATION_4[stream[0] % 3]}.{1 + stream[1] % 254}"
    )
