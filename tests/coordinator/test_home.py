"""Founding a consortium: everything or nothing, for its owner's eyes only."""

import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from coordinator.home import CoordinatorConfig, CoordinatorHome, MalformedConfig
from coordinator.profile import MalformedProfile, Profile
from privacy.private_files import OpenToOthers
from protocols.clock import SystemClock
from protocols.peer import Role, peer_of
from protocols.roster import MalformedRoster
from tests.consortium import Consortium, files_of


def test_everything_is_readable_by_its_owner_only(consortium: Consortium) -> None:
    home = consortium.home.path
    for path in (home, *home.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_home_is_never_overwritten(consortium: Consortium) -> None:
    before = files_of(consortium.home.keys)
    with pytest.raises(FileExistsError):
        CoordinatorHome.init(consortium.home.path, name="Another", host="localhost", clock=SystemClock())
    assert files_of(consortium.home.keys) == before


@pytest.mark.parametrize(
    "wrong",
    [{"name": "two\nlines"}, {"host": "a/b"}, {"broker_port": 0}, {"broker_port": 8440}, {"tolerance": 3}],
)
def test_a_wrong_setting_leaves_nothing_behind(tmp_path: Path, wrong: dict[str, object]) -> None:
    settings = {"name": "Example", "host": "localhost"} | wrong
    with pytest.raises(ValueError, match=r"\S"):
        CoordinatorHome.init(tmp_path / "home", clock=SystemClock(), **settings)  # type: ignore[arg-type]  # wrong on purpose
    assert not list(tmp_path.iterdir())


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path, consortium: Consortium) -> None:
    class Broken(SystemClock):
        calls = 0

        def now(self):  # type: ignore[no-untyped-def]  # as the clock's
            self.calls += 1
            if self.calls == 3:
                raise OSError("no clock")
            return super().now()

    folder = tmp_path / "elsewhere"
    with pytest.raises(OSError, match="no clock"):
        CoordinatorHome.init(folder / "home", name="Example", host="localhost", clock=Broken())
    assert not list(folder.iterdir())


def test_the_config_reads_back_as_written(consortium: Consortium) -> None:
    config = consortium.home.config()
    assert CoordinatorConfig.parse(config.to_toml()) == config


@pytest.mark.parametrize("line", ["surprise = 1", 'broker_port = "8441"'])
def test_unknown_keys_and_wrong_types_are_errors(consortium: Consortium, line: str) -> None:
    key = line.split()[0]
    kept = [text for text in consortium.home.config().to_toml().splitlines() if not text.startswith(key)]
    with pytest.raises(MalformedConfig):
        CoordinatorConfig.parse("\n".join([*kept, line]))


def test_a_missing_key_is_an_error(consortium: Consortium) -> None:
    lines = consortium.home.config().to_toml().splitlines()
    for left_out in range(len(lines)):
        with pytest.raises(MalformedConfig):
            CoordinatorConfig.parse("\n".join(lines[:left_out] + lines[left_out + 1 :]))


def test_the_server_certificate_is_for_the_host_and_loopback(tmp_path: Path) -> None:
    home = CoordinatorHome.init(
        tmp_path / "home",
        name="E",
        host="fedtwin.example.org",
        other_hosts=("10.0.0.7",),
        clock=SystemClock(),
    )
    certificate = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fedtwin.example.org", "localhost"]
    addresses = [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.0.0.7", "127.0.0.1"]
    assert peer_of(home.server_certificate.read_bytes()).role == Role.COORDINATOR


def test_the_server_certificate_is_renewed_when_it_is_due(consortium: Consortium) -> None:
    first = consortium.home.server_tls(clock=consortium.clock)
    assert consortium.home.server_tls(clock=consortium.clock).chain == first.chain
    consortium.clock.advance(timedelta(days=250))
    second = consortium.home.server_tls(clock=consortium.clock)
    assert second.chain != first.chain
    assert second.key == first.key
    ends = x509.load_pem_x509_certificate(second.chain).not_valid_after_utc
    assert ends > x509.load_pem_x509_certificate(first.chain).not_valid_after_utc
    context = ssl.create_default_context(cadata=second.authority.decode())
    context.load_cert_chain(consortium.home.server_certificate, consortium.home.keys / "server.key")


def test_a_key_that_others_may_read_is_not_used(consortium: Consortium) -> None:
    (consortium.home.keys / "ca.key").chmod(0o640)
    with pytest.raises(OpenToOthers):
        consortium.home.authority(clock=consortium.clock)


def test_secrets_do_not_show(consortium: Consortium) -> None:
    home, clock = consortium.home, consortium.clock
    shown = f"{home.authority(clock=clock)!r} {consortium.book!r} {home.server_tls(clock=clock)!r}"
    assert shown.count("hidden") == 3
    invitation = home.invite(consortium.state, "A", clock=clock)
    assert "secret" not in repr(invitation)
    assert invitation.secret not in home.state_file.read_bytes()


# ---- profiles ----


def issued(consortium: Consortium, out: Path, **changes: object) -> Profile:
    wanted = {"name": "ada", "role": Role.RESEARCHER, "projects": ("demo",)} | changes
    return consortium.home.issue_profile(consortium.state, out, clock=consortium.clock, **wanted)  # type: ignore[arg-type]  # from one dict


def test_the_lead_of_a_new_consortium_is_in_its_roster(consortium: Consortium) -> None:
    lead = Profile.load(consortium.home.lead_profile)
    entry = consortium.book.current().person("lead")
    assert entry is not None
    assert entry.role == lead.role == Role.LEAD
    assert entry.identity_key == lead.identity_key().public_key().public_bytes_raw()
    assert entry.may_use("whatever")
    assert lead.broker_address.startswith("127.0.0.1:")


def test_a_researcher_gets_a_profile_and_a_line_in_the_roster(consortium: Consortium, tmp_path: Path) -> None:
    profile = issued(consortium, tmp_path / "ada")
    entry = consortium.book.current().person("ada")
    assert entry is not None
    assert entry.identity_key == profile.identity_key().public_key().public_bytes_raw()
    assert (entry.may_use("demo"), entry.may_use("other")) == (True, False)
    authority, _, certificate = profile.tls()
    assert authority == consortium.home.authority_certificate.read_bytes()
    assert peer_of(certificate).uri == f"fedtwin://{profile.consortium}/researcher/ada"
    assert bytes.fromhex((tmp_path / "ada" / "roster.pub").read_text().strip()) == consortium.book.roster_key
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ada").iterdir()}
    assert modes == {0o600}


def test_a_name_is_given_once(consortium: Consortium, tmp_path: Path) -> None:
    issued(consortium, tmp_path / "ada")
    before = consortium.contents()
    with pytest.raises(ValueError, match="taken"):
        issued(consortium, tmp_path / "second")
    assert consortium.contents() == before
    assert not (tmp_path / "second").exists()


def test_a_folder_in_use_is_left_alone(consortium: Consortium, tmp_path: Path) -> None:
    before = consortium.contents()
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        issued(consortium, tmp_path / "ada")
    assert consortium.contents() == before
    assert files_of(tmp_path / "ada") == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    "wrong",
    [{"name": "A B"}, {"name": "../x"}, {"projects": ()}, {"projects": ("a b",)}, {"role": Role.NODE}],
)
def test_a_malformed_person_changes_nothing(
    consortium: Consortium, tmp_path: Path, wrong: dict[str, object]
) -> None:
    before = consortium.contents()
    with pytest.raises((ValueError, MalformedRoster)):
        issued(consortium, tmp_path / "out", **wrong)
    assert consortium.contents() == before
    assert not (tmp_path / "out").exists()


def test_a_profile_with_an_unknown_key_or_role_is_refused(consortium: Consortium, tmp_path: Path) -> None:
    path = issued(consortium, tmp_path / "ada").directory / "profile.toml"
    text = path.read_text()
    for wrong in (text + "more = 1\n", text.replace("researcher", "king"), text.replace(":", ""), "="):
        path.write_text(wrong)
        with pytest.raises(MalformedProfile):
            Profile.load(path.parent)


def test_a_signing_key_that_others_may_read_is_not_used(consortium: Consortium, tmp_path: Path) -> None:
    profile = issued(consortium, tmp_path / "ada")
    for name in ("identity.key", "tls.key"):
        (profile.directory / name).chmod(0o644)
    with pytest.raises(OpenToOthers):
        profile.identity_key()
    with pytest.raises(OpenToOthers):
        profile.tls()
