from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("invitation_secret", "csr_der", "identity_key", "identity_proof", "flower_public_key", "name")
    INVITATION_SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_PROOF_FIELD_NUMBER: _ClassVar[int]
    FLOWER_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    invitation_secret: bytes
    csr_der: bytes
    identity_key: bytes
    identity_proof: bytes
    flower_public_key: str
    name: str
    def __init__(self, invitation_secret: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., identity_key: _Optional[bytes] = ..., identity_proof: _Optional[bytes] = ..., flower_public_key: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("node_id", "certificate_pem", "ca_pem", "roster_envelope", "roster_key", "broker_address", "fleet_address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    ROSTER_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    ROSTER_KEY_FIELD_NUMBER: _ClassVar[int]
    BROKER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FLEET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    certificate_pem: bytes
    ca_pem: bytes
    roster_envelope: bytes
    roster_key: bytes
    broker_address: str
    fleet_address: str
    def __init__(self, node_id: _Optional[bytes] = ..., certificate_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ..., roster_envelope: _Optional[bytes] = ..., roster_key: _Optional[bytes] = ..., broker_address: _Optional[str] = ..., fleet_address: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_envelope",)
    CSR_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    csr_envelope: bytes
    def __init__(self, csr_envelope: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ...) -> None: ...

class NodeFrame(_message.Message):
    __slots__ = ("hello", "offer_reply", "study_reply", "data_epoch", "sum_advert", "sum_shares", "sum_input", "sum_reveal", "sum_withdraw", "sum_commit", "sum_ciphertext", "sum_endorsement", "sum_agreement", "made_key", "fixed_inputs", "opened_sum")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OFFER_REPLY_FIELD_NUMBER: _ClassVar[int]
    STUDY_REPLY_FIELD_NUMBER: _ClassVar[int]
    DATA_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SUM_ADVERT_FIELD_NUMBER: _ClassVar[int]
    SUM_SHARES_FIELD_NUMBER: _ClassVar[int]
    SUM_INPUT_FIELD_NUMBER: _ClassVar[int]
    SUM_REVEAL_FIELD_NUMBER: _ClassVar[int]
    SUM_WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    SUM_COMMIT_FIELD_NUMBER: _ClassVar[int]
    SUM_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    SUM_ENDORSEMENT_FIELD_NUMBER: _ClassVar[int]
    SUM_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MADE_KEY_FIELD_NUMBER: _ClassVar[int]
    FIXED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    OPENED_SUM_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    offer_reply: OfferReply
    study_reply: StudyReply
    data_epoch: DataEpoch
    sum_advert: SumAdvert
    sum_shares: SumShares
    sum_input: SumInput
    sum_reveal: SumReveal
    sum_withdraw: SumWithdraw
    sum_commit: SumCommit
    sum_ciphertext: SumCiphertext
    sum_endorsement: SumEndorsement
    sum_agreement: SumAgreement
    made_key: MadeKey
    fixed_inputs: FixedInputs
    opened_sum: OpenedSum
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., offer_reply: _Optional[_Union[OfferReply, _Mapping]] = ..., study_reply: _Optional[_Union[StudyReply, _Mapping]] = ..., data_epoch: _Optional[_Union[DataEpoch, _Mapping]] = ..., sum_advert: _Optional[_Union[SumAdvert, _Mapping]] = ..., sum_shares: _Optional[_Union[SumShares, _Mapping]] = ..., sum_input: _Optional[_Union[SumInput, _Mapping]] = ..., sum_reveal: _Optional[_Union[SumReveal, _Mapping]] = ..., sum_withdraw: _Optional[_Union[SumWithdraw, _Mapping]] = ..., sum_commit: _Optional[_Union[SumCommit, _Mapping]] = ..., sum_ciphertext: _Optional[_Union[SumCiphertext, _Mapping]] = ..., sum_endorsement: _Optional[_Union[SumEndorsement, _Mapping]] = ..., sum_agreement: _Optional[_Union[SumAgreement, _Mapping]] = ..., made_key: _Optional[_Union[MadeKey, _Mapping]] = ..., fixed_inputs: _Optional[_Union[FixedInputs, _Mapping]] = ..., opened_sum: _Optional[_Union[OpenedSum, _Mapping]] = ...) -> None: ...

class CoordinatorFrame(_message.Message):
    __slots__ = ("welcome", "offer", "run", "cancel", "study", "roster", "revoked", "sum_open", "sum_adverts", "sum_deliver", "sum_survivors", "sum_result", "sum_close", "sum_key", "sum_inputs", "sum_ciphertext", "sum_endorse", "make_key", "fix_inputs", "open_sum", "forget_keys", "sum_agree")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    SUM_OPEN_FIELD_NUMBER: _ClassVar[int]
    SUM_ADVERTS_FIELD_NUMBER: _ClassVar[int]
    SUM_DELIVER_FIELD_NUMBER: _ClassVar[int]
    SUM_SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    SUM_RESULT_FIELD_NUMBER: _ClassVar[int]
    SUM_CLOSE_FIELD_NUMBER: _ClassVar[int]
    SUM_KEY_FIELD_NUMBER: _ClassVar[int]
    SUM_INPUTS_FIELD_NUMBER: _ClassVar[int]
    SUM_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    SUM_ENDORSE_FIELD_NUMBER: _ClassVar[int]
    MAKE_KEY_FIELD_NUMBER: _ClassVar[int]
    FIX_INPUTS_FIELD_NUMBER: _ClassVar[int]
    OPEN_SUM_FIELD_NUMBER: _ClassVar[int]
    FORGET_KEYS_FIELD_NUMBER: _ClassVar[int]
    SUM_AGREE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: Offer
    run: Run
    cancel: Cancel
    study: StudyProposal
    roster: RosterUpdate
    revoked: Revoked
    sum_open: SumOpen
    sum_adverts: SumAdverts
    sum_deliver: SumDeliver
    sum_survivors: SumSurvivors
    sum_result: SumResult
    sum_close: SumClose
    sum_key: SumKey
    sum_inputs: SumInputs
    sum_ciphertext: SumCiphertext
    sum_endorse: SumEndorse
    make_key: MakeKey
    fix_inputs: FixInputs
    open_sum: OpenSum
    forget_keys: ForgetKeys
    sum_agree: SumAgree
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., run: _Optional[_Union[Run, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., study: _Optional[_Union[StudyProposal, _Mapping]] = ..., roster: _Optional[_Union[RosterUpdate, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., sum_open: _Optional[_Union[SumOpen, _Mapping]] = ..., sum_adverts: _Optional[_Union[SumAdverts, _Mapping]] = ..., sum_deliver: _Optional[_Union[SumDeliver, _Mapping]] = ..., sum_survivors: _Optional[_Union[SumSurvivors, _Mapping]] = ..., sum_result: _Optional[_Union[SumResult, _Mapping]] = ..., sum_close: _Optional[_Union[SumClose, _Mapping]] = ..., sum_key: _Optional[_Union[SumKey, _Mapping]] = ..., sum_inputs: _Optional[_Union[SumInputs, _Mapping]] = ..., sum_ciphertext: _Optional[_Union[SumCiphertext, _Mapping]] = ..., sum_endorse: _Optional[_Union[SumEndorse, _Mapping]] = ..., make_key: _Optional[_Union[MakeKey, _Mapping]] = ..., fix_inputs: _Optional[_Union[FixInputs, _Mapping]] = ..., open_sum: _Optional[_Union[OpenSum, _Mapping]] = ..., forget_keys: _Optional[_Union[ForgetKeys, _Mapping]] = ..., sum_agree: _Optional[_Union[SumAgree, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("software_version", "roster_version", "unanswered", "data_epoch")
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    DATA_EPOCH_FIELD_NUMBER: _ClassVar[int]
    software_version: str
    roster_version: int
    unanswered: _containers.RepeatedScalarFieldContainer[bytes]
    data_epoch: bytes
    def __init__(self, software_version: _Optional[str] = ..., roster_version: _Optional[int] = ..., unanswered: _Optional[_Iterable[bytes]] = ..., data_epoch: _Optional[bytes] = ...) -> None: ...

class DataEpoch(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    def __init__(self, epoch: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("roster_envelope", "heartbeat_s")
    ROSTER_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    roster_envelope: bytes
    heartbeat_s: float
    def __init__(self, roster_envelope: _Optional[bytes] = ..., heartbeat_s: _Optional[float] = ...) -> None: ...

class RosterUpdate(_message.Message):
    __slots__ = ("roster_envelope",)
    ROSTER_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    roster_envelope: bytes
    def __init__(self, roster_envelope: _Optional[bytes] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Offer(_message.Message):
    __slots__ = ("question_id", "question_envelope", "attempt")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    QUESTION_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    question_id: bytes
    question_envelope: bytes
    attempt: int
    def __init__(self, question_id: _Optional[bytes] = ..., question_envelope: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("question_id", "attempt", "refusal")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    question_id: bytes
    attempt: int
    refusal: str
    def __init__(self, question_id: _Optional[bytes] = ..., attempt: _Optional[int] = ..., refusal: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("question_id", "attempt", "session_id", "step")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    question_id: bytes
    attempt: int
    session_id: bytes
    step: int
    def __init__(self, question_id: _Optional[bytes] = ..., attempt: _Optional[int] = ..., session_id: _Optional[bytes] = ..., step: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("question_id", "attempt")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    question_id: bytes
    attempt: int
    def __init__(self, question_id: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class StudyProposal(_message.Message):
    __slots__ = ("study_envelope",)
    STUDY_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    study_envelope: bytes
    def __init__(self, study_envelope: _Optional[bytes] = ...) -> None: ...

class StudyReply(_message.Message):
    __slots__ = ("plan_hash", "refusal")
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    plan_hash: bytes
    refusal: str
    def __init__(self, plan_hash: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class SumOpen(_message.Message):
    __slots__ = ("session_id", "participants", "threshold", "steps", "purpose", "round", "tolerance")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    participants: _containers.RepeatedScalarFieldContainer[bytes]
    threshold: int
    steps: int
    purpose: str
    round: int
    tolerance: int
    def __init__(self, session_id: _Optional[bytes] = ..., participants: _Optional[_Iterable[bytes]] = ..., threshold: _Optional[int] = ..., steps: _Optional[int] = ..., purpose: _Optional[str] = ..., round: _Optional[int] = ..., tolerance: _Optional[int] = ...) -> None: ...

class SumAdvert(_message.Message):
    __slots__ = ("session_id", "envelope")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    envelope: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., envelope: _Optional[bytes] = ...) -> None: ...

class SumAdverts(_message.Message):
    __slots__ = ("session_id", "envelopes")
    class EnvelopesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPES_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    envelopes: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., envelopes: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class SumShares(_message.Message):
    __slots__ = ("session_id", "sealed", "wraps")
    class SealedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    WRAPS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    sealed: _containers.ScalarMap[str, bytes]
    wraps: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., sealed: _Optional[_Mapping[str, bytes]] = ..., wraps: _Optional[bytes] = ...) -> None: ...

class SumDeliver(_message.Message):
    __slots__ = ("session_id", "sealed")
    class SealedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    sealed: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., sealed: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class SumInput(_message.Message):
    __slots__ = ("session_id", "step", "context", "masked", "offset", "length", "lanes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    context: bytes
    masked: bytes
    offset: int
    length: int
    lanes: int
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., context: _Optional[bytes] = ..., masked: _Optional[bytes] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., lanes: _Optional[int] = ...) -> None: ...

class SumAgree(_message.Message):
    __slots__ = ("session_id", "step", "survivors")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    survivors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., survivors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SumAgreement(_message.Message):
    __slots__ = ("session_id", "step", "statement")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    statement: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., statement: _Optional[bytes] = ...) -> None: ...

class SumSurvivors(_message.Message):
    __slots__ = ("session_id", "step", "survivors", "agreements")
    class AgreementsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    AGREEMENTS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    survivors: _containers.RepeatedScalarFieldContainer[bytes]
    agreements: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., survivors: _Optional[_Iterable[bytes]] = ..., agreements: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class SumReveal(_message.Message):
    __slots__ = ("session_id", "step", "shares")
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    shares: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., shares: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class SumResult(_message.Message):
    __slots__ = ("session_id", "step", "total", "contributors", "offset", "length", "lanes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    total: bytes
    contributors: int
    offset: int
    length: int
    lanes: int
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., total: _Optional[bytes] = ..., contributors: _Optional[int] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., lanes: _Optional[int] = ...) -> None: ...

class SumWithdraw(_message.Message):
    __slots__ = ("session_id", "refusal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    refusal: str
    def __init__(self, session_id: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class SumClose(_message.Message):
    __slots__ = ("session_id", "refusal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    refusal: str
    def __init__(self, session_id: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class SumKey(_message.Message):
    __slots__ = ("session_id", "step", "public_key", "statement")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    public_key: bytes
    statement: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., public_key: _Optional[bytes] = ..., statement: _Optional[bytes] = ...) -> None: ...

class SumCommit(_message.Message):
    __slots__ = ("session_id", "step", "statement")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    statement: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., statement: _Optional[bytes] = ...) -> None: ...

class SumInputs(_message.Message):
    __slots__ = ("session_id", "step", "commitments", "fixed")
    class CommitmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    commitments: _containers.ScalarMap[str, bytes]
    fixed: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., commitments: _Optional[_Mapping[str, bytes]] = ..., fixed: _Optional[bytes] = ...) -> None: ...

class SumCiphertext(_message.Message):
    __slots__ = ("session_id", "step", "ciphertext", "node_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    ciphertext: bytes
    node_id: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., ciphertext: _Optional[bytes] = ..., node_id: _Optional[bytes] = ...) -> None: ...

class SumEndorse(_message.Message):
    __slots__ = ("session_id", "step", "survivors")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    survivors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., survivors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SumEndorsement(_message.Message):
    __slots__ = ("session_id", "step", "statement")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    statement: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., statement: _Optional[bytes] = ...) -> None: ...

class MakeKey(_message.Message):
    __slots__ = ("terms", "step", "scheme")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    terms: SumOpen
    step: int
    scheme: str
    def __init__(self, terms: _Optional[_Union[SumOpen, _Mapping]] = ..., step: _Optional[int] = ..., scheme: _Optional[str] = ...) -> None: ...

class MadeKey(_message.Message):
    __slots__ = ("session_id", "step", "public_key", "statement", "refusal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    public_key: bytes
    statement: bytes
    refusal: str
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., public_key: _Optional[bytes] = ..., statement: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class FixInputs(_message.Message):
    __slots__ = ("session_id", "step", "commitments")
    class CommitmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    commitments: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., commitments: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class FixedInputs(_message.Message):
    __slots__ = ("session_id", "step", "statement", "refusal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    statement: bytes
    refusal: str
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., statement: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class OpenSum(_message.Message):
    __slots__ = ("session_id", "step", "survivors", "total", "endorsements")
    class EndorsementsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    ENDORSEMENTS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    survivors: _containers.RepeatedScalarFieldContainer[bytes]
    total: bytes
    endorsements: _containers.ScalarMap[str, bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., survivors: _Optional[_Iterable[bytes]] = ..., total: _Optional[bytes] = ..., endorsements: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class OpenedSum(_message.Message):
    __slots__ = ("session_id", "step", "total", "refusal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    step: int
    total: bytes
    refusal: str
    def __init__(self, session_id: _Optional[bytes] = ..., step: _Optional[int] = ..., total: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class ForgetKeys(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    def __init__(self, session_id: _Optional[bytes] = ...) -> None: ...

class AskRequest(_message.Message):
    __slots__ = ("question_envelope",)
    QUESTION_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    question_envelope: bytes
    def __init__(self, question_envelope: _Optional[bytes] = ...) -> None: ...

class AskEvent(_message.Message):
    __slots__ = ("progress", "answer", "refusal")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    progress: AskProgress
    answer: Answer
    refusal: str
    def __init__(self, progress: _Optional[_Union[AskProgress, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., refusal: _Optional[str] = ...) -> None: ...

class AskProgress(_message.Message):
    __slots__ = ("stage", "sites")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    stage: str
    sites: int
    def __init__(self, stage: _Optional[str] = ..., sites: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("question_id", "scaled_totals", "contributors", "participants", "tolerance", "releases", "answered_at_unix_s", "cached")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    SCALED_TOTALS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    question_id: bytes
    scaled_totals: _containers.RepeatedScalarFieldContainer[int]
    contributors: int
    participants: int
    tolerance: int
    releases: int
    answered_at_unix_s: float
    cached: bool
    def __init__(self, question_id: _Optional[bytes] = ..., scaled_totals: _Optional[_Iterable[int]] = ..., contributors: _Optional[int] = ..., participants: _Optional[int] = ..., tolerance: _Optional[int] = ..., releases: _Optional[int] = ..., answered_at_unix_s: _Optional[float] = ..., cached: _Optional[bool] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("consortium", "name", "minimum_sites", "tolerance", "hospitals", "connected", "roster_version", "projects", "statistics", "mechanisms")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_SITES_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    HOSPITALS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ROSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    MECHANISMS_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    name: str
    minimum_sites: int
    tolerance: int
    hospitals: int
    connected: int
    roster_version: int
    projects: _containers.RepeatedScalarFieldContainer[str]
    statistics: _containers.RepeatedScalarFieldContainer[str]
    mechanisms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, consortium: _Optional[str] = ..., name: _Optional[str] = ..., minimum_sites: _Optional[int] = ..., tolerance: _Optional[int] = ..., hospitals: _Optional[int] = ..., connected: _Optional[int] = ..., roster_version: _Optional[int] = ..., projects: _Optional[_Iterable[str]] = ..., statistics: _Optional[_Iterable[str]] = ..., mechanisms: _Optional[_Iterable[str]] = ...) -> None: ...

class BudgetRequest(_message.Message):
    __slots__ = ("project", "delta", "next")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    project: str
    delta: float
    next: str
    def __init__(self, project: _Optional[str] = ..., delta: _Optional[float] = ..., next: _Optional[str] = ...) -> None: ...

class BudgetReply(_message.Message):
    __slots__ = ("project", "delta", "epsilon", "releases", "cached", "lines", "epsilon_with_next")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    EPSILON_WITH_NEXT_FIELD_NUMBER: _ClassVar[int]
    project: str
    delta: float
    epsilon: float
    releases: int
    cached: int
    lines: _containers.RepeatedCompositeFieldContainer[BudgetLine]
    epsilon_with_next: float
    def __init__(self, project: _Optional[str] = ..., delta: _Optional[float] = ..., epsilon: _Optional[float] = ..., releases: _Optional[int] = ..., cached: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[BudgetLine, _Mapping]]] = ..., epsilon_with_next: _Optional[float] = ...) -> None: ...

class BudgetLine(_message.Message):
    __slots__ = ("kind", "releases", "epsilon", "cached")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    kind: str
    releases: int
    epsilon: float
    cached: int
    def __init__(self, kind: _Optional[str] = ..., releases: _Optional[int] = ..., epsilon: _Optional[float] = ..., cached: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeState(_message.Message):
    __slots__ = ("node_id", "name", "connected", "last_seen_unix_s", "certificate_expires", "revoked")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    name: str
    connected: bool
    last_seen_unix_s: float
    certificate_expires: str
    revoked: bool
    def __init__(self, node_id: _Optional[bytes] = ..., name: _Optional[str] = ..., connected: _Optional[bool] = ..., last_seen_unix_s: _Optional[float] = ..., certificate_expires: _Optional[str] = ..., revoked: _Optional[bool] = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes", "roster_version")
    NODES_FIELD_NUMBER: _ClassVar[int]
    ROSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeState]
    roster_version: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeState, _Mapping]]] = ..., roster_version: _Optional[int] = ...) -> None: ...

class ProposeStudyRequest(_message.Message):
    __slots__ = ("study_envelope",)
    STUDY_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    study_envelope: bytes
    def __init__(self, study_envelope: _Optional[bytes] = ...) -> None: ...

class ProposeStudyReply(_message.Message):
    __slots__ = ("plan_hash", "approved", "pending")
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    plan_hash: bytes
    approved: int
    pending: int
    def __init__(self, plan_hash: _Optional[bytes] = ..., approved: _Optional[int] = ..., pending: _Optional[int] = ...) -> None: ...

class OpenRoundRequest(_message.Message):
    __slots__ = ("plan_hash", "round", "steps", "without")
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    plan_hash: bytes
    round: int
    steps: int
    without: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, plan_hash: _Optional[bytes] = ..., round: _Optional[int] = ..., steps: _Optional[int] = ..., without: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EndRoundRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    def __init__(self, session_id: _Optional[bytes] = ...) -> None: ...

class EndRoundReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RoundEvent(_message.Message):
    __slots__ = ("opened", "sum", "refusal", "left")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    opened: RoundOpened
    sum: SumResult
    refusal: str
    left: RoundLeft
    def __init__(self, opened: _Optional[_Union[RoundOpened, _Mapping]] = ..., sum: _Optional[_Union[SumResult, _Mapping]] = ..., refusal: _Optional[str] = ..., left: _Optional[_Union[RoundLeft, _Mapping]] = ...) -> None: ...

class RoundOpened(_message.Message):
    __slots__ = ("session_id", "participants")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    participants: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., participants: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RoundLeft(_message.Message):
    __slots__ = ("node_id", "refusal")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    node_id: bytes
    refusal: str
    def __init__(self, node_id: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...
