"""Values that are what their value representation says: a number is one, and no name stands in its place.

Nobody checks what a device, or a person at its keyboard, wrote into a field for numbers: what has not the
form of its value representation is left empty, whatever the profile says of the attribute.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

_FORMS = {  # PS3.5 table 6.2-1, as lenient as devices are, but for letters
    "DS": re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"),
    "IS": re.compile(r"[-+]?\d+(?:\.0*)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),  # the cap of ages reads three digits
    "UI": re.compile(r"[\d.]+"),
    "DA": re.compile(r"[\d.]{4,10}"),
    "TM": re.compile(r"[\d:.]{2,16}"),
    "DT": re.compile(r"[\d.+-]{4,26}"),
}
_CHARACTER_SET = 0x00080005


def values(element: DataElement) -> list[str]:
    """Return an element's values as texts."""
    value: Any = element.value
    many = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [str(one) for one in many if one is not None]


def formed(element: DataElement) -> DataElement:
    """Return the element, or an empty one if a value of it has not the form that it must have."""
    texts = [text.strip(" \0") for text in values(element)] if element.VR in ("CS", *_FORMS) else []
    if element.tag == _CHARACTER_SET:
        fits = all(text in python_encoding for text in texts)
    else:
        form = _FORMS.get(element.VR)
        fits = form is None or all(form.fullmatch(text) for text in texts if text)
    return element if fits else DataElement(element.tag, element.VR, None)
