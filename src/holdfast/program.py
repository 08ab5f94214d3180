"""The packet path on one page: a constant program whose configuration is data in its sets and maps.  Pure.

Connection mark: way back in 0x00000fff, epoch of judgement in 0x0ffff000, VPN in 0xf0000000.  A flow that was judged
carries the current epoch; a transaction that takes permission away changes the epoch, one after it settles it, and the
next packet of every flow, whichever way it goes, is judged again by its original tuple: stamped or dropped.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from holdfast.nft import EPOCH, TABLE, VPN, WAY, Chain, Rule, Stage, key, mark, quoted
from holdfast.state import Elements, Ruleset

_HOOKS = {
    Chain.PREROUTING: "type filter hook prerouting priority mangle; policy accept;",
    Chain.DNAT: "type nat hook prerouting priority dstnat; policy accept;",
    Chain.OUTPUT_DNAT: "type nat hook output priority -100; policy accept;",
    Chain.INPUT: "type filter hook input priority filter; policy drop;",
    Chain.FORWARD: "type filter hook forward priority filter; policy drop;",
    Chain.OUTPUT: "type route hook output priority mangle; policy accept;",
    Chain.SNAT: "type nat hook postrouting priority srcnat; policy accept;",
    Chain.POSTROUTING: "type filter hook postrouting priority 150; policy accept;",
}

_PUBLIC = "ip daddr . meta l4proto . th dport"
_BACK = "ip saddr . meta l4proto . th sport"
_SERVICE = "iifname . meta l4proto . th dport"
_INTERVAL = "; flags interval"
_ASKED = "iifname . ip daddr @guest_proxy"
_NIC = "iifname . ether saddr . ip saddr"
_SETS = {
    "public_address": "ip daddr",
    "ingress_port": "ip daddr . meta l4proto . ip saddr . th dport" + _INTERVAL,
    "ingress_icmp": "ip daddr . ip saddr . icmp type . icmp code" + _INTERVAL,
    "ingress_any": "ip daddr . ip saddr" + _INTERVAL,
    "egress_open": "iifname",
    "guest_device": "iifname",
    "guest_pair": "iifname . oifname",  # derived: each guest device with itself
    "guest_route": "fib saddr oifname",  # derived: guest_device in the type that a route look-up gives
    "public_device": "iifname",
    "control_device": "iifname",
    "router_service": _SERVICE,
    "guest_service": _SERVICE,
    "guest_source": "iifname . ip saddr" + _INTERVAL,
    "guest_proxy": "iifname . ip daddr",  # where guests ask for metadata and passwords
    "guest_known": "ip saddr",  # guests whose nic is known: they speak from no other
    "guest_nic": _NIC,
    "public_service": _PUBLIC,
    "forwarded": "ip daddr . meta l4proto . th dport . ip saddr" + _INTERVAL,  # public side . VM
    "forward_target": _PUBLIC + _INTERVAL,
    "forward_restricted": _PUBLIC + _INTERVAL,
    "forward_source": "ip daddr . meta l4proto . ip saddr . th dport" + _INTERVAL,
    "static_public": "ip daddr . ip saddr",  # public . VM
    "static_private": "ip daddr",
    "acl_device": "iifname",
    "acl_open": "iifname",  # egress that no rule matches is accepted
    "acl_gateway": "iifname . ip daddr",  # the router's own addresses there: not asked about
    "private_device": "iifname",
    "tunnelled": "ip saddr . ip daddr" + _INTERVAL,  # a network here . one behind a VPN's peer
    "vpn_peer": "ip daddr . ip saddr",  # the address that a tunnel is spoken by . its peer
    "leaving": "ip saddr",  # derived: what source_nat leads to
    "static_pair": "ip saddr . ip daddr",  # derived: VM . the public address that static_source gives it
}
_MAPS = {
    # by types: nft 1.0.6 cannot read `typeof … : ip daddr . th dport` back, and then refuses every refill
    "port_forward": "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "range_forward": _PUBLIC + " : ip daddr" + _INTERVAL,
    "static_nat": "ip daddr : ip daddr",
    "static_source": "oifname . ip saddr : ip saddr",
    "source_nat": "iifname . oifname : ip saddr",
    "hairpin": "iifname . oifname : ip saddr",
    "acl_out": "iifname : verdict",  # derived, as the next three: to the chains of each nic in acl_device
    "acl_in": "oifname : verdict",
    "acl_in_back": "iifname : verdict",
    "acl_out_back": "oifname : verdict",
    "way_in": "iifname : ct mark",
    "way_out": "iifname . ip saddr : ct mark",
}
_EGRESS = {
    "port": "ip saddr . ip daddr . meta l4proto . th dport",
    "icmp": "ip saddr . ip daddr . icmp type . icmp code",
    "any": "ip saddr . ip daddr",
}
_LAYER = re.compile(r"egress_(deny|allow)_(port|icmp|any)_(\d{1,2})")
_ACL = {
    "port": "ip saddr . meta l4proto . th dport",
    "icmp": "ip saddr . icmp type . icmp code",
    "proto": "ip saddr . meta l4proto",
}
_ACL_LAYER = re.compile(r"acl_(in|out)_([A-Za-z0-9]+)_(\d+)_(deny|allow)_(port|icmp|proto)")
_ACL_CHAINS = ("acl_out", "acl_in", "acl_in_back", "acl_out_back")
_GRANTS = re.compile(
    r"ingress_.*|egress_(allow_.*|open)|forward.*|static_.*|leaving|port_forward|range_forward|(guest|public)_device"
    r"|acl_open|acl_.*_allow_.*|tunnelled"
)
_DENIES = re.compile(r"egress_deny_.*|public_address|forward_restricted|private_device|acl_.*_deny_.*")


def revokes(name: str, *, removed: bool) -> bool:
    """Tell whether removing (else adding) elements of this set takes permission away from flows that may exist."""
    return bool((_GRANTS if removed else _DENIES).fullmatch(name))


def trust(epoch: int, table: str = TABLE) -> str:
    """Return the commands that refill the two chains which know the epoch (1 to `EPOCHS`), and nothing else."""
    stamp = epoch * (EPOCH & -EPOCH)
    return (
        f"flush chain inet {table} judged\nflush chain inet {table} stamp\n"
        f"add rule inet {table} judged ct mark & {mark(EPOCH)} == {mark(stamp)} accept\n"
        f"add rule inet {table} stamp ct mark set ct mark & {mark(WAY | VPN)} | {mark(stamp)} accept\n"
    )


def assemble(rules: Iterable[Rule], elements: Mapping[str, dict[str, str]]) -> list[Ruleset | Elements]:
    """Return the structure as one resource and each declared set as one, empty ones too.

    The structure depends on `rules`, on the nics in `acl_device`, and on which layers of egress rules and of ACLs are
    in `elements`.  ValueError: a set never heard of, a layer of a nic that is not in `acl_device`.
    """
    declared = dict.fromkeys([*_SETS, *_MAPS])
    named = {name for name in elements if name not in declared and elements[name]}
    acls: dict[str, list[str]] = {device.strip('"'): [] for device in sorted(elements.get("acl_device", ()))}
    for name in named:
        if (layer := _ACL_LAYER.fullmatch(name)) and layer[2] in acls:
            acls[layer[2]].append(name)
    of_acls = {name for own in acls.values() for name in own}
    layers = [name for name in named if _LAYER.fullmatch(name)]
    if wrong := sorted(named - of_acls - set(layers)):
        raise ValueError(f"no such set: {', '.join(wrong)}")
    layers.sort(key=lambda name: (name.rpartition("_")[0], int(name.rpartition("_")[2])))
    devices = sorted(elements.get("guest_device", ()))
    derived = {
        "guest_pair": {key(device, device): "" for device in devices},
        "guest_route": dict.fromkeys(devices, ""),
        **{chain: {quoted(device): f"jump {chain}_{device}" for device in acls} for chain in _ACL_CHAINS},
        "leaving": dict.fromkeys(elements.get("source_nat", {}).values(), ""),
        "static_pair": {key(k.partition(" . ")[2], to): "" for k, to in elements.get("static_source", {}).items()},
    }
    names = (*declared, *layers, *sorted(of_acls))
    held = (Elements(name, derived.get(name) or dict(elements.get(name, {}))) for name in names)
    return [Ruleset("".join(_table(list(rules), layers, acls))), *held]


def _table(rules: list[Rule], layers: list[str], acls: Mapping[str, list[str]]) -> Iterator[str]:
    yield f"table inet {TABLE} {{\n"
    for name, shape in _SETS.items():
        yield f"\tset {name} {{ typeof {shape}; }}\n"
    for name, shape in _MAPS.items():
        yield f"\tmap {name} {{ {'' if shape.startswith('type ') else 'typeof '}{shape}; }}\n"
    for name in layers:
        yield f"\tset {name} {{ typeof {_EGRESS[name.split('_')[2]]}{_INTERVAL}; }}\n"
    for name in sorted(name for own in acls.values() for name in own):
        yield f"\tset {name} {{ typeof {_ACL[name.rpartition('_')[2]]}{_INTERVAL}; }}\n"
    chains: defaultdict[Chain, list[Rule]] = defaultdict(list)
    theirs = sorted(set(rules), key=lambda rule: (rule.stage.value, rule.text))
    for rule in sorted([*_program(layers), *theirs], key=lambda rule: rule.stage.value):
        chains[rule.chain].append(rule)
    for chain in Chain:  # declared first: rules may jump to any of them
        yield f"\tchain {chain.value} {{ {_HOOKS.get(chain, '')} }}\n"
    for device, own in acls.items():
        for name in _ACL_CHAINS:
            lines = "".join(f"\t\t{text}\n" for text in _acl(name, own))
            yield f"\tchain {name}_{device} {{\n{lines}\t}}\n"
    for chain in Chain:
        lines = "".join(f"\t\t{rule.text}\n" for rule in chains[chain])
        yield f"\tchain {chain.value} {{\n{lines}\t}}\n"
    yield "}\n"


def _program(layers: list[str]) -> Iterator[Rule]:
    for line in _PATH.strip().splitlines():
        chain, stage, text = line.split(maxsplit=2)
        yield Rule(Chain[chain], Stage[stage], text)
    for verdict, then in (("deny", "drop"), ("allow", "goto stamp")):
        for name in (layer for layer in layers if layer.split("_")[1] == verdict):
            there = _EGRESS[name.split("_")[2]]
            yield Rule(Chain.EGRESS, Stage.JUDGE, f"{there} @{name} {then}")
            if "icmp" not in name:  # the type of a reply says nothing about the type that was asked with
                back = there.replace("saddr", "x").replace("daddr", "saddr").replace("x", "daddr")
                yield Rule(Chain.REPLY_EGRESS, Stage.JUDGE, f"{back.replace('dport', 'sport')} @{name} {then}")
    yield Rule(Chain.EGRESS, Stage.JUDGE, "iifname @egress_open goto stamp")
    yield Rule(Chain.REPLY_EGRESS, Stage.JUDGE, "oifname @egress_open goto stamp")


def _acl(chain: str, layers: list[str]) -> Iterator[str]:
    """One nic's rules in one of its chains, level by level; what is allowed returns, and goes on."""
    _, direction, back = f"{chain}_".split("_")[:3]
    if back:
        yield "meta l4proto icmp return"  # the type of a reply says nothing about the type that was asked with
    for name in sorted(layers, key=lambda name: (int(name.split("_")[3]), name)):
        _, side, _, _, verdict, shape = name.split("_")
        if side == direction and not (back and shape == "icmp"):
            # The other end: source of what comes in, destination of what goes out; in replies, the other way round.
            asked = _ACL[shape] if (side == "in") is not bool(back) else _ACL[shape].replace("saddr", "daddr")
            asked = asked.replace("dport", "sport") if back else asked
            yield f"{asked} @{name} {'return' if verdict == 'allow' else 'drop'}"
    if direction == "out":
        yield f"{'oifname' if back else 'iifname'} @acl_open return"
    yield "drop"


# What guests ask the router itself goes to sockets that listen on loopback: none depends on a guest network.
# Judgement sees the tuple of the first packet: in PREROUTING before DNAT, in FORWARD before SNAT.  Replies show it
# reversed: in FORWARD for flows of guests, behind SNAT (POSTROUTING) for flows that were forwarded to guests.
_PATH = f"""
PREROUTING PREPARE iifname "lo" accept
PREROUTING PREPARE ct state new ct mark 0x00000000 ct mark set iifname map @way_in
PREROUTING PREPARE ct state new ct mark 0x00000000 ct mark set iifname . ip saddr map @way_out
PREROUTING PREPARE iifname != @public_device ct mark & {mark(WAY)} != 0 meta mark set ct mark & {mark(WAY)}
PREROUTING GUARD ct state invalid drop
PREROUTING GUARD ct state new tcp flags & (fin|syn|rst|ack) != syn drop
PREROUTING GUARD ct state new iifname @guest_device ip saddr != 0.0.0.0 fib saddr . iif oif missing drop
PREROUTING GUARD ct state new iifname @public_device fib saddr oifname @guest_route drop
PREROUTING GUARD ct state new iifname @private_device fib saddr oifname @guest_route drop
PREROUTING GUARD tcp dport {{ 80, 443, 8080 }} {_ASKED} ip saddr @guest_known {_NIC} != @guest_nic drop
PREROUTING ADMIT tcp dport 80 {_ASKED} tproxy ip to 127.0.0.1:8580 accept
PREROUTING ADMIT tcp dport 443 {_ASKED} tproxy ip to 127.0.0.1:8543 accept
PREROUTING ADMIT tcp dport 8080 {_ASKED} tproxy ip to 127.0.0.1:8588 accept
PREROUTING ADMIT ct state related meta l4proto {{ icmp, ipv6-icmp }} accept
PREROUTING TRUST jump judged
PREROUTING JUDGE ct direction original ct status dnat jump judge_translation
PREROUTING JUDGE ct direction original {_PUBLIC} @forward_restricted jump judge_source
PREROUTING JUDGE ct direction original ip daddr @public_address jump judge_ingress
PREROUTING JUDGE ct direction original meta nfproto ipv4 iifname @acl_device jump judge_acl
RESTRICTED JUDGE ip daddr . meta l4proto . ip saddr . th dport != @forward_source drop
ACL ADMIT fib daddr type {{ broadcast, multicast }} return
ACL ADMIT iifname . ip daddr @acl_gateway return
ACL JUDGE iifname vmap @acl_out
TRANSLATION JUDGE ip daddr . ct reply ip saddr @static_public return
TRANSLATION JUDGE {_PUBLIC} . ct reply ip saddr @forwarded return
TRANSLATION REFUSE drop
INGRESS JUDGE ip daddr . meta l4proto . ip saddr . th dport @ingress_port accept
INGRESS JUDGE ip daddr . ip saddr . icmp type . icmp code @ingress_icmp accept
INGRESS JUDGE ip daddr . ip saddr @ingress_any accept
INGRESS REFUSE drop
DNAT PORT dnat ip to {_PUBLIC} map @port_forward
DNAT PORT dnat ip to {_PUBLIC} map @range_forward
DNAT STATIC dnat ip to ip daddr map @static_nat
OUTPUT_DNAT PORT dnat ip to {_PUBLIC} map @port_forward
OUTPUT_DNAT PORT dnat ip to {_PUBLIC} map @range_forward
OUTPUT_DNAT STATIC dnat ip to ip daddr map @static_nat
INPUT TRUST iifname "lo" accept
INPUT TRUST ct direction reply ct state established,related accept
INPUT JUDGE meta l4proto {{ icmp, ipv6-icmp }} accept
INPUT JUDGE {_SERVICE} @router_service accept
INPUT JUDGE {_SERVICE} @guest_service iifname . ip saddr @guest_source accept
INPUT JUDGE {_PUBLIC} @public_service accept
FORWARD GUARD meta nfproto ipv6 drop
FORWARD TRUST jump judged
FORWARD TRUST ct state related meta l4proto {{ icmp, ipv6-icmp }} accept
FORWARD JUDGE ct direction original oifname vmap @acl_in
FORWARD JUDGE ct direction reply iifname vmap @acl_in_back
FORWARD JUDGE ct direction original ct status dnat goto judge_forwarded
FORWARD JUDGE ct direction reply ct status dnat goto reply_forwarded
FORWARD JUDGE ct direction original meta nfproto ipv4 iifname @acl_device oifname @acl_device goto stamp
FORWARD JUDGE ct direction reply meta nfproto ipv4 iifname @acl_device oifname @acl_device accept
FORWARD JUDGE iifname . oifname @guest_pair accept
FORWARD JUDGE ct direction original iifname @guest_device oifname @public_device goto judge_egress
FORWARD JUDGE ct direction reply iifname @public_device oifname @guest_device goto reply_egress
FORWARDED JUDGE ip daddr @static_private goto stamp
FORWARDED JUDGE {_PUBLIC} @forward_target goto stamp
EGRESS GUARD ct status snat ct reply ip daddr != @leaving ip saddr . ct reply ip daddr != @static_pair drop
REPLY_EGRESS GUARD ct status snat ct reply ip daddr != @leaving ip daddr . ct reply ip daddr != @static_pair drop
REPLY_EGRESS TRUST meta l4proto icmp accept
REPLY_EGRESS JUDGE oifname @acl_device accept
REPLY_FORWARDED JUDGE ip saddr @static_private accept
REPLY_FORWARDED JUDGE {_BACK} @forward_target accept
OUTPUT PREPARE ct mark & {mark(WAY)} != 0 meta mark set ct mark & {mark(WAY)}
SNAT HAIRPIN ct status dnat snat ip to iifname . oifname map @hairpin
SNAT STATIC snat ip to oifname . ip saddr map @static_source
SNAT SOURCE snat ip to iifname . oifname map @source_nat
POSTROUTING JUDGE ct direction reply ct status dnat iifname @guest_device goto settle
POSTROUTING JUDGE ct direction reply iifname @acl_device goto settle
POSTROUTING JUDGE ct direction reply iifname @public_device oifname @acl_device goto settle
SETTLE TRUST jump judged
SETTLE TRUST meta l4proto icmp accept
SETTLE JUDGE oifname vmap @acl_out_back
SETTLE JUDGE ct status & dnat == 0 goto stamp
SETTLE JUDGE ip saddr . ct reply ip saddr @static_public goto settle_ingress
SETTLE JUDGE {_BACK} . ct reply ip saddr @forwarded goto settle_ingress
SETTLE REFUSE drop
SETTLE_INGRESS GUARD {_BACK} @forward_restricted ip saddr . meta l4proto . ip daddr . th sport != @forward_source drop
SETTLE_INGRESS JUDGE ip saddr != @public_address goto stamp
SETTLE_INGRESS JUDGE ip saddr . meta l4proto . ip daddr . th sport @ingress_port goto stamp
SETTLE_INGRESS JUDGE ip saddr . ip daddr @ingress_any goto stamp
SETTLE_INGRESS REFUSE drop
"""
