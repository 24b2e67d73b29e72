"""Who a patient is, as a source says it: names, contacts, addresses, numbers. Looked for in their texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from deid.spans import Category, Known

LONGEST = 200  # characters: what is longer is no identifier that a text repeats
FEWEST = 3  # letters or digits: shorter ones stand everywhere
SYSTEMS = {
    "phone": Category.PHONE, "fax": Category.PHONE, "pager": Category.PHONE, "sms": Category.PHONE,
    "email": Category.EMAIL, "url": Category.URL,
}  # fmt: skip
NUMBERS = {  # HL7 table 0203
    "MR": Category.MRN, "SS": Category.SSN, "DL": Category.LICENSE, "AN": Category.ACCOUNT,
    "MB": Category.PLAN_ID,
}  # fmt: skip


def known(category: Category, text: object) -> Iterator[Known]:
    """Yield an identifier, if there is one that can be looked for."""
    if isinstance(text, str):
        value = text.strip()
        if sum(c.isalnum() for c in value) >= FEWEST and len(value) <= LONGEST:
            yield Known(category, value)


def of_names(names: Any) -> Iterator[Known]:
    """Yield what is in a list of HumanName, however damaged."""
    for name in _elements(names):
        given = [part for part in _list(name.get("given")) if isinstance(part, str)]
        family = name.get("family")
        whole = [*given, *([family] if isinstance(family, str) else [])]
        yield from known(Category.NAME, " ".join(whole))
        yield from known(Category.NAME, name.get("text"))


def of_contacts(contacts: Any) -> Iterator[Known]:
    """Yield what is in a list of ContactPoint."""
    for contact in _elements(contacts):
        system = contact.get("system")
        yield from known(
            SYSTEMS.get(system, Category.ID) if isinstance(system, str) else Category.ID, contact.get("value")
        )


def of_addresses(addresses: Any) -> Iterator[Known]:
    """Yield lines, towns and postal codes of a list of Address; states and countries may stay."""
    for address in _elements(addresses):
        for line in (
            *_list(address.get("line")),
            *(address.get(key) for key in ("city", "district", "postalCode")),
        ):
            yield from known(Category.ADDRESS, line)


def of_number(value: str | None, codes: Collection[str]) -> Iterator[Known]:
    """Yield an Identifier's value, of the kind that its type's codes say."""
    category = next((NUMBERS[code] for code in sorted(codes) if code in NUMBERS), Category.ID)
    yield from known(category, value)


def _elements(value: Any) -> list[dict[str, Any]]:
    return [element for element in _list(value) if isinstance(element, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
