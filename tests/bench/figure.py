"""One measured figure, and how it is printed."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value beside what it is held against.

    `baseline` is another measurement of the same run, a published figure or a goal; `against` says which.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ""

    def to_json(self) -> str:
        """Return one line of JSON, with the ratio to the baseline where there is one."""
        fields = asdict(self)
        if self.baseline:
            fields["ratio"] = round(self.value / self.baseline, 4)
        return json.dumps(fields)
