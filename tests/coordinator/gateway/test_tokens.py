"""A token gets in only if everything about it is right; each test breaks one thing."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coordinator.gateway.issuer import usable_keys
from coordinator.gateway.tokens import LEEWAY_S, MAX_LIFETIME_S
from sim.identity_provider import SigningKey
from tests.consortium import LoopThread
from tests.coordinator.gateway.hospitals import charges
from tests.coordinator.gateway.site import AUDIENCE, GROUP, Site, founded, problem


def claims(site: Site, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    held = {
        "iss": site.issuer.issuer,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": now,
        "exp": now + 300,
        "scope": "fedtwin.ask fedtwin.read",
        "groups": [GROUP],
    }
    return {name: value for name, value in (held | changes).items() if value is not None}


def signed(site: Site, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    key = site.issuer.key
    return jwt.encode(
        claims(site, **changes),
        key.private,
        algorithm=key.algorithm,
        headers={"kid": key.kid} | (header or {}),
    )


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(site: Site, token: str) -> str:
    """Return what is wrong with the token, after checking that it changed and told nothing."""
    before = charges(site.hospitals)
    response = site.ask(token=token)
    assert problem(response) == "unauthenticated"
    assert response.status_code == 401
    fault = str(response.json()["detail"])
    assert response.headers["www-authenticate"].endswith(f'error_description="{fault}"')
    assert token not in response.text
    assert charges(site.hospitals) == before
    return fault


def test_a_right_token_gets_in(site: Site) -> None:
    assert site.ask(token=signed(site)).status_code == 200
    assert site.ask(token=signed(site, aud=["another", AUDIENCE])).status_code == 200
    assert site.ask(token=signed(site, scope=None, scp=["fedtwin.ask"])).status_code == 200


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (lambda now: {"exp": now - LEEWAY_S - 1}, "expired"),
        (lambda now: {"nbf": now + LEEWAY_S + 10}, "not-yet-valid"),
        (lambda now: {"iat": now + LEEWAY_S + 10}, "not-yet-valid"),
        (lambda now: {"exp": now + MAX_LIFETIME_S + 10}, "lifetime"),
        (lambda now: {"aud": "another-gateway"}, "audience"),
        (lambda now: {"aud": [AUDIENCE + "x"]}, "audience"),
        (lambda now: {"iss": "https://issuer.example.org"}, "issuer"),
        (lambda now: {"sub": None}, "claims"),
        (lambda now: {"aud": None}, "audience"),
        (lambda now: {"iss": None}, "issuer"),
        (lambda now: {"exp": None}, "claims"),
        (lambda now: {"iat": None}, "claims"),
        (lambda now: {"sub": ""}, "claims"),
        (lambda now: {"sub": "a" * 256}, "claims"),
        (lambda now: {"exp": str(now + 300)}, "claims"),
        (lambda now: {"exp": True}, "claims"),
        (lambda now: {"groups": "stroke-team"}, "claims"),
    ],
)
def test_a_claim_that_is_wrong_keeps_out(
    site: Site, changes: Callable[[float], dict[str, Any]], fault: str
) -> None:
    found = refused(site, signed(site, **changes(time.time())))
    assert found in {fault, "claims"} if None in changes(0).values() else found == fault


def test_a_clock_that_differs_a_little_does_not_keep_out(site: Site) -> None:
    now = time.time()
    assert site.ask(token=signed(site, exp=now - LEEWAY_S / 2, iat=now - 300)).status_code == 200
    assert site.ask(token=signed(site, iat=now + LEEWAY_S / 2, nbf=now + LEEWAY_S / 2)).status_code == 200


def test_a_token_without_a_signature_keeps_out(site: Site) -> None:
    header = {"alg": "none", "kid": site.issuer.key.kid, "typ": "JWT"}
    assert refused(site, f"{encoded(header)}.{encoded(claims(site))}.") == "algorithm"
    assert refused(site, f"{encoded(header | {'alg': 'NONE'})}.{encoded(claims(site))}.") == "algorithm"


def test_a_public_key_is_no_secret_of_a_keyed_hash(site: Site) -> None:
    public = site.issuer.key.private.public_key()
    jwk = json.dumps(site.issuer.key.public_jwk()).encode()
    for secret in (public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), jwk):
        for algorithm in ("HS256", "HS384", "HS512"):
            head = encoded({"alg": algorithm, "kid": site.issuer.key.kid, "typ": "JWT"})
            said = f"{head}.{encoded(claims(site))}"
            mac = hmac.digest(secret, said.encode(), "sha" + algorithm[2:])
            token = f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            assert refused(site, token) == "algorithm"


def test_an_algorithm_other_than_the_keys_own_keeps_out(site: Site) -> None:
    other = SigningKey.new("EdDSA")
    token = jwt.encode(claims(site), other.private, algorithm="EdDSA", headers={"kid": site.issuer.key.kid})
    assert refused(site, token) == "algorithm"


def test_another_key_under_a_known_id_keeps_out(site: Site) -> None:
    other = SigningKey.new("ES256")
    token = jwt.encode(claims(site), other.private, algorithm="ES256", headers={"kid": site.issuer.key.kid})
    assert refused(site, token) == "signature"


def test_an_unknown_key_keeps_out(site: Site) -> None:
    other = SigningKey.new("ES256")
    token = jwt.encode(claims(site), other.private, algorithm="ES256", headers={"kid": other.kid})
    assert refused(site, token) == "unknown-key"
    assert refused(site, jwt.encode(claims(site), other.private, algorithm="ES256")) == "unknown-key"


def test_an_edited_token_keeps_out(site: Site) -> None:
    head, _, signature = signed(site).split(".")
    assert refused(site, f"{head}.{encoded(claims(site, sub='grace'))}.{signature}") == "signature"


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"typ": "logout+jwt"}, {"b64": False}])
def test_a_header_that_means_something_else_keeps_out(site: Site, header: dict[str, Any]) -> None:
    if header.get("b64") is False:
        head = {"alg": "ES256", "kid": site.issuer.key.kid} | header
        assert refused(site, f"{encoded(head)}.{encoded(claims(site))}.AAAA") == "malformed"
    else:
        assert refused(site, signed(site, header=header)) == "malformed"


@pytest.mark.parametrize("token", ["x", "a.b.c", "....", "e30.e30.e30", "A" * 20_000])
def test_nonsense_keeps_out(site: Site, token: str) -> None:
    assert refused(site, token) in {"malformed", "algorithm"}


def test_no_token_or_two_keep_out(site: Site) -> None:
    with site.client() as client:
        token = client.headers.pop("authorization")
        assert problem(client.get("/v1/consortium")) == "unauthenticated"
        assert problem(client.get(f"/v1/consortium?access_token={token[7:]}")) == "unauthenticated"
        for scheme in ("Basic YWRhOmE=", token[7:], "Bearer", "Bearer a b"):
            assert (
                problem(client.get("/v1/consortium", headers={"authorization": scheme})) == "unauthenticated"
            )
        both = [("authorization", token), ("authorization", token)]
        assert problem(client.get("/v1/consortium", headers=both)) == "unauthenticated"


def test_a_scope_that_is_missing_keeps_out(site: Site) -> None:
    before = charges(site.hospitals)
    reader = site.token(scopes=("fedtwin.read",))
    response = site.ask(token=reader)
    assert problem(response) == "insufficient-scope"
    assert response.status_code == 403
    assert 'scope="fedtwin.ask"' in response.headers["www-authenticate"]
    assert site.get("/v1/consortium", token=reader).status_code == 200
    asker = site.token(scopes=("fedtwin.ask", "fedtwin.readers"))
    assert problem(site.get("/v1/consortium", token=asker)) == "insufficient-scope"
    assert problem(site.ask(token=site.token(scopes=()))) == "insufficient-scope"
    assert charges(site.hospitals) == before


def test_a_project_that_is_not_granted_keeps_out(site: Site) -> None:
    before = charges(site.hospitals)
    body = {"project": "diabetes", "cohort": {"index": {"kind": "condition", "concepts": [1]}}, "epsilon": 1}
    assert problem(site.ask(body)) == "foreign-project"
    assert problem(site.ask(token=site.token("ada", groups=()))) == "foreign-project"
    assert problem(site.ask(token=site.token("ada", groups=(GROUP + "x",)))) == "foreign-project"
    assert problem(site.get("/v1/budget?project=diabetes")) == "foreign-project"
    assert charges(site.hospitals) == before
    assert site.ask(token=site.token("grace", groups=())).status_code == 200  # named by subject


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA", "ES256"])
def test_keys_may_rotate_and_a_withdrawn_one_keeps_out(
    site: Site, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.gateway.issuer.MIN_REFRESH_S", 0.0)
    old = signed(site)
    site.issuer.rotate(algorithm)
    assert site.ask(token=signed(site)).status_code == 200
    assert site.ask(token=old).status_code == 200  # still published
    site.issuer.rotate(algorithm, keep_old=False)
    assert site.ask(token=signed(site)).status_code == 200
    assert refused(site, old) == "unknown-key"


def test_unknown_keys_do_not_make_the_gateway_ask_the_issuer_each_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.gateway is not None
    keys, fetches = site.gateway.keys, []
    fetch = keys.fetch

    async def counted() -> Any:
        fetches.append(1)
        return await fetch()

    monkeypatch.setattr(keys, "fetch", counted)
    for _ in range(20):
        other = SigningKey.new("ES256")
        token = jwt.encode(claims(site), other.private, algorithm="ES256", headers={"kid": other.kid})
        assert refused(site, token) == "unknown-key"
    assert len(fetches) <= 1


def test_without_an_issuer_nobody_gets_in(tmp_path: Any, loop_thread: LoopThread) -> None:
    with founded(tmp_path, loop=loop_thread) as site:
        site.down()
        site.issuer.issuer = "https://localhost:1"  # its discovery document names another from now on
        site.up()
        token = jwt.encode(
            claims(site), site.issuer.key.private, algorithm="ES256", headers={"kid": site.issuer.key.kid}
        )
        assert problem(site.ask(token=token)) == "issuer-unreachable"


def weak(**changes: Any) -> dict[str, Any]:
    return SigningKey.new("ES256").public_jwk() | changes


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        weak(use="enc"),
        weak(alg="HS256"),
        weak(alg="ES384"),
        weak(key_ops=["sign"]),
        weak(d="AAAA"),
        weak(x="AAAA"),
        weak(kid=None),
        weak(kty=["EC"]),
        weak(crv={}),
        weak(key_ops=7),
        jwt.get_algorithm_by_name("RS256").to_jwk(
            generate_private_key(65_537, 1_024).public_key(), as_dict=True
        )
        | {"kid": "a", "use": "sig", "key_ops": ["verify"]},
    ],
)
def test_a_key_that_should_not_verify_is_left_out(entry: dict[str, Any]) -> None:
    good = SigningKey.new("ES256").public_jwk()
    assert set(usable_keys({"keys": [entry, good]})) == {good["kid"]}


def test_two_keys_of_one_id_are_both_left_out() -> None:
    one, other = SigningKey.new("ES256").public_jwk(), SigningKey.new("ES256").public_jwk()
    assert not usable_keys({"keys": [one, other | {"kid": one["kid"]}]})
    assert len(usable_keys({"keys": [one, other]})) == 2


def test_the_pseudonym_is_the_same_for_ever() -> None:
    from coordinator.gateway.tokens import account_of

    written = b'fedtwin-gateway-account-v1["https://id.example.org","ada"]'
    expected = base64.b32encode(hashlib.sha256(written).digest()).decode().rstrip("=").lower()
    assert account_of("https://id.example.org", "ada") == expected
