"""How a study's sums are added up: how large a site it is made for, and which layers are encrypted besides.

    [aggregation]
    site_patients = 5000    patients that a site's sum is made for (default 100,000). A longer sum is
                            shortened to this many times the clip norm; the fewer, the narrower are the
                            words on the wire, and the less can one site move a step
    encrypted_layers = ["out"]   layers whose part of each sum is added up under encryption, by the
                            roster's key-holder; all others are masked. Of the mode "shared-noise", in
                            consortia that add up under masks
    scheme = "ckks" | "bfv"      with which encryption

A key that is at its default does not count for the plan's hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.study_fields import Fields, MalformedStudy, checked_int, checked_list, checked_name

SITE_PATIENTS = 100_000  # privacy.lattice bounds the float error of sums over so many
FEWEST_PATIENTS = 100  # below, rounding of the projection is no longer covered (privacy.lattice.FLOAT_ERROR)
SCHEMES = ("ckks", "bfv")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What a plan says about its sums."""

    site_patients: int = SITE_PATIENTS
    encrypted_layers: tuple[str, ...] = ()
    scheme: str = "ckks"

    def to_json(self) -> dict[str, Any]:
        """Return the fields with defaults left out."""
        found: dict[str, Any] = {}
        if self.site_patients != SITE_PATIENTS:
            found["site_patients"] = self.site_patients
        if self.encrypted_layers:
            found |= {"encrypted_layers": list(self.encrypted_layers), "scheme": self.scheme}
        return found


USUAL = Aggregation()


def parse_aggregation(fields: Fields) -> Aggregation:
    """Return what the table says. Raises: MalformedStudy."""
    patients = checked_int(
        *fields.take("site_patients", SITE_PATIENTS), low=FEWEST_PATIENTS, high=SITE_PATIENTS
    )
    names = checked_list(*fields.take("encrypted_layers", []), at_most=100)
    scheme, path = fields.take("scheme", "ckks")
    fields.done()
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise MalformedStudy("aggregation.encrypted_layers", "names of layers, each once")
    if not names and scheme != "ckks":
        raise MalformedStudy(path, "goes with encrypted_layers")
    return Aggregation(patients, tuple(sorted(names)), checked_name(scheme, path, SCHEMES))


def check_layers(aggregation: Aggregation, layers: list[str]) -> None:
    """Raises: MalformedStudy unless the encrypted layers are some of the model's, and not all of them."""
    unknown = sorted(set(aggregation.encrypted_layers) - set(layers))
    if unknown:
        raise MalformedStudy("aggregation.encrypted_layers", f"the model has the layers {', '.join(layers)}")
    if layers and set(aggregation.encrypted_layers) == set(layers):
        raise MalformedStudy(
            "aggregation.encrypted_layers", "all of them: that is a consortium that adds up under encryption"
        )
