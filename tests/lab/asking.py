"""Scripts of recorded stories that ask, or do one thing: run as recorded, their answers read as Java reads them."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from replay import HOLDFAST, Site, said

import java_reader
from holdfast.lab.process import Result

RELEASE = "Cloudstack Release 4.22.0 Fri Oct 24 10:11:12 UTC 2025"
REFUSED: dict[tuple[str, ...], str] = {("cks_iso.sh", "true"): "there is no drive"}
"""Calls that fail on a router of the lab, and what it says: it has no drive for discs."""

SECRETS = (
    "Xk9%$", "fnirq_cnffjbeq", "p@ss word", "resetPw1!", "s3cr3t-A", "Tm4hZ7qPpsk24", "AdMiN123", "ksPassw0rd", "pw1",
    "s2s-psk with", "vpcPsk24", "jnG97cK3", "Zb7pQ2", "PRIVATE",
)  # fmt: skip
"""Of the recorded stories: passwords, keys and pre-shared keys."""


class Asking:
    """What a server asks of one router.  `answers`: what it made of them, by step and call; `seconds`: all together."""

    def __init__(self, made: Site) -> None:
        self.site = made
        self.answers: list[str] = []
        self.seconds = 0.0
        self._request = self._archive = ""

    def ask(self, script: str, words: tuple[str, ...], where: str) -> None:
        """Run one call; AssertionError where the server would see a failure."""
        if script == "get_template_version.sh":
            self.site.path("/etc/cloudstack-release").write_text(f"{RELEASE}\n")  # the template's
        given = self._with_answers(script, words)
        began = time.monotonic()
        done = self.site.router.run(script, *given)
        self.seconds += time.monotonic() - began
        if (script, *words) in REFUSED:
            assert (done.code, REFUSED[script, *words] in done.errors) == (1, True), f"{where}: {said(done)}"
            self.answers.append(f"{where}: refused")
            return
        try:
            answer = self._read(script, given, done)
        except (ValueError, AssertionError) as error:
            raise AssertionError(f"{where}: {said(done)}") from error
        self.answers.append(f"{where}: {str(answer)[:200]!r}")

    def told_and_kept_secret(self) -> None:
        """Every call is in history with its answer, and no secret is there or in the journal."""
        told = self.site.router.shell([HOLDFAST, "history", "--all"])
        assert told.code == 0, said(told)
        assert told.text.count("\nexit ") >= len(self.answers)
        noted = told.text + self.site.router.journal(3000)
        assert not [secret for secret in SECRETS if secret in noted]

    def _with_answers(self, script: str, words: tuple[str, ...]) -> tuple[str, ...]:
        """The words, where they are what an earlier answer brought: an archive's path, a certificate for a request."""
        if script == "cleanup.sh" and self._archive:
            return (self._archive,)
        if script == "keystore-cert-import":
            certificate, authority = (_wire(text) for text in signed(self._request))
            return (*words[:5], certificate, words[6], authority, words[8], "")
        return words

    def _read(self, script: str, words: tuple[str, ...], done: Result) -> object:
        """What the server makes of it: both streams reach it together."""
        merged = done.text + done.errors
        if script == "cleanup.sh":
            assert not self.site.path(words[0]).exists()
        if script == "keystore-setup":
            self._request = java_reader.request(merged)
            assert self._request.startswith("-----BEGIN CERTIFICATE REQUEST-----")
            return "a request"
        if script == "get_diagnostics_files.py":
            self._archive = java_reader.archive(done.code, merged)
            assert self.site.path(self._archive).stat().st_size > 0
            return self._archive
        return READERS.get(script, _succeeded)(words, done.code, merged)


Words = tuple[str, ...]


def _succeeded(_words: Words, code: int, text: str) -> object:
    return java_reader.succeeded(code, text)


def _usage(words: Words, code: int, text: str) -> object:
    return (java_reader.usage if {"-g", "-n"} & {*words} else java_reader.succeeded)(code, text)


def _interface(words: Words, code: int, text: str) -> object:
    assert java_reader.interface_update(code, text, words[0])
    return java_reader.succeeded(code, text)


def _monitor(words: Words, code: int, text: str) -> object:
    found = java_reader.monitor_results(code, text)
    assert found.checks or words == ("false",)
    assert all(check.message for check in found.checks)
    return found.failing, [(check.name, check.success) for check in found.checks]


def _diagnostics(_words: Words, code: int, text: str) -> object:
    out, errors, ended = java_reader.diagnostics(code, text)
    assert ended == "0" or "not installed" in errors
    return out or errors


def _tunnels(words: Words, code: int, text: str) -> object:
    found = java_reader.tunnels(code, text)
    assert list(found) == list(words)
    return found


def _role(_words: Words, code: int, text: str) -> object:
    found = java_reader.role(code, text)
    assert found in ("PRIMARY", "BACKUP")
    return found


def _file_system(_words: Words, code: int, text: str) -> object:
    found = java_reader.file_system(code, text)
    assert found == ""
    return found


READERS: dict[str, Callable[[Words, int, str], object]] = {
    "checkbatchs2svpn.sh": _tunnels,
    "checkrouter.sh": _role,
    "diagnostics.py": _diagnostics,
    "filesystem_writable_check.py": _file_system,
    "getRouterAlerts.sh": lambda _, code, text: java_reader.alerts(code, text),
    "getRouterMonitorResults.sh": _monitor,
    "get_haproxy_stats.sh": lambda _, code, text: java_reader.connections(code, text),
    "get_template_version.sh": lambda _, code, text: java_reader.version(code, text),
    "netusage.sh": _usage,
    "update_interface_config.sh": _interface,
    "vpc_netusage.sh": _usage,
}
"""Of all others the exit status alone counts."""


def signed(request: str) -> tuple[str, str]:
    """A certificate for a request, and that of the authority that made it."""
    with TemporaryDirectory() as name:
        place = Path(name)
        (place / "csr").write_text(request)
        authority = "req -x509 -newkey rsa:2048 -nodes -keyout key -out ca -subj /CN=authority -days 2"
        certificate = "x509 -req -in csr -CA ca -CAkey key -CAcreateserial -days 2 -out crt"
        for words in (authority, certificate):
            subprocess.run(f"openssl {words}".split(), cwd=place, check=True, capture_output=True)
        return (place / "crt").read_text(), (place / "ca").read_text()


def _wire(pem: str) -> str:
    return pem.replace("\n", "^").replace(" ", "~")
