"""The management server's start of a router, followed from its boot line to its end: what it says, kept beside."""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from holdfast.config import EMPTY, Config, dump, load
from holdfast.intake import Event, take
from holdfast.marks import Marks
from holdfast.router import Facts

SILENCE_S = 60.0
"""A start has ended when the management server says nothing for so long."""
UNHEARD_S = 600.0
"""A start after which it has said nothing at all for so long is not going to be one."""
ASKED = "asked"
"""The mark of `get_template_version.sh`, which is called at a start before anything is configured."""
_MARK = "start"
_SAID = "start.said"
_EMPTY = b"{}"


class Note(Struct, frozen=True):
    """The mark.  `phase`: `starting` (since the boot line), `bundled` (since a bundle), `over`; `since_s`: monotonic.

    `why`: for what reason everything stored is unconfirmed, empty if nothing is; `begun`: what began a start in this
    boot already; `heard`: messages since, `bundles` among them.
    """

    phase: str = ""
    since_s: float = 0
    why: str = ""
    begun: tuple[str, ...] = ()
    heard: int = 0
    bundles: int = 0


class StartSequence:
    """Where a start stands; in the marks, since a reboot ends it."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    @property
    def note(self) -> Note:
        """The mark as it is now."""
        try:
            return msgspec.json.decode(self.marks.read(_MARK), type=Note)
        except msgspec.DecodeError:
            return Note()

    def begin(self, why: str, said: Config, mark: str) -> bool:
        """Everything stored is unconfirmed from now on, but for what is `said`; without a `why` nothing is.

        False if this `mark` has been here in this boot.
        """
        note = self.note
        if mark in note.begun:
            return False
        if why:
            self._keep(said)
            self._write(Note("starting", time.monotonic(), why, (*note.begun, mark)))
        else:
            self._write(replace(note, begun=(*note.begun, mark)))
        return True

    @property
    def asked(self) -> bool:
        """Whether the template's version was asked for, and nothing else has happened since this machine has power."""
        note = self.note
        return not note.heard and not note.why and ASKED not in note.begun and bool(self.marks.read(ASKED))

    def step(self, kind: str) -> bool:
        """Follow one step, `boot`, `bundle` or `single`; whether it is in a start, where a refusal stops nothing."""
        note = self.note
        if kind == "boot":
            phase = "starting"
        elif kind == "bundle" and note.phase in ("starting", "bundled") and not self.silent:
            phase = "bundled"
        elif note.phase == "starting" and kind == "single":
            phase = "starting"
        else:
            phase = "over"
        heard, bundles = note.heard + (kind != "boot"), note.bundles + (kind == "bundle")
        self._write(replace(note, phase=phase, since_s=time.monotonic(), heard=heard, bundles=bundles))
        return phase == "bundled"

    def ends(self, kind: str, *, vpc: bool) -> bool:
        """Whether a start has come to its end before this step.  A VPC's last messages are single ones: only silence
        tells that they have all come.
        """
        note = self.note
        if not note.why:
            return False
        return (self.silent and bool(note.heard)) or (note.phase == "bundled" and kind == "single" and not vpc)

    @property
    def silent(self) -> bool:
        """Whether nothing has been said for so long that it will not go on."""
        return time.monotonic() - self.note.since_s > SILENCE_S

    @property
    def unheard(self) -> bool:
        """Whether a start has been begun and never gone on with."""
        note = self.note
        return bool(note.why) and not note.heard and time.monotonic() - note.since_s > UNHEARD_S

    def hear(self, events: Sequence[Event], facts: Callable[[], Facts]) -> None:
        """Merge what a start says to what it has said before; `facts` are asked for only while one goes on."""
        if events and self.note.why:
            self._keep(take(self.said, events, facts()).config)

    @property
    def said(self) -> Config:
        """The bags that the start alone has made."""
        try:
            documents: Mapping[str, Raw] = msgspec.json.decode(self.marks.read(_SAID) or _EMPTY, type=dict[str, Raw])
        except msgspec.DecodeError:
            documents = {}
        return load({name: bytes(document) for name, document in documents.items()}) if documents else EMPTY

    def over(self) -> None:
        """Nothing is unconfirmed any more."""
        note = self.note
        self._write(replace(note, phase="over", since_s=time.monotonic(), why=""))
        self.marks.forget(_SAID)

    def _keep(self, said: Config) -> None:
        self.marks.write(_SAID, msgspec.json.encode({name: Raw(text) for name, text in dump(said).items()}))

    def _write(self, note: Note) -> None:
        self.marks.write(_MARK, msgspec.json.encode(note))
