"""Why an HL7 v2 message, or one field of it, gives no fact: the whole list. None carries content."""

from __future__ import annotations

# of whole records
NOT_A_MESSAGE = "not-a-message"  # bytes between messages, or no header that can be read
TOO_LARGE = "too-large"  # over the limit of one message
NUL_BYTE = "nul-byte"  # a byte that no character set of HL7 has
ENCODING = "encoding"  # a character set that is not known, or bytes that are not of it
DELIMITERS = "delimiters"  # MSH-1 and MSH-2 are not five different signs
VERSION = "version"  # MSH-12 is not 2.x
BATCH_COUNT = "batch-count"  # a trailer that promises another number of messages than there are
DUPLICATE = "duplicate"  # the same message, byte by byte, stands before it in the file
NOT_CLINICAL = "not-clinical"  # queries, acknowledgements, schedules, master files
NO_PATIENT = "no-patient"  # no PID, or none with an identifier
NO_CONTENT = "no-content"  # nothing in it is a fact
FAULT = "fault"  # the reader stumbled: a bug

# of fields
BAD_TIME = "bad-time"  # not a time of HL7, or not in a year that a patient lives in
BAD_NUMBER = "bad-number"  # not a number where one must be
NO_VALUE = "no-value"  # nothing was said
NOT_FINAL = "not-final"  # preliminary, partial, pending, only ordered
NOT_DONE = "not-done"  # refused, not given, not asked
VALUE_IS_TIME = "value-is-a-time"  # facts have no place for a time as a value
IDENTITY = "identity"  # a name, an address, a telephone or an identifier as a result
BINARY = "binary"  # an image, a PDF or a waveform, or a pointer to one
VALUE_TYPE = "value-type"  # OBX-2 is none that is known
ORDER = "order"  # what is asked for is not what was done
COMPONENT = "component"  # a part of a compound drug: the drug stands for it
PLANNED = "planned"  # a visit that is to come
NO_START = "no-start"  # of a visit that has begun: what was told of it before stays as it is
ACCOUNT_MERGE = "account-merge"  # accounts that move, and visits of which no more is said: nothing follows
STAYS_BEHIND = "stays-behind"  # what was told in an account of the wrong patient, until it is told anew
LINK = "link"  # two patients that are to be shown together: they are not one
ADJUSTMENT = "adjustment"  # a credit or correction of an account: neither charged nor paid
NO_TARGET = "no-target"  # a charge of no visit and no procedure
SELF_MERGE = "self-merge"  # a patient is merged with themselves
LOCAL_SEGMENT = "local-segment"  # Z-segments: what they mean is between two systems
UNKNOWN_SEGMENT = "unknown-segment"  # none of HL7

ALL = frozenset(value for name, value in globals().items() if name.isupper() and isinstance(value, str))
