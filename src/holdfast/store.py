"""Generations of the configuration on disk: at every instant the old one or the new one, whole.

The store deals in named byte documents and knows no feature.  One writer at a time (`holdfast.lock`).
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast import generation as paper
from holdfast.disk import Disk, link_through, remove, replace_link
from holdfast.errors import Failed
from holdfast.generation import META, RECORD, Damaged, Generation, Held, Meta, Retention

__all__ = ["Damaged", "Generation", "Meta", "Retention", "Store"]

SHARED_BY = 10
"""How many generations may share one inode: a damaged one must not be damaged everywhere."""

_PROPOSED = ".proposed"
_REMOVED = ".removed"
_GENERATION = re.compile(r"([0-9]{6,9})(\.proposed|\.removed)?")
_CURRENT = re.compile(r"generations/([0-9]{6,9})")


class _Seen(NamedTuple):
    """Numbers in the directory of generations, highest first."""

    accepted: list[int]
    proposed: list[int]
    removed: list[int]


class Store:
    """Generations under `root` (/etc/cloudstack).  `damage` lists what the last `load` found, each naming its file."""

    def __init__(
        self,
        root: Path,
        disk: Disk | None = None,
        *,
        retention: Retention = Retention(),  # noqa: B008 immutable
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = root
        self.damage: list[str] = []
        self._disk = disk or Disk()
        self._generations = root / "generations"
        self._current = root / "current"
        self._retention = retention
        self._clock = clock

    def load(self) -> Generation | None:
        """Return the current generation, or the newest whole one where that is damaged; None on a fresh machine.

        Damaged if there are generations and none is whole: never an empty configuration in place of a lost one.
        """
        self.damage = []
        for number in self._candidates():
            try:
                generation = self._read(self._directory(number), number)
            except Damaged as error:
                self.damage.append(str(error))
                continue
            try:
                self._verified(self._directory(number), generation.meta, RECORD)
            except Damaged as error:
                # The record is not configuration: losing it is told, but is no reason to go back to older rules.
                self.damage.append(str(error))
            return generation
        if self.damage:
            raise Damaged(f"no generation is whole: {'; '.join(self.damage)}")
        return None

    def read(self, number: int) -> Generation:
        """Return any generation, proposed ones too, with every document verified; Damaged if one is not whole."""
        return self._read(self._place(number), number)

    def messages(self, number: int) -> list[tuple[str, bytes]]:
        """Return the messages that made a generation, exactly as they came; Damaged if they are not whole."""
        place = self._place(number)
        return paper.read_messages(self._verified(place, self._meta(place, number), RECORD))

    def history(self) -> list[Meta]:
        """Return what is known about every accepted generation, newest first; those with no whole meta are left out."""
        pointed, _ = self._pointed()
        numbers = [number for number in self._seen().accepted if pointed is None or number <= pointed]
        return [meta for number in numbers if (meta := self._meta_or_none(number))]

    def propose(
        self,
        documents: Mapping[str, bytes],
        *,
        events: Sequence[tuple[str, bytes]] = (),
        cause: str,
        refused: Sequence[Any] = (),
    ) -> int:
        """Write a generation beside the current one, durable but not in force, and return its number.

        `events` are names and bytes of messages; `refused` anything that JSON can hold.  Failed if the disk refuses.
        """
        paper.check_names(documents)
        parent: Generation | None = None
        with contextlib.suppress(Damaged):  # nothing whole is left: the new generation is written from scratch
            parent = self.load()
        files = {f"{name}.json": data for name, data in documents.items()}
        files[RECORD] = paper.write_messages(events)
        with self._failing("a new generation cannot be written"):
            self._prepare()
            number = self._sweep(parent.number if parent else 0)
            meta = Meta(
                number=number,
                created=self._clock(),
                cause=cause,
                events=tuple(paper.printable(name) for name, _ in events),
                refused=tuple(refused),
                parent=parent.number if parent else 0,
                digests={name: paper.digest(data) for name, data in files.items()},
            )
            try:
                self._write(self._proposal(number), files, meta, parent)
            except OSError:
                remove(self._disk, self._proposal(number))
                raise
        return number

    def accept(self, number: int) -> None:
        """Make a proposed generation the current one and prune.  Once this returns no power cut undoes it.

        Failed if the disk refuses: then the generation before is current, unless it was the very last sync that failed.
        """
        aside = f".before-{number:06d}"
        with self._failing(f"generation {number} cannot become current"):
            self._disk.rename(self._proposal(number), self._directory(number))
            surplus = self._surplus(number)
            for old in surplus:
                # Renamed before anything is unlinked: a half removed generation never bears a generation's name.
                self._disk.rename(self._directory(old), self._removal(old))
            self._disk.sync(self._generations)
            replace_link(self._disk, self._current, f"generations/{number:06d}", aside)
            self._disk.sync(self.root)
        # From here on the generation is in force: what fails below is tidied by the next one.
        with contextlib.suppress(OSError):
            names = [name for name in self._meta(self._directory(number), number).digests if name != RECORD]
            link_through(self._disk, self.root, self._current.name, names, aside)
        for old in surplus:
            remove(self._disk, self._removal(old))

    def discard(self, number: int) -> None:
        """Remove a proposal that did not hold."""
        remove(self._disk, self._proposal(number))

    def _candidates(self) -> Iterator[int]:
        pointed, trouble = self._pointed()
        if pointed is not None:
            yield pointed
        accepted = self._seen().accepted
        if pointed is None and not trouble and len(accepted) > 1:
            # A single one is a first `accept` that was cut short just before it set the link: nothing is damaged.
            trouble = f"{self._current}: missing"
        if trouble:
            self.damage.append(trouble)
        yield from (number for number in accepted if number != pointed)

    def _pointed(self) -> tuple[int | None, str]:
        """Return the number that `current` names, None if none, and what is wrong with it."""
        try:
            target = self._disk.readlink(self._current)
        except FileNotFoundError:
            return None, ""
        except OSError as error:  # EINVAL is how readlink says that it is something else
            return None, f"{self._current}: not a symbolic link ({error.strerror})"
        if match := _CURRENT.fullmatch(target):
            return int(match[1]), ""
        return None, f"{self._current}: points to {target!r}, which is no generation"

    def _seen(self) -> _Seen:
        found: dict[str, list[int]] = {"": [], _PROPOSED: [], _REMOVED: []}
        try:
            names = self._disk.names(self._generations)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise Damaged(f"{self._generations}: {error.strerror}") from error
        for name in names:
            if match := _GENERATION.fullmatch(name):
                found[match[2] or ""].append(int(match[1]))
        return _Seen(*(sorted(numbers, reverse=True) for numbers in found.values()))

    def _read(self, place: Path, number: int) -> Generation:
        meta = self._meta(place, number)
        names = [name for name in meta.digests if name != RECORD]
        documents = {name.removesuffix(".json"): self._verified(place, meta, name) for name in names}
        return Generation(number, documents, meta)

    def _meta(self, place: Path, number: int) -> Meta:
        path = place / META
        meta = paper.unseal(self._bytes(path), str(path))
        if meta.number != number:
            raise Damaged(f"{path}: belongs to generation {meta.number}")
        return meta

    def _meta_or_none(self, number: int) -> Meta | None:
        try:
            return self._meta(self._directory(number), number)
        except Damaged:
            return None

    def _verified(self, place: Path, meta: Meta, name: str) -> bytes:
        data = self._bytes(place / name)
        if paper.digest(data) != meta.digests.get(name):
            raise Damaged(f"{place / name}: {'checksum does not match' if data else 'empty'}")
        return data

    def _bytes(self, path: Path) -> bytes:
        try:
            return self._disk.read(path)
        except FileNotFoundError as error:
            raise Damaged(f"{path}: missing") from error
        except OSError as error:
            raise Damaged(f"{path}: {error.strerror}") from error

    def _prepare(self) -> None:
        missing = [each for each in (self._generations, *self._generations.parents) if not each.exists()]
        for directory in reversed(missing):
            self._disk.make_directory(directory)
            self._disk.sync(directory.parent)

    def _sweep(self, base: int) -> int:
        """Remove what a crash left behind; return the next number, higher than any seen."""
        pointed = self._pointed()[0] or 0
        seen = self._seen()
        for number in seen.accepted:
            # Accepted, but cut before the link was set: an answer was never given, so it must not become history.
            if pointed and number > max(pointed, base):
                self._disk.rename(self._directory(number), self._removal(number))
                remove(self._disk, self._removal(number))
        for number in seen.proposed:
            remove(self._disk, self._proposal(number))
        for number in seen.removed:
            remove(self._disk, self._removal(number))
        return max([0, pointed, base, *seen.accepted, *seen.proposed, *seen.removed]) + 1

    def _write(self, place: Path, files: Mapping[str, bytes], meta: Meta, parent: Generation | None) -> None:
        self._disk.make_directory(place)
        fresh = {META: paper.seal(meta)}
        for name, data in files.items():
            same = parent is not None and parent.documents.get(name.removesuffix(".json")) == data
            if not (same and self._share(self._directory(meta.parent) / name, place / name)):
                fresh[name] = data
        for name, data in fresh.items():
            self._disk.write(place / name, data)
        # All are written before the first is synced: the file system then commits them together.
        for name in fresh:
            self._disk.sync(place / name)
        self._disk.sync(place)

    def _share(self, existing: Path, path: Path) -> bool:
        try:
            if self._disk.links(existing) >= SHARED_BY:
                return False
            self._disk.link(existing, path)
        except OSError:  # a file system without hard links: a copy is as good
            return False
        return True

    def _surplus(self, number: int) -> list[int]:
        needed = frozenset({number, self._meta(self._directory(number), number).parent, self._pointed()[0] or 0})
        return paper.surplus([self._held(each) for each in self._seen().accepted], needed, self._retention)

    def _held(self, number: int) -> Held:
        meta, inodes = self._meta_or_none(number), dict[int, int]()
        with contextlib.suppress(OSError):
            inodes.update(self._disk.entries(self._directory(number)))
        return Held(number, meta.created if meta else None, inodes)

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failed(f"{what}: {error.filename or self.root}: {error.strerror}") from error

    def _directory(self, number: int) -> Path:
        return self._generations / f"{number:06d}"

    def _proposal(self, number: int) -> Path:
        return self._generations / f"{number:06d}{_PROPOSED}"

    def _removal(self, number: int) -> Path:
        return self._generations / f"{number:06d}{_REMOVED}"

    def _place(self, number: int) -> Path:
        proposal = self._proposal(number)
        return proposal if proposal.exists() else self._directory(number)
