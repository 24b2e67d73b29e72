"""The times of a batch of facts as they are stored: by the local clock, and moved by the patient's days."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.dates import DatePractice, stored_days, year_of
from node.ingest.columns import moment_at
from node.ingest.fact_columns import DAY_US, NULL, Columns
from node.ingest.facts import Kind, Precision
from node.ingest.records import EARLIEST_DAY, OLDEST_AGE_ON_RECORD

_LATEST_END_DAYS = 366 * 5  # after today: a prescription, a plan
Known = tuple[np.ndarray, np.ndarray]  # values, and which of them are known


class Dates:
    """The times of one batch.

    has_start, plausible      whether there is one, and whether it is a day that can be
    day, stamp                of the start; stamp only where the time of day is known
    has_end, end_day, end_stamp
    version, recorded         when the source recorded it; recorded as it is stored
    born                      year of birth
    """

    def __init__(
        self, columns: Columns, shift: np.ndarray, *, practice: DatePractice, latest_day: int
    ) -> None:
        self._shift = shift
        self._practice = practice
        self._latest_day = latest_day
        start, end, version = (columns.moments(name) for name in ("start", "end", "version"))
        precision = columns.words("precision")
        seconds = (precision == Precision.SECOND) | (
            (precision == None) & (start != NULL) & (start % DAY_US != 0)  # noqa: E711 (elementwise)
        )
        offset = pc.fill_null(columns.facts["utc_offset_min"], 0).to_numpy().astype(np.int64) * 60_000_000
        offset = np.where(seconds, offset, 0)
        self.has_start = start != NULL
        local = np.where(self.has_start, start + offset, 0)
        day = local // DAY_US
        self.plausible = (day >= EARLIEST_DAY) & (day <= latest_day)
        self.day = stored_days(np.where(self.plausible, day, 0), shift, practice)
        shifted = practice is DatePractice.SHIFTED
        self.stamp: Known = (moment_at(self.day, local % DAY_US), seconds & shifted)
        far_end = np.where(end != NULL, end + offset, local)
        end_day = far_end // DAY_US
        # a stay may end after today (a prescription, a plan); an end before its start is the start
        self.has_end = (end != NULL) & (end_day >= day) & (end_day <= latest_day + _LATEST_END_DAYS)
        last = np.where(self.has_end, end_day, np.where(self.plausible, day, 0))
        self.end_day = stored_days(last, shift, practice)
        self.end_stamp: Known = (moment_at(self.end_day, far_end % DAY_US), self.has_end & seconds & shifted)
        self.version: Known = (np.where(version != NULL, version + shift * DAY_US, 0), version != NULL)
        recorded = self.version[0]
        if not shifted:
            recorded = stored_days(recorded // DAY_US - shift, shift, practice) * DAY_US
        self.recorded: Known = (recorded, version != NULL)
        self.born = self._births(columns)

    def _births(self, columns: Columns) -> Known:
        birth = columns.facts["birth"].cast(pa.int32()).cast(pa.int64())
        days = pc.fill_null(birth, NULL).to_numpy()
        known = days != NULL
        oldest = self._latest_day - 366 * OLDEST_AGE_ON_RECORD
        plausible = known & (days <= self._latest_day) & (days >= oldest)
        self._implausible_birth = known & ~plausible & (columns.kind == Kind.PERSON)
        days = np.where(plausible, days, 0)
        yearly = columns.words("precision") == Precision.YEAR
        moved = stored_days(days, self._shift, self._practice)
        return year_of(np.where(yearly, days, moved)), plausible

    def note_births(self, columns: Columns) -> None:
        """Note births that cannot be; what else is said of the person holds."""
        wrong = self._implausible_birth & columns.good
        columns.notes += [
            (record, "birth", "implausible-birth", False) for record in columns.record[wrong].tolist()
        ]

    def days_to(self, shift: np.ndarray) -> np.ndarray:
        """Return the days from the patients' own shifts to others'."""
        return shift - self._shift if self._practice is DatePractice.SHIFTED else np.zeros_like(shift)
