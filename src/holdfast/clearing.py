"""Clearing away what the old agent left on the machine, once our own rules are in force beside it."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast import whole, wishes
from holdfast.drivers.file import make_directories
from holdfast.legacy import foreign
from holdfast.run import CommandFailed
from holdfast.run import run as run_program

_IFF_UP = 1
_XT = (("proc/net/ip_tables_names", "iptables"), ("proc/net/ip6_tables_names", "ip6tables"))
_ACCEPTING: Mapping[str, tuple[str, ...]] = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}


class Leftover(NamedTuple):
    """One thing that goes: in words, and how."""

    what: str
    clear: Callable[[], None]


class Clearing:
    """Finds and removes what `legacy.foreign` describes.  `kept`: the directory into which files are moved.

    `services`: whether systemd can be asked; `whole`: whether `root` is this whole machine, so that its processes and
    its /proc are the router's.
    """

    def __init__(
        self, root: Path, kept: Path, *, services: bool, whole: bool, run: Callable[..., str] = run_program
    ) -> None:
        self.root, self.kept = root, kept
        self.services, self.whole = services, whole
        self.run = run

    def prepare(self) -> None:
        """Let both agents' rules be in force together; OSError if that cannot be, and nothing has changed then."""
        self.run(["nft", "-f", "-"], foreign.overlap())

    def serves(self, outer: Iterable[str]) -> bool:
        """Whether one of a pair serves: who does not keeps its outer links down, in every version."""
        flags = [self.root / "sys/class/net" / device / "flags" for device in outer]
        return any(int(path.read_text(), 16) & _IFF_UP for path in flags if path.is_file())

    def end_election(self, *, hold: bool) -> None:
        """Stop the old keepalived: it dies of our text, and would not hear ours.  With `hold` ours does not start
        either, until `manage_service.sh start keepalived`, a reboot or half an hour.  OSError if systemd would not.
        """
        if not self.services:
            return
        if hold:
            wishes.wish_stopped(self.root, "keepalived")
        else:
            self._systemctl("stop", "--", wishes.SERVICES["keepalived"])

    def found(self, ways: Mapping[str, int]) -> list[Leftover]:
        """Everything there is, in the order in which it has to go; `ways` are our way-back marks by device.

        The firewall first, then connections' marks with it, then the policy routing that those marks led to.
        """
        parts = (
            self._xtables(),
            self._nft(ways),
            self._rules(),
            self._routes(),
            self._units(),
            self._processes(),
            self._files(),
        )
        return [leftover for part in parts for leftover in part]

    def _xtables(self) -> Iterator[Leftover]:
        for names, program in _XT if self.whole else ():
            path = self.root / names
            loaded = path.read_text().split() if path.is_file() else []
            for table in sorted(set(loaded) & _ACCEPTING.keys()):
                text = "".join(f":{chain} ACCEPT [0:0]\n" for chain in _ACCEPTING[table])
                yield Leftover(
                    f"{program} table {table} (xtables)",
                    lambda program=program, table=table, text=text: self._restore(program, table, text),  # type: ignore[misc]
                )

    def _restore(self, program: str, table: str, text: str) -> None:
        tool = next((t for t in (f"{program}-legacy-restore", f"{program}-restore") if shutil.which(t)), "")
        if not tool or "nf_tables" in self.run([tool, "--version"]):
            raise OSError(f"no {program}-legacy-restore here to empty it")
        self.run([tool], f"*{table}\n{text}COMMIT\n")

    def _nft(self, ways: Mapping[str, int]) -> Iterator[Leftover]:
        theirs = foreign.tables(self._json(["nft", "-j", "list", "tables"], {}))
        old = foreign.marks(self._json(["ip", "-N", "-j", "rule", "show"], []))
        if theirs or old:
            names = ", ".join(f"{family} {name}" for family, name in theirs) or "none"
            yield Leftover(f"firewall tables: {names}; {len(old)} marks", lambda: self._replace(theirs, old, ways))

    def _replace(self, theirs: list[tuple[str, str]], old: Mapping[int, str], ways: Mapping[str, int]) -> None:
        if theirs:
            text = "".join(self.run(["nft", "-s", "list", "table", *table]) for table in theirs)
            whole.put(self.kept / "firewall.nft", text.encode())
        if opened := foreign.opening(self._json(["nft", "-j", "list", "chains"], {}), theirs):
            self.run(["nft", "-f", "-"], opened)
        self.run(["nft", "-f", "-"], foreign.replacement(theirs, old, ways))

    def _rules(self) -> Iterator[Leftover]:
        for rule in foreign.rules(self._json(["ip", "-N", "-j", "rule", "show"], [])):
            words = ["priority", str(rule["priority"])]
            if rule["src"] != "all":
                words += ["from", f"{rule['src']}/{rule.get('srclen', 32)}"]
            if "fwmark" in rule:
                words += ["fwmark", f"{rule['fwmark']}{'/' + rule['fwmask'] if 'fwmask' in rule else ''}"]
            words += ["table", str(rule["table"])]
            yield Leftover(f"rule {' '.join(words)}", lambda words=words: self._ip("rule", "del", *words))  # type: ignore[misc]

    def _routes(self) -> Iterator[Leftover]:
        for words in foreign.routes(self._json(["ip", "-N", "-j", "route", "show", "table", "all"], [])):
            yield Leftover(f"route {' '.join(words)}", lambda words=words: self._ip("route", "del", *words))  # type: ignore[misc]

    def _ip(self, *words: str) -> None:
        try:
            self.run(["ip", *words])
        except CommandFailed as error:
            if "No such" not in str(error):  # ours has taken its place meanwhile
                raise

    def _units(self) -> Iterator[Leftover]:
        if not self.services:
            return
        instances = self.run(["systemctl", "list-units", "--plain", "--no-legend", "--all", "--", *foreign.INSTANCES])
        running = [line.split()[0] for line in instances.splitlines() if line.strip()]
        for unit in (*foreign.STOPPED, *foreign.MASKED, *running):
            if "LoadState=loaded" in self.run(["systemctl", "show", "-p", "LoadState", "--", unit]):
                verb = ["mask"] if unit in foreign.MASKED else ["mask", "--now"]
                yield Leftover(f"unit {unit}", lambda verb=verb, unit=unit: self._systemctl(*verb, "--", unit))  # type: ignore[misc]

    def _systemctl(self, *words: str) -> None:
        self.run(["systemctl", *words], timeout_s=100.0)

    def _processes(self) -> Iterator[Leftover]:
        for directory in (self.root / "proc").glob("[0-9]*") if self.whole else ():
            try:
                words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            # The program, or the script that an interpreter runs: no word further on, which may be about it.
            if foreign.PROGRAMS & set(words[:2]):
                pid = int(directory.name)
                yield Leftover(f"process {' '.join(words[:2])}", lambda pid=pid: os.kill(pid, signal.SIGTERM))  # type: ignore[misc]

    def _files(self) -> Iterator[Leftover]:
        named = [self.root / path for path in foreign.FILES]
        searched = [path for folder in foreign.SEARCHED for path in sorted((self.root / folder).glob("*"))]
        mine = [path for path in named if path.is_file()]
        mine += [p for p in searched if p.is_file() and not p.is_symlink() and foreign.calls_old_agent(_text(p))]
        mine += sorted(self.root.glob(foreign.PASSWORDS))
        for path in mine:
            yield Leftover(f"file /{path.relative_to(self.root)}", lambda path=path: self._move(path))  # type: ignore[misc]
        for name, change in ((foreign.CRONTAB, foreign.without_old_agent), (foreign.RT_TABLES, foreign.without_names)):
            path = self.root / name
            if path.is_file() and change(_text(path)) != _text(path):
                yield Leftover(f"lines in /{name}", lambda path=path, change=change: self._edit(path, change))  # type: ignore[misc]

    def _move(self, path: Path) -> None:
        target = self.kept / "files" / path.relative_to(self.root)
        make_directories(target.parent)
        shutil.move(path, target)
        target.chmod(0o600)
        whole.sync(target.parent)
        whole.sync(path.parent)

    def _edit(self, path: Path, change: Callable[[str], str]) -> None:
        whole.put(path, change(_text(path)).encode(), path.stat().st_mode & 0o777)
        whole.sync(path.parent)

    def _json(self, argv: list[str], nothing: Any) -> Any:
        return msgspec.json.decode(self.run(argv) or b"null") or nothing


def _text(path: Path) -> str:
    return path.read_text("utf-8", "surrogateescape")
