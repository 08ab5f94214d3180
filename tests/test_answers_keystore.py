"""A real key, a real request, a real certificate; and what comes in arguments is looked at first."""

import subprocess
from pathlib import Path

import pytest

import java_reader
from holdfast.answers.keystore import HOME, imported, pem
from holdfast.calls import called
from holdfast.scripts.keystore import keystore_cert_import, keystore_setup

SETUP = [f"{HOME}/agent.properties", f"{HOME}/cloud.jks", "ksPassw0rd", "365", f"{HOME}/cloud.csr"]


def wire(text: str) -> str:
    return f'"{text}"'.replace("\n", "^").replace(" ", "~")


def openssl(*words: str, stdin: str = "") -> str:
    return subprocess.run(["/usr/bin/openssl", *words], input=stdin, capture_output=True, text=True, check=True).stdout


class Authority:
    """Somebody who signs requests."""

    def __init__(self, folder: Path) -> None:
        self.key, self.crt = folder / "ca.key", folder / "ca.crt"
        openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(self.key), "-out", str(self.crt),
            "-subj", "/CN=authority", "-days", "2",
        )  # fmt: skip

    def sign(self, request: str) -> str:
        return openssl(
            "x509", "-req", "-CA", str(self.crt), "-CAkey", str(self.key), "-CAcreateserial", "-days", "2",
            stdin=request,
        )  # fmt: skip

    def words(self, certificate: str, key: str = "") -> list[str]:
        return [
            f"{HOME}/agent.properties", "jnG97cK3VmNMpurU", f"{HOME}/cloud.jks", "ssh", f"{HOME}/cloud.crt",
            wire(certificate), f"{HOME}/cloud.ca.crt", wire(self.crt.read_text()), f"{HOME}/cloud.key", wire(key),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("syslog.syslog", lambda *_: None)
    return tmp_path


def request(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert keystore_setup(SETUP, root) == 0
    said = capsys.readouterr()
    return java_reader.request(said.out + said.err)


def held(root: Path, name: str) -> Path:
    return root / HOME.lstrip("/") / name


def test_a_request_and_its_certificate(root: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    text = request(root, capsys)

    assert text.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    openssl("req", "-verify", "-noout", stdin=text)
    assert held(root, "cloud.key.new").stat().st_mode & 0o777 == 0o600

    certificate = authority.sign(text)
    assert keystore_cert_import(authority.words(certificate), root) == 0
    assert capsys.readouterr() == ("", "")
    assert held(root, "cloud.crt").read_text().strip() == certificate.strip()
    public = openssl("pkey", "-pubout", "-in", str(held(root, "cloud.key")))
    assert public == openssl("x509", "-pubkey", "-noout", stdin=certificate)
    assert held(root, "cloud.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in held(root, "").iterdir()) == [
        "cloud.ca.crt",
        "cloud.crt",
        "cloud.csr",
        "cloud.key",
    ]

    request(root, capsys)  # a renewal: until its certificate comes, key and certificate still belong together
    assert openssl("pkey", "-pubout", "-in", str(held(root, "cloud.key"))) == public
    assert keystore_cert_import(authority.words(certificate), root) == 0  # sent again
    assert openssl("pkey", "-pubout", "-in", str(held(root, "cloud.key"))) == public


def test_a_key_may_come_along(root: Path, authority: Authority) -> None:
    assert keystore_cert_import(authority.words(authority.crt.read_text(), authority.key.read_text()), root) == 0
    assert held(root, "cloud.key").read_text().strip() == authority.key.read_text().strip()


def test_a_certificate_of_another_key_is_refused(
    root: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    request(root, capsys)

    assert keystore_cert_import(authority.words(authority.crt.read_text()), root) == 1
    assert "another key" in capsys.readouterr().err
    assert not held(root, "cloud.crt").exists()


def test_no_key_is_among_the_words_of_a_program(
    root: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = subprocess.run

    def spied(argv: list[str], **more: object) -> object:
        seen.extend(argv)
        return real(argv, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("holdfast.run.subprocess.run", spied)
    keystore_cert_import(authority.words(authority.crt.read_text(), authority.key.read_text()), root)

    assert "openssl" in seen
    assert [word for word in seen if "PRIVATE" in word or "ksPass" in word or len(word) > 200] == []


@pytest.mark.parametrize(
    "words",
    [
        [], SETUP[:4], [*SETUP[:4], "/etc/cron.d/x"], [*SETUP[:3], "0", SETUP[4]], [*SETUP[:3], "1;id", SETUP[4]],
        [f"{HOME}/../../../../etc/x.properties", *SETUP[1:]], [*SETUP[:4], f"{HOME}/a\n.csr"],
    ],
)  # fmt: skip
def test_no_other_request_is_made(words: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keystore_setup(words, root) == 2
    assert capsys.readouterr().out == ""
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("text", ["x", "-----BEGIN~X-----^", "-----BEGIN~X-----^a;b^-----END~X-----^", '"'])
def test_what_is_no_certificate_is_refused(text: str, authority: Authority) -> None:
    words = authority.words("")

    with pytest.raises(ValueError, match=r"PEM|certificate"):
        imported([*words[:5], text, *words[6:]])


def test_pem_travels() -> None:
    text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

    assert pem(wire(text)) == text
    assert pem(wire(text + text)) == text + text
    assert pem('""') == ""


@pytest.mark.parametrize("fails", ["arguments", "openssl", "disk"])
def test_a_failing_request_says_nothing_and_why_is_in_journal_and_alert(
    fails: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[str] = []
    monkeypatch.setattr("syslog.syslog", lambda _, text: journal.append(text))
    if fails == "openssl":
        monkeypatch.setenv("PATH", str(tmp_path))
    if fails == "disk":
        held(tmp_path, "").parent.mkdir(parents=True)
        held(tmp_path, "").write_text("no directory")

    words = SETUP[:-1] if fails == "arguments" else SETUP
    code = called("keystore-setup", lambda argv: keystore_setup(argv, tmp_path), words, str(tmp_path))

    said = capsys.readouterr()
    assert code == (2 if fails == "arguments" else 1)
    with pytest.raises(java_reader.Unreadable):
        java_reader.request(said.out + said.err)
    why = "usage: keystore-setup" if fails == "arguments" else "error: "
    assert f": exit {code}: {why}" in journal[0]
    assert why in (tmp_path / "var/log/routerServiceMonitor.log").read_text()
