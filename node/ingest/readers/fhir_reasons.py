"""Why a FHIR resource, or one field of it, gives no fact: the whole list. A reason never carries content."""

from __future__ import annotations

MALFORMED = "malformed"  # not JSON, not FHIR's type for a field that is read, or nested too deep
TOO_LARGE = "too-large"  # a line or an attachment over the limit
UNKNOWN_RESOURCE = "unknown-resource"  # no resource of R4 has this name
NOT_CLINICAL = "not-clinical"  # Practitioner, Organization, Location, OperationOutcome, ...
NOT_SUPPORTED = "not-supported"  # about a patient, but no fact is made of it: CarePlan, Goal, ...
REFERENCE_DATA = "reference-data"  # Medication: read where a record points to it
PROVENANCE = "provenance"  # who wrote what: the node keeps its own
MODIFIER = "modifier-extension"  # an extension that may turn the meaning round; FHIR forbids to ignore it
NO_PATIENT = "no-patient"  # no reference to a patient
NO_CONTENT = "no-content"  # neither a code nor a word says what it is
NOT_FINAL = "not-final"  # draft, planned, preliminary, on hold, of unknown status
NOT_DONE = "not-done"  # it says that something did not happen, and has no id to take back
NOT_CONFIRMED = "not-confirmed"  # provisional, differential, unconfirmed
NOT_ORDERED = "not-ordered"  # a proposal, a plan or an option
CONSENT_GIVEN = "consent-given"  # a consent that takes nothing back
NOT_RESEARCH = "not-research"  # a consent about something else
ENTERED_IN_ERROR = "entered-in-error"  # and has no id to take back, or takes back a withdrawal
BAD_DATE = "bad-date"  # not a FHIR date
NO_TIME_ZONE = "no-time-zone"  # a time of day without its zone: the day is kept
VALUE_IS_TIME = "value-is-a-time"  # facts have no place for a time as a value
SAMPLED_DATA = "sampled-data"  # a waveform inside an Observation
NO_QUANTITY = "no-quantity"  # a relative time (an age, a range) that is not a time
ATTACHMENT_TYPE = "attachment-type"  # not text: PDF, image, CDA
ATTACHMENT_ELSEWHERE = "attachment-elsewhere"  # by URL
BAD_ATTACHMENT = "bad-attachment"  # not base64, or not in the encoding it names

ALL = frozenset(value for name, value in globals().items() if name.isupper() and isinstance(value, str))
