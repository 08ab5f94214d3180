"""The contract of a feature: a name, its commands, a bag, and two pure functions."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from holdfast.addresses import inside
from holdfast.nft import Element, Rule
from holdfast.router import Router
from holdfast.state import Resource
from holdfast.texts import IPV4

IPV4_ADDRESS = rf"\A{IPV4}\Z"
Ipv4: TypeAlias = Annotated[str, msgspec.Meta(pattern=IPV4_ADDRESS)]
"""An IPv4 address, dotted, without leading zeros."""

MAC_ADDRESS = r"\A[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\Z"
Mac: TypeAlias = Annotated[str, msgspec.Meta(pattern=MAC_ADDRESS)]
"""A MAC address; compared in lower case."""

Word: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,255}\Z")]
"""Text that may stand in a configuration file: printable, no blank, no line break."""

ONE_LINE = r"\A[^\x00-\x1f\x7f\x85\u2028\u2029]{0,4096}\Z"
Line: TypeAlias = Annotated[str, msgspec.Meta(pattern=ONE_LINE)]
"""One line of text; its renderer quotes it."""

Secret: TypeAlias = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""Masked in every output; may hold any character, so it never stands unquoted in a file."""

Blob: TypeAlias = Annotated[str, msgspec.Meta(extra={"blob": True})]
"""Any text; never stands in a configuration file."""


WORDS_FOR_PATTERNS = {IPV4_ADDRESS: "an IPv4 address", MAC_ADDRESS: "a MAC address", ONE_LINE: "one line of text"}
"""What a refusal says in place of a regular expression."""


class Command(Struct, frozen=True, tag_field="type", kw_only=True):
    """Base of all messages.  The tag is the `type` that the management server sends; unknown fields are ignored.

    `ignored` names fields that are known and mean nothing to us.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"type", "delete_from_processed_cache"})


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what stands inside messages; unknown fields are ignored there too."""

    ignored: ClassVar[frozenset[str]] = frozenset()


class Service(Struct, frozen=True):
    """A wish that a service run, or a statement that it need not.  It runs if anybody wishes it."""

    name: str
    wanted: bool


class Pending(Struct, frozen=True):
    """Something wanted that cannot be yet, and what it waits for."""

    what: str
    waits_for: str


RELEASE = "a release that applies it"
"""What a message waits for whose feature has not been built."""


Part: TypeAlias = Resource | Rule | Element | Service | Pending


class Claim(NamedTuple):
    """A part and who brought it, as `firewallrules/1009`: plans and answers name it; equality is of parts alone."""

    origin: str
    part: Part


class Refusal(NamedTuple):
    """One unit that was not accepted: where it stood in the message, which unit it was, and why."""

    path: str
    unit: str
    reason: str


Bag = TypeVar("Bag")


class Merged(NamedTuple, Generic[Bag]):
    """A bag after a command, the units of it that were refused (they keep their last good form), and what to say."""

    bag: Bag
    refused: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()


class Gone(NamedTuple):
    """Nics that a command took everything from, the networks that were on them, and addresses that VMs gave up."""

    nics: frozenset[str]
    networks: tuple[str, ...]
    vms: frozenset[str] = frozenset()

    def keeps(self, vm: str) -> bool:
        """Whether what is known of the VM at this address still holds."""
        return vm not in self.vms and not inside(vm, self.networks)


class Feature(NamedTuple, Generic[Bag]):
    """A thing that a router does.

    `bag` and `merge` are None where nothing is told to it: it follows from what others were told.
    `forget` drops what was about a nic that is no longer configured, or about a VM that is gone: what comes there
    next inherits nothing.
    `units` names the field of a command whose items are refused one by one.
    `renew` turns a bag that an earlier version stored into what this one makes of the same message.
    """

    name: str
    commands: tuple[type[Command], ...]
    bag: type[Bag] | None
    merge: Callable[[Bag, Any, Router], Merged[Bag]] | None
    contribute: Callable[[Bag, Router], Iterator[Claim]]
    units: str = ""
    forget: Callable[[Bag, Gone], Bag] | None = None
    renew: Callable[[Bag], Bag] | None = None
