"""The closed list of reasons that may leave a hospital. Nothing else about an error ever does."""

from __future__ import annotations

from enum import StrEnum


class RefusalCode(StrEnum):
    """Why a node, or the coordinator, did not do what it was asked."""

    NO_POLICY = "no-policy"
    NOT_ALLOWED = "not-allowed"
    NOT_APPROVED = "not-approved"
    BUDGET_EXHAUSTED = "budget-exhausted"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    BAD_SIGNATURE = "bad-signature"
    UNKNOWN_SIGNER = "unknown-signer"
    MALFORMED = "malformed"
    ROSTER_MISMATCH = "roster-mismatch"
    TOO_FEW_SITES = "too-few-sites"
    TOO_MANY_DROPOUTS = "too-many-dropouts"
    PROTOCOL_VIOLATION = "protocol-violation"
    UNKNOWN_CONCEPT = "unknown-concept"
    NO_DATA = "no-data"
    NOT_READY = "not-ready"
    DEADLINE = "deadline"
    REVOKED = "revoked"
    INVITATION_UNKNOWN = "invitation-unknown"
    INVITATION_USED = "invitation-used"
    INVITATION_EXPIRED = "invitation-expired"
    WRONG_COORDINATOR = "wrong-coordinator"
    KEY_HOLDER_AWAY = "key-holder-away"
    DOES_NOT_FIT = "does-not-fit"
    DATA_QUALITY = "data-quality"
    DEIDENTIFICATION = "de-identification"
    EXACT_NOT_NAMED = "exact-not-named"
    TOO_FEW_PEOPLE = "too-few-people"
    OTHER_MODEL = "other-model"
    INTERNAL = "internal"

    @property
    def help(self) -> str:
        """One sentence for a person: what happened and what to do."""
        return _HELP[self]


_HELP = {
    RefusalCode.NO_POLICY: "The node has no policy file; its staff make one with `fedtwin node policy init`.",
    RefusalCode.NOT_ALLOWED: "The hospital's policy does not allow this.",
    RefusalCode.NOT_APPROVED: "The hospital has not approved this plan: `fedtwin node approve STUDY.toml`.",
    RefusalCode.BUDGET_EXHAUSTED: "The budget does not cover this: `fedtwin node budget` or `query budget`.",
    RefusalCode.REPLAYED: "This question was already answered or is being answered; ask a new one.",
    RefusalCode.EXPIRED: "The request is older than its own deadline; send it again.",
    RefusalCode.BAD_SIGNATURE: "A signature does not hold.",
    RefusalCode.UNKNOWN_SIGNER: "The signer is not in the consortium's roster, or was revoked.",
    RefusalCode.MALFORMED: "The request is malformed.",
    RefusalCode.ROSTER_MISMATCH: "The roster does not match what this node has pinned or accepted.",
    RefusalCode.TOO_FEW_SITES: "Fewer sites can take part than the minimum.",
    RefusalCode.TOO_MANY_DROPOUTS: "More sites dropped out than the noise tolerates; ask again.",
    RefusalCode.PROTOCOL_VIOLATION: "A message breaks the secure-sum protocol; the session is closed.",
    RefusalCode.UNKNOWN_CONCEPT: "A concept is unknown here, or the node has no vocabulary: "
    "`fedtwin node vocabulary load FOLDER`.",
    RefusalCode.NO_DATA: "The node holds no data of this kind; ingest first.",
    RefusalCode.NOT_READY: "The node or coordinator is still starting.",
    RefusalCode.DEADLINE: "It took longer than the deadline.",
    RefusalCode.REVOKED: "This node or researcher has been revoked.",
    RefusalCode.INVITATION_UNKNOWN: "The coordinator knows no such invitation; ask the lead for a new one.",
    RefusalCode.INVITATION_USED: "This invitation was used already; ask the lead for a new one.",
    RefusalCode.INVITATION_EXPIRED: "This invitation has expired; ask the lead for a new one.",
    RefusalCode.WRONG_COORDINATOR: "Whoever answers is not the coordinator that invited; nothing was sent.",
    RefusalCode.KEY_HOLDER_AWAY: "The key-holder is away: `fedtwin keyholder serve` is run there.",
    RefusalCode.DOES_NOT_FIT: "The values are larger than the consortium's encrypted sums can add.",
    RefusalCode.DATA_QUALITY: "The hospital's data are not known to be as good as its policy asks; "
    "its staff look with `fedtwin node quality`.",
    RefusalCode.DEIDENTIFICATION: "It is not known that identity is taken out as well as the policy here "
    "asks; its staff run `fedtwin deid evaluate --home` and `fedtwin deid canary --home`.",
    RefusalCode.EXACT_NOT_NAMED: "This study is without noise, and the hospital's policy does not name it: "
    "its staff add the plan's hash to `studies` under [exact], or do not.",
    RefusalCode.TOO_FEW_PEOPLE: "A hospital has fewer people in this study than it lets into a sum without "
    "noise.",
    RefusalCode.OTHER_MODEL: "The round does not start from the model that this hospital ended its "
    "last one with: the run goes on from its own last checkpoint, or the plan is proposed anew.",
    RefusalCode.INTERNAL: "An internal fault; the node's own log says more.",
}


class Refused(Exception):
    """An expected refusal. Carries its code and nothing else, so that it may leave the hospital."""

    def __init__(self, code: RefusalCode) -> None:
        super().__init__(f"{code.value}: {code.help}")
        self.code = code
