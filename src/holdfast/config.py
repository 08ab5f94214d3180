"""From messages to commands, from commands to bags.  Dialects and refusals end here.  Pure."""

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from hashlib import sha256
from operator import or_
from typing import Any, NamedTuple, TypeAlias

import msgspec

from holdfast.errors import Degraded, Rejected
from holdfast.feature import WORDS_FOR_PATTERNS, Command, Feature, Gone, Item, Refusal
from holdfast.features import FEATURES
from holdfast.router import Facts, Router
from holdfast.shared import Data, Host

Config: TypeAlias = Mapping[str, Any]
"""Every feature's bag by the feature's name."""


class Decoded(NamedTuple):
    """A command, the units of its message that could not even be read, and each item's place in the message."""

    command: Command
    refused: tuple[Refusal, ...] = ()
    places: tuple[int, ...] | None = None


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    union = reduce(or_, (command for feature in FEATURES for command in feature.commands))
    return msgspec.json.Decoder(union)


@cache
def _types() -> dict[str, tuple[type[Command], Feature[Any]]]:
    return {
        str(command.__struct_config__.tag): (command, feature) for feature in FEATURES for command in feature.commands
    }


def owner(command: Command) -> Feature[Any]:
    """The feature whose command this is."""
    return _types()[kind(command)][1]


def kind(command: Command) -> str:
    """The `type` of a command."""
    return str(command.__struct_config__.tag)


def decode(document: bytes) -> Decoded:
    """Read a message.  Units that cannot be read are refused one by one; Rejected if nothing of it can be read."""
    try:
        return Decoded(_decoder().decode(document))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return _by_unit(document, error)


def _by_unit(document: bytes, error: Exception) -> Decoded:
    """What can be kept of a message that is not right as a whole."""
    try:
        fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
        name = msgspec.json.decode(fields.get("type", b'""'), type=str)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise rejected(error) from error
    if name not in _types():
        raise Rejected(
            f"{name!r} is no type of message that this agent knows" if name else "no type", "type"
        ) from error
    command, feature = _types()[name]
    raw = fields.get(feature.units)
    items = _items(raw) if raw is not None and feature.units else None
    if items is None:
        raise rejected(error) from error
    unit_decoder = msgspec.json.Decoder(_item_type(command, feature.units))
    good: list[msgspec.Raw] = []
    places: list[int] = []
    refused = []
    for index, item in enumerate(items):
        try:
            unit_decoder.decode(item)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as why:
            wrong = rejected(why)
            path = f"{feature.units}[{index}]" + (f".{wrong.path}" if wrong.path else "")
            refused.append(Refusal(path, digest(bytes(item)), wrong.reason))
        else:
            good.append(item)
            places.append(index)
    rest = msgspec.json.encode({**fields, feature.units: good})
    try:
        return Decoded(_decoder().decode(rest), tuple(refused), tuple(places))
    except msgspec.DecodeError as why:
        raise rejected(why) from why


def _items(raw: msgspec.Raw) -> list[msgspec.Raw] | None:
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return None


def _item_type(command: type[Command], field: str) -> Any:
    hint = next(f.type for f in msgspec.structs.fields(command) if f.name == field)
    return hint.__args__[0]


def rejected(error: Exception) -> Rejected:
    """A decoder's complaint as ours, its path without the leading `$.`."""
    text, _, path = str(error).partition(" - at `")
    for pattern, words in WORDS_FOR_PATTERNS.items():
        if repr(pattern) in text or pattern in text:
            text = f"expected {words}"
    return Rejected(text, path.rstrip("`").removeprefix("$").removeprefix("."))


class Refused(Data, frozen=True, kw_only=True):
    """Units that were refused and answered: a fingerprint of each, and what was said."""

    units: dict[str, str] = {}


REFUSED = "refused"
"""The name under which refusals are kept beside the bags."""
_REMEMBERED = 1000
_SPELT_OUT = 5
_LONGEST_REASON = 400


EMPTY: Config = {feature.name: feature.bag() for feature in FEATURES if feature.bag} | {REFUSED: Refused()}


class Merge(NamedTuple):
    """Bags after a command.  `refused` in words, `fresh` those not answered before; `accepted`: anything was taken."""

    config: Config
    refused: tuple[str, ...]
    fresh: tuple[str, ...]
    warnings: tuple[str, ...]
    accepted: bool


def merge(config: Config, decoded: Decoded, facts: Facts, name: str = "") -> Merge:
    """Merge one command into its feature's bag.  Rejected if nothing of it is acceptable and that is news."""
    feature = owner(decoded.command)
    assert feature.merge is not None  # noqa: S101 only features with commands own one
    try:
        merged = feature.merge(config[feature.name], decoded.command, Router(config, facts))
    except Rejected as why:
        raise Rejected(_short(why.reason), why.path) from why
    units: Sequence[Any] = getattr(decoded.command, feature.units) if feature.units else (decoded.command,)
    said: dict[str, str] = {r.unit: f"{r.path}: {_short(r.reason)}" for r in decoded.refused}
    for refusal in merged.refused:
        index = int(refusal.path.partition("[")[2].partition("]")[0] or 0)
        place = decoded.places[index] if decoded.places else index
        path = refusal.path.replace(f"[{index}]", f"[{place}]", 1)
        said[digest(msgspec.json.encode(units[index]))] = f"{path}: {_short(refusal.reason)}"
    known: Refused = config[REFUSED]
    fresh = {unit: text for unit, text in said.items() if unit not in known.units}
    accepted = len(merged.refused) < len(units)
    if fresh and not accepted:
        more = f"; and {len(said) - _SPELT_OUT} more" if len(said) > _SPELT_OUT else ""
        raise Rejected("; ".join([*said.values()][:_SPELT_OUT]) + more)
    after = forgetting({**config, feature.name: merged.bag}, Router(config, facts))
    if fresh:
        units_known = dict([*known.units.items(), *((u, f"{name}: {t}") for u, t in fresh.items())][-_REMEMBERED:])
        after[REFUSED] = Refused(units=units_known)
    return Merge(after, tuple(said.values()), tuple(fresh.values()), merged.warnings, accepted)


def forgetting(config: Config, before: Router) -> dict[str, Any]:
    """Bags without what was about nics that nothing is configured on any more."""
    held = {face.nic: face.networks for face in before.interfaces}
    now = {face.nic: face for face in Router(config, before.facts).interfaces}
    # A tier on another network than the nic had before is as new as one on another nic.
    taken = {nic for nic, face in now.items() if face.purpose == "tier" and not {*face.networks} & {*held.get(nic, ())}}
    gone = (held.keys() - now.keys()) | (taken & held.keys())
    left_vms = _left(before.config["dhcpentry"].hosts, config["dhcpentry"].hosts)
    subnets = {alias.network for alias in before.aliases.values()}
    subnets -= {alias.network for alias in Router(config, before.facts).aliases.values()}
    after = dict(config)
    if gone or left_vms or subnets:
        left = {net for face in now.values() for net in face.networks}
        networks = tuple(sorted((subnets | {net for nic in gone for net in held[nic]}) - left))
        what = Gone(frozenset(gone), networks, left_vms)
        after.update({f.name: f.forget(config[f.name], what) for f in FEATURES if f.forget})
    return after


def _left(before: Mapping[str, Host], after: Mapping[str, Host]) -> frozenset[str]:
    """Addresses that a VM's nic had and has no more."""
    if before is after:
        return frozenset()
    changed = [(mac, host) for mac, host in before.items() if after.get(mac) is not host]
    return frozenset(host.address for mac, host in changed if mac not in after or after[mac].address != host.address)


def undo(before: Config, after: Config, now: Config) -> Config:
    """Take back what one command changed from `before` to `after`, and nothing that others changed since."""
    result = dict(now)
    for name, bag in now.items():
        if before[name] == after[name]:
            continue
        old, new = msgspec.structs.asdict(before[name]), msgspec.structs.asdict(after[name])
        fields = {field: _undone(old[field], new[field], value) for field, value in msgspec.structs.asdict(bag).items()}
        result[name] = type(bag)(**fields)
    return result


def _undone(old: Any, new: Any, now: Any) -> Any:
    if not isinstance(now, dict):
        return old if now == new else now
    entries = dict(now)
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key) and entries.get(key) == new.get(key):
            entries.pop(key, None)
            if key in old:
                entries[key] = old[key]
    return entries


def _short(reason: str) -> str:
    # A reason quotes the message, and goes into answers, alerts and the store: none may be as long as somebody likes.
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def unknown_fields(decoded: Decoded, document: bytes) -> list[str]:
    """Fields of a message, and of its first unit, that nobody here has heard of: a newer server's, perhaps."""
    command = decoded.command
    fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    found = [name for name in fields if name not in {*command.__struct_fields__, *command.ignored}]
    units = owner(command).units
    if units and (items := getattr(command, units)) and isinstance(items[0], Item):
        first = msgspec.json.decode(
            msgspec.json.decode(fields[units], type=list[msgspec.Raw])[0], type=dict[str, msgspec.Raw]
        )
        found += [f"{units}[].{name}" for name in first if name not in {*items[0].__struct_fields__, *items[0].ignored}]
    return found


def digest(unit: bytes) -> str:
    """A short fingerprint of a unit as it came."""
    return sha256(unit).hexdigest()[:20]


def load(documents: Mapping[str, bytes]) -> Config:
    """Bags from stored documents; a bag that was never stored is empty.  Rejected if one has another shape."""
    config = dict(EMPTY)
    for name, empty in EMPTY.items():
        if name in documents:
            try:
                config[name] = msgspec.json.decode(documents[name], type=type(empty))
            except msgspec.DecodeError as error:
                raise Degraded(f"{name}.json is not of this version's shape: {error}") from error
    return config | {f.name: f.renew(config[f.name]) for f in FEATURES if f.renew and f.name in documents}


def dump(config: Config) -> dict[str, bytes]:
    """Documents to be stored; indented, so that people can read and compare them."""
    return {name: msgspec.json.format(msgspec.json.encode(bag)) + b"\n" for name, bag in config.items()}
