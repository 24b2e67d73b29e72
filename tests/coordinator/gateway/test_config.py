"""gateway.toml: every key is needed, nothing unknown passes, and what is unsafe is refused."""

from pathlib import Path
from typing import Any

import pytest

from coordinator.gateway.access import Access, Grant
from coordinator.gateway.config import GatewayConfig, MalformedConfig, starter
from coordinator.gateway.founding import found_gateway
from coordinator.gateway.serving import WrongProfile, own_profile
from coordinator.gateway.tokens import Caller
from privacy.private_files import OpenToOthers
from tests.consortium import Consortium, consortium

__all__ = ["consortium"]

ACCESS = Access((Grant("stroke", frozenset({"ada"}), frozenset({"team"})),))


def text(**changes: str) -> str:
    made = starter(
        profile="profile",
        issuer="https://issuer.example.org",
        audience="gateway",
        access=ACCESS,
        listen="127.0.0.1",
        certificate="tls.crt",
        key="tls.key",
    )
    lines = []
    for line in made.splitlines():
        name = line.split(" = ")[0]
        lines.append(f"{name} = {changes[name]}" if name in changes else line)
    return "\n".join(lines)


def load(folder: Path, content: str) -> GatewayConfig:
    path = folder / "gateway.toml"
    path.write_text(content)
    return GatewayConfig.load(path)


def test_the_starter_is_a_config(tmp_path: Path) -> None:
    config = load(tmp_path, text())
    assert config.profile == tmp_path / "profile"
    assert config.access == ACCESS
    assert (config.port, config.wait_s, config.plain_http) == (8443, 30, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", '"http://issuer.example.org"'),
        ("issuer", "7"),
        ("audience", '""'),
        ("groups_claim", '""'),
        ("listen", '"gateway.example.org"'),
        ("port", "70000"),
        ("port", "true"),
        ("port", '"8443"'),
        ("certificate", '""'),
        ("key", '""'),
        ("profile", '""'),
        ("book", '""'),
        ("wait_s", "0"),
        ("wait_s", "1e3"),
        ("questions_per_minute", "0"),
        ("keep_days", "0"),
        ("plain_http", "true"),  # with a certificate: which one is meant?
        ("plain_http", "1"),
        ("project", '"UPPER"'),
        ("subjects", '"ada"'),
        ("groups", "[1]"),
        ("subjects", '[""]'),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(MalformedConfig):
        load(tmp_path, text(**{name: value}))


@pytest.mark.parametrize(
    "change", ["unknown = 1\n{}", "{}\n[[access]]\nproject = 'x'\n", "{}\n[extra]\n", "= {}"]
)
def test_unknown_and_missing_keys_are_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(MalformedConfig):
        load(tmp_path, change.format(text()))
    kept = [line for line in text().splitlines() if not line.startswith("audience")]
    with pytest.raises(MalformedConfig, match="audience"):
        load(tmp_path, "\n".join(kept))
    with pytest.raises(MalformedConfig, match="init"):
        GatewayConfig.load(tmp_path / "nowhere.toml")


def test_plain_http_listens_on_loopback_only(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"plain_http": "true", "certificate": '""', "key": '""'}
    assert load(tmp_path, text(**plain)).plain_http
    with pytest.raises(MalformedConfig, match="loopback"):
        load(tmp_path, text(**plain, listen='"0.0.0.0"'))


def test_a_grant_that_names_nobody_is_refused_and_nobody_else_is_covered() -> None:
    with pytest.raises(ValueError, match="nobody"):
        Grant("stroke", frozenset(), frozenset())
    stranger = Caller("x", "eve", frozenset({"Team", "team "}), frozenset())
    assert not ACCESS.projects(stranger)
    assert ACCESS.may_use(Caller("x", "ada", frozenset(), frozenset()), "stroke")
    assert ACCESS.may_use(Caller("x", "eve", frozenset({"team"}), frozenset()), "stroke")
    assert not ACCESS.may_use(Caller("x", "ada", frozenset(), frozenset()), "*")


def found(consortium: Consortium, out: Path, **changes: Any) -> Path:
    fields: dict[str, Any] = {
        "name": "gateway",
        "host": "gateway.example.org",
        "issuer": "https://issuer.example.org",
        "audience": "gateway",
        "access": ACCESS,
        "clock": consortium.clock,
    }
    return found_gateway(consortium.home, consortium.state, out, **(fields | changes))


def test_a_gateway_is_a_researcher_of_its_projects_and_no_more(
    consortium: Consortium, tmp_path: Path
) -> None:
    config = GatewayConfig.load(found(consortium, tmp_path / "gateway"))
    profile = own_profile(config)
    entry = consortium.book.current().active_people[profile.name]
    assert (entry.role.value, entry.projects) == ("researcher", ("stroke",))
    assert config.listen == "0.0.0.0"


def test_a_gateway_that_cannot_be_is_not_entered(consortium: Consortium, tmp_path: Path) -> None:
    before = consortium.contents()
    with pytest.raises(ValueError, match="https"):
        found(consortium, tmp_path / "gateway", issuer="http://issuer.example.org")
    with pytest.raises(ValueError, match="nobody"):
        found(consortium, tmp_path / "gateway", access=Access((Grant("x", frozenset(), frozenset()),)))
    assert consortium.contents() == before
    assert not (tmp_path / "gateway").exists()


def test_a_leads_credentials_and_open_keys_are_refused(consortium: Consortium, tmp_path: Path) -> None:
    path = found(consortium, tmp_path / "gateway")
    lead = path.read_text().replace('"profile"', f'"{consortium.home.lead_profile}"')
    path.write_text(lead)
    with pytest.raises(WrongProfile):
        own_profile(GatewayConfig.load(path))
    (tmp_path / "gateway" / "profile" / "identity.key").chmod(0o640)
    path.write_text(lead.replace(str(consortium.home.lead_profile), "profile"))
    with pytest.raises(OpenToOthers):
        own_profile(GatewayConfig.load(path)).identity_key()
