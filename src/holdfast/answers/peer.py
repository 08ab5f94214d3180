"""What `holdfast status` says of the pair's other router.  Pure."""

from collections.abc import Mapping
from typing import Any

from holdfast.peer import FRESH_S


def data(document: Mapping[str, Any], now: float, synced_s: int | None = None) -> dict[str, Any]:
    """What is known of the peer, for JSON: peer.json with `fresh`, `ago_s` (seconds since it was heard) and
    `synced_here_s` (see `peer.Hello.synced_s`, this router's).

    `document`: peer.json as it was read, empty if there is none; `now`: the monotonic clock, in seconds.
    """
    if not document:
        return {"fresh": False, "synced_here_s": synced_s}
    ago = round(now - float(document.get("heard") or 0), 3)
    fresh = 0 <= ago <= FRESH_S
    since = float(document.get("two_masters_since") or 0)
    known = {name: value for name, value in document.items() if name not in ("heard", "two_masters_since")}
    # What was said last of a comparison holds no longer than what it was compared with.
    unknown: dict[str, Any] = {} if fresh else {"differs": [], "unheard": []}
    return {
        **known,
        **unknown,
        "fresh": fresh,
        "synced_here_s": synced_s,
        "ago_s": ago,
        "two_masters_s": round(now - since, 1) if since and fresh else 0,
    }


def lines(document: Mapping[str, Any], now: float, synced_s: int | None = None) -> list[str]:
    """The same as text, for a router of a pair."""
    seen = data(document, now, synced_s)
    if not seen.get("name"):
        return ["no peer heard"]
    name, ago = seen["name"], seen["ago_s"]
    if not seen["fresh"]:
        silent = f"for {ago:.0f} s" if ago >= 0 else "since this router's start"
        return [f"no peer heard {silent}; the last was {name}: {seen.get('role') or 'in no role'}"]
    traits = [text for trait, text in _TRAITS if seen.get(trait)]
    said = [f"peer {name}: {seen.get('role') or 'in no role'}, heard {ago:.1f} s ago{''.join(traits)}"]
    ages = (("here", synced_s), (f"at {name}", seen.get("synced_s")))
    if any(age is not None for _, age in ages):
        said.append(f"connections synced: {', '.join(f'{where} {_ago(age)}' for where, age in ages)}")
    if not seen.get("able"):
        said.append(f"{name} could not take over")
    if seen["two_masters_s"]:
        said.append(f"two masters for {seen['two_masters_s']:.0f} s")
    said += [f"differs from the peer: {what}" for what in seen.get("differs", ())]
    said += [f"the peer is not heard in {network}" for network in seen.get("unheard", ())]
    return said


def _ago(seconds: int | None) -> str:
    return "not yet" if seconds is None else f"{seconds} s ago"


_TRAITS = (
    ("leaving", ", handing over"),
    ("boost", ", about to take over"),
    ("hold", ", holding back"),
    ("moving", ", about to move"),
)
