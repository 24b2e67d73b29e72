"""What is a resource's own (who, when, how much), and what many resources say alike: each taken by itself.

`own` decodes a line to its own part, checked as the whole resource is; `rest` returns everything else that is
read of it, as it is written. Resources of one `rest` give the same facts but for their own part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Union

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import fields

from node.ingest.readers.fhir_drugs import Immunization, MedicationAdministration, MedicationRequest
from node.ingest.readers.fhir_elements import Id, Meta, Period, Quantity, Reference, Resource
from node.ingest.readers.fhir_findings import Condition, Procedure
from node.ingest.readers.fhir_observations import Observation, Result
from node.ingest.readers.fhir_visits import Encounter

TAG: dict[str, Any] = {"tag_field": "resourceType", "gc": False}
NOTHING = Raw()


class Amount(Struct, gc=False):
    """The number of a quantity."""

    value: float | None = None


class Part(Struct, gc=False):
    """The number of a component."""

    valueQuantity: Amount | None = None


@dataclass(frozen=True)
class Form:
    """Which fields of a type of resource are its own. Each time is a slot; a period is two.

    measured: a quantity is its value, and the values of its components.
    """

    resource: type[Resource]
    times: tuple[str, ...] = ()
    periods: tuple[str, ...] = ()
    subject: str = "subject"
    encounter: str | None = "encounter"
    measured: bool = False
    own: type[Struct] = field(init=False)
    rest: type[Struct] = field(init=False)

    def __post_init__(self) -> None:
        own: dict[str, Any] = {"id": Id | None, "meta": Meta | None, self.subject: Reference | None}
        own |= dict.fromkeys(self.times, str | None) | dict.fromkeys(self.periods, Period | None)
        if self.encounter is not None:
            own[self.encounter] = Reference | None
        apart: dict[str, tuple[Any, Any]] = {}
        if self.measured:
            own["valueQuantity"] = Amount | None
            amount = _written(Quantity, {"value": None})
            part = _written(Result, {"valueQuantity": (amount | None, None)})
            apart = {"valueQuantity": (amount | None, None), "component": (tuple[part, ...], ())}  # type: ignore[valid-type]
        made: list[tuple[str, Any, Any]] = [(name, kind, None) for name, kind in own.items()]
        if self.measured:
            made.append(("component", tuple[Part, ...], ()))
        name = self.resource.__name__
        object.__setattr__(self, "own", msgspec.defstruct(name, made, tag=name, **TAG))
        left: dict[str, Any] = dict.fromkeys(own) | apart
        object.__setattr__(self, "rest", _written(self.resource, left, tag=name, **TAG))

    @property
    def slots(self) -> int:
        """How many times a resource may have: when it was last changed, `times`, both ends of `periods`."""
        return 1 + len(self.times) + 2 * len(self.periods)


def _written(form: type[Struct], apart: dict[str, Any], **options: Any) -> type[Struct]:
    """Return the struct of a form's fields as they are written; those in `apart` otherwise, or (None) not."""
    made: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for each in fields(form):
        kind, default = (Raw, NOTHING) if each.name not in apart else apart[each.name] or (None, None)
        if kind is not None:
            made.append((each.name, kind, default))
            rename[each.name] = each.encode_name
    options = {"gc": False} | options
    return msgspec.defstruct(form.__name__, made, omit_defaults=True, rename=rename, **options)


FORMS = (
    Form(Observation, times=("effectiveDateTime", "issued"), periods=("effectivePeriod",), measured=True),
    Form(Condition, times=("onsetDateTime", "abatementDateTime", "recordedDate")),
    Form(Procedure, times=("performedDateTime",), periods=("performedPeriod",)),
    Form(MedicationRequest, times=("authoredOn",)),
    Form(MedicationAdministration, times=("effectiveDateTime",), periods=("effectivePeriod",)),
    Form(Immunization, times=("occurrenceDateTime", "recorded"), subject="patient"),
    Form(Encounter, periods=("period",), encounter=None),
)
OWN: dict[type[Struct], Form] = {form.own: form for form in FORMS}


def own_decoder(others: set[str]) -> msgspec.json.Decoder[Any]:
    """Return a decoder to own parts. `others`: names of resources that have no form, and give empty ones."""
    empty = [msgspec.defstruct(name, [], tag=name, **TAG) for name in sorted(others)]
    return msgspec.json.Decoder(Union[tuple([*OWN, *empty])])  # noqa: UP007 - built at run time


REST: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    Union[tuple(form.rest for form in FORMS)]  # noqa: UP007
)
WRITTEN = msgspec.json.Encoder()
