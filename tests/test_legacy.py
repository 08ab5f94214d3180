"""CloudStack's own bags of every age: read as messages, repaired in words, kept through a power cut, cleared away."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

import legacy_bags as old
from fake_machine import FakeMachine
from holdfast import adopt, agent, config, legacy
from holdfast.adopt import Adoption
from holdfast.clearing import Clearing
from holdfast.errors import Rejected
from holdfast.intake import Event, Taken, take
from holdfast.legacy import Found, Legacy, foreign
from holdfast.router import Facts, Nic
from holdfast.session import Session
from holdfast.store import Store
from power_cut import RecordingDisk

NICS = (
    Nic(old.GUEST, "eth0"),
    Nic(old.CONTROL, "eth1"),
    Nic(old.PUBLIC, "eth2"),
    Nic(old.PUBLIC2, "eth3"),
)
VPC_NICS = (
    Nic("0e:1a:61:00:00:02", "eth0"),
    Nic(old.VPC_PUBLIC, "eth1"),
    Nic(old.VPC_PRIVATE, "eth2"),
    Nic("02:00:61:01:00:01", "eth3"),
    Nic("02:00:61:02:00:01", "eth4"),
)
WAITING = "sesame=3"
SAME_FOR_ALL_AGES = ("firewallrules", "forwardingrules", "dhcpentry", "vmdata", "vmpassword")


def read(bags: dict[str, Any], nics: tuple[Nic, ...] = NICS, **more: Any) -> Legacy:
    return legacy.read(Found(old.written(bags), nics=nics, **more))


def taken(found: Legacy, nics: tuple[Nic, ...] = NICS) -> Taken:
    events = [Event(name, json.dumps(message).encode()) for name, message in found.messages]
    return take(config.EMPTY, events, Facts(nics))


def bags_of(bags: dict[str, Any], nics: tuple[Nic, ...] = NICS) -> config.Config:
    """What becomes of old bags of which everything is understood."""
    found = read(bags, nics)
    done = taken(found, nics)
    assert (found.unread, done.refused, done.unknown) == ((), (), ())
    return done.config


# --- every age


@pytest.mark.parametrize("age", old.ISOLATED_AGES)
def test_an_isolated_router_of_any_age_means_the_same(age: str) -> None:
    now, newest = bags_of(old.isolated(age)), bags_of(old.isolated("4.22"))

    assert [name for name in SAME_FOR_ALL_AGES if _plain(now[name]) != _plain(newest[name])] == []
    assert {ip: held.nic for ip, held in now["ips"].addresses.items()} == {
        old.FORWARDS: old.PUBLIC,
        old.STATIC: old.PUBLIC,
        old.FAR_STATIC: old.PUBLIC2,
    }
    assert now["cmdline"].type == "router"
    assert not now["cmdline"].redundant
    assert now["forwardingrules"].static == {old.STATIC: old.DB, old.FAR_STATIC: old.APP}


def _plain(bag: Any) -> str:
    """In no order, and without what only newer servers say and what means the same unsaid."""
    text = json.dumps(msgspec.to_builtins(bag), sort_keys=True)
    return text.replace('"dest_cidr_list": [], ', "").replace('"dest_cidr_list": null, ', "")


@pytest.mark.parametrize("age", old.VPC_AGES)
def test_a_vpc_router_of_any_age_means_the_same(age: str) -> None:
    now, newest = bags_of(old.vpc(age), VPC_NICS), bags_of(old.vpc("4.22"), VPC_NICS)

    assert now["networkacl"].acls == newest["networkacl"].acls
    assert now["networkacl"].acls[old.VPC_PRIVATE].private_gateway  # whatever the addresses say of it
    assert now["staticroutes"].routes == {"192.168.61.0/24": "172.16.61.1"}
    assert [(nic, tier.network, tier.dns, tier.domain) for nic, tier in now["guestnetwork"].tiers.items()] == [
        (f"02:00:61:0{number}:00:01", f"10.61.{number}.0/24", ("192.0.2.53",), "vpc.example") for number in (1, 2)
    ]
    assert {ip: (held.nic, held.gateway, held.source_nat) for ip, held in now["ips"].addresses.items()} == {
        "203.0.113.61": (old.VPC_PUBLIC, "203.0.113.1", True),
        "172.16.61.10": (old.VPC_PRIVATE, "172.16.61.1", False),
    }
    assert now["networkacl"].always_accept is (age != "cosmic")


def test_the_first_rule_that_allows_stands_before_the_one_that_denies_in_every_age() -> None:
    for age in old.VPC_AGES:
        acl = bags_of(old.vpc(age), VPC_NICS)["networkacl"].acls["02:00:61:01:00:01"]
        assert [rule.allowed for rule in acl.ingress] == [True, False], age


# --- peculiarities, each of them repaired and said


def test_what_was_given_up_is_named_and_left_out() -> None:
    found = read(old.isolated("4.22"))

    assert "ips: given up earlier, and kept as `add` false: 203.0.113.29: left out" in found.repaired
    assert "vmdata: of VMs that are gone: 10.31.5.99: left out" in found.repaired


def test_an_acl_of_a_tier_that_is_gone_is_not_inherited() -> None:
    found = read(old.vpc("4.22"), VPC_NICS)

    assert "networkacl: eth5: an ACL of what was there before (02:00:61:09:00:01): left out" in found.repaired
    bags = old.vpc("4.22")
    bags["networkacl"]["eth4"]["mac_address"] = "02:00:61:07:00:01"
    assert "02:00:61:07:00:01" not in taken(read(bags, VPC_NICS), VPC_NICS).config["networkacl"].acls


def test_a_ghost_tier_a_ghost_tunnel_and_a_removed_user_do_not_come_back() -> None:
    bags = old.vpc("4.22")
    bags["guestnetwork"]["eth5"] = [old.tier(3, "eth5", "4.22") | {"add": False}]
    bags["site2sitevpn"] = {"198.51.100.9": {"create": False, "peer_gateway_ip": "198.51.100.9"}}
    bags["vpnuserlist"] = {
        "ann": {"user": "ann", "password": "sesame-1", "add": True},
        "bob": {"user": "bob", "password": "sesame-2", "add": False},
        "vpn_type": "l2tp",
    }
    now = bags_of(bags, VPC_NICS)

    assert len(now["guestnetwork"].tiers) == 2
    assert now["site2sitevpn"].tunnels == {}
    assert now["vpnuserlist"].passwords == {"ann": "sesame-1"}


def test_words_for_truth_and_text_for_numbers_are_understood() -> None:
    bags = old.isolated("4.22")
    bags["ips"]["eth2"][1] |= {"add": "true", "source_nat": "True", "mtu": "1400", "gateway": "None"}
    bags["ips"]["eth2"][2] |= {"add": "False"}
    rule = bags["firewallrules"]["1"]
    rule |= {"id": "1", "src_port_range": ["5100", "5108"], "revoked": "false", "source_cidr_list": None}
    now = bags_of(bags)

    held = now["ips"].addresses[old.FORWARDS]
    assert (held.mtu, held.source_nat, held.gateway) == (1400, True, "")
    assert old.STATIC not in now["ips"].addresses
    assert now["firewallrules"].rules[1].src_port_range == (5100, 5108)


def test_an_address_that_stands_there_twice_is_where_its_mac_is() -> None:
    bags = old.isolated("4.22")
    bags["ips"]["eth4"] = [old.address(old.STATIC, "eth4", "4.22", vif_mac_address="06:00:00:00:00:99")]
    found = read(bags)

    assert f"ips: {old.STATIC} stands there twice: the nic with {old.PUBLIC} has it" in found.repaired
    assert taken(found).config["ips"].addresses[old.STATIC].nic == old.PUBLIC


def test_eth_none_is_found_by_its_mac_or_named() -> None:
    bags = old.isolated("4.22")
    there = old.address("203.0.113.40", "eth2", "4.22", vif_mac_address=old.PUBLIC, nic_dev_id=None)
    bags["ips"]["ethNone"] = [there, {"public_ip": "203.0.113.41", "netmask": "255.255.255.0", "add": True}]
    found = read(bags)

    assert taken(found).config["ips"].addresses["203.0.113.40"].nic == old.PUBLIC
    assert [line for line in found.unread if "203.0.113.41" in line]


def test_aliases_get_numbers_that_no_server_gives() -> None:
    bags = old.isolated("4.22")
    bags["cmdline"]["config"] = {key: v for key, v in old.LINE.items() if not key.startswith("eth2")} | {
        "type": "dhcpsrvr"
    }
    bags["ips"] = {"eth0": [{"public_ip": "10.2.0.4", "netmask": "255.255.255.0", "add": True, "nw_type": "guest"}]}
    aliases = taken(read(bags)).config["ipaliases"].aliases

    assert [(name, alias.address) for name, alias in aliases.items()] == [("-1", "10.2.0.4")]


def test_of_two_addresses_of_one_nic_the_one_that_is_in_a_network_here_is_served() -> None:
    bags = old.isolated("4.22")
    bags["dhcpentry"] |= dict([old.vm("web1", "02:1a:33:00:01:01", "10.99.0.10", "10.99.0.1", "4.22")])

    hosts = bags_of(bags)["dhcpentry"].hosts
    assert hosts["02:1a:33:00:01:01"].address == old.WEB


def test_only_passwords_that_wait_are_kept() -> None:
    none = read(old.isolated("4.6.1"))
    assert "vmpassword: 2 left out: nobody can tell which of them VMs have fetched" in none.repaired

    some = read(old.isolated("4.6.1"), passwords=[f"{old.WEB}={WAITING}"])
    assert taken(some).config["vmpassword"].passwords[old.WEB].password == WAITING
    assert old.APP not in taken(some).config["vmpassword"].passwords
    assert not [line for line in (*some.repaired, *some.unread) if WAITING in line]  # no secret is said


def test_default_deny_that_was_never_enforced_is_said() -> None:
    assert [
        line for line in read(old.isolated("4.6.1")).repaired if line.startswith("firewallrules: the network denies")
    ]
    assert not [line for line in read(old.isolated("4.22")).repaired if line.startswith("firewallrules:")]


def test_a_rule_that_cannot_be_is_refused_alone_and_its_neighbours_are_taken() -> None:
    bags = old.isolated("4.22")
    bags["firewallrules"]["7"] = bags["firewallrules"]["1"] | {"id": 7, "src_port_range": [70000, 70001]}
    done = taken(read(bags))

    assert [line for line in done.refused if "70000" in line]
    assert sorted(done.config["firewallrules"].rules) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b'{"eth2": [{"public_ip": "203', b"[]", b"\xff\xfe{}", b"null"])
def test_a_half_written_bag_is_named_never_taken_for_an_empty_one(damage: bytes) -> None:
    files = old.written(old.isolated("4.22")) | {"ips": damage}
    found = legacy.read(Found(files, nics=NICS))

    assert [line for line in found.unread if line.startswith("ips: ips.json")]
    assert "firewallrules.json" in [name for name, _ in found.messages]


def test_a_lost_boot_line_is_taken_from_its_own_file() -> None:
    files = old.written(old.isolated("4.22")) | {"cmdline": b"{"}
    text = " ".join(f"{key}={value}" for key, value in old.LINE.items())
    found = legacy.read(Found(files, text, nics=NICS))

    assert found.unread == ()
    assert taken(found).config["cmdline"].type == "router"
    assert legacy.read(Found(files, nics=NICS)).unread


@pytest.mark.parametrize("name", legacy.BAGS)
@pytest.mark.parametrize("entry", [None, 7, "text", [], [None], {}, {"x": None}, [[]], [{"add": 1}], {"rules": [1]}])
def test_nothing_that_a_bag_holds_is_too_odd_to_be_read(name: str, entry: Any) -> None:
    found = read(old.isolated("4.22") | {name: {"eth2": entry, "config": entry, "vms": entry, "interfaces": entry}})

    taken(found)  # refused or taken, never a traceback


# --- what the old agent leaves behind


def test_their_tables_rules_and_routes_are_known_and_ours_are_not_theirs() -> None:
    tables = [("ip", "filter"), ("inet", "holdfast"), ("ip", "nat"), ("ip6", "ip6_acl"), ("ip", "mine")]
    listing = {"nftables": [{"metainfo": {}}, *({"table": {"family": f, "name": n}} for f, n in tables)]}
    assert foreign.tables(listing) == [("ip", "filter"), ("ip", "nat"), ("ip6", "ip6_acl")]

    rules = [
        {"priority": 0, "src": "all", "table": "255"},
        {"priority": 1000, "src": "all", "fwmark": "0x67", "fwmask": "0xfff", "table": "103"},
        {"priority": 32764, "src": "all", "fwmark": "0x67", "table": "103"},
        {"priority": 32765, "src": "203.0.113.0", "srclen": 24, "table": "102"},
        {"priority": 32766, "src": "all", "table": "254"},
    ]
    assert [rule["priority"] for rule in foreign.rules(rules)] == [32764, 32765]
    assert foreign.marks(rules) == {103: "eth3"}
    assert foreign.marks([{"priority": 32764, "src": "all", "fwmark": "0x3", "table": "3"}]) == {3: "eth3"}

    routes = [
        {"type": "1", "dst": "default", "gateway": "203.0.113.1", "dev": "eth2", "protocol": "77", "table": "102"},
        {"type": "1", "dst": "default", "gateway": "203.0.113.1", "dev": "eth2", "protocol": "3", "table": "102"},
        {"type": "9", "dst": "10.1.1.0/24", "protocol": "3", "table": "102"},
        {"type": "1", "dst": "203.0.113.0/24", "dev": "eth2", "protocol": "2"},
    ]
    assert foreign.routes(routes) == [
        ("default", "table", "102", "proto", "3"),
        ("throw", "10.1.1.0/24", "table", "102", "proto", "3"),
    ]


def test_old_marks_mean_what_they_meant_unless_they_are_ours_too() -> None:
    text = foreign.replacement([("ip", "nat")], {103: "eth3", 104: "eth4", 105: "eth5"}, {"eth3": 0x1A3, "eth4": 105})

    assert text.startswith("delete table ip nat\n")
    assert "ct mark & 0x00000fff == 0x00000067 ct mark set ct mark & 0xfffff000 | 0x000001a3 accept" in text
    assert "ct mark & 0x00000fff == 0x00000068 ct mark set ct mark & 0xfffff000 | 0x00000069 accept" in text
    assert "== 0x00000069 ct mark set" not in text


def test_their_chains_that_drop_are_opened_first_and_no_others() -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    ours = {"family": "inet", "table": "holdfast", "name": "forward", "policy": "drop"}
    plain = {"family": "ip", "table": "filter", "name": "ACL_INBOUND_eth3"}
    listing = {"nftables": [{"chain": one} for one in (chain, ours, plain, {**chain, "policy": "accept"})]}

    assert foreign.opening(listing, [("ip", "filter")]) == "chain ip filter FORWARD { policy accept; }\n"


def test_what_calls_the_old_agent_is_told_from_what_speaks_of_it() -> None:
    assert foreign.calls_old_agent("*/3 * * * * root /usr/bin/python /root/monitorServices.py\n")
    assert foreign.calls_old_agent('SUBSYSTEM=="net", RUN+="/opt/cloud/bin/cloud-nic.sh $env{ACTION} %k"')
    assert not foreign.calls_old_agent("# once /opt/cloud/bin/x was here\n0 4 * * * root /usr/sbin/logrotate\n")
    assert foreign.without_old_agent("0 4 * * * a\n* * * * * /opt/cloud/bin/b\n") == "0 4 * * * a\n"
    assert foreign.without_names("255\tlocal\n2 Table_eth2\n103\tTable_eth3\n7 mine\n") == "255\tlocal\n7 mine\n"


# --- adoption on disk


class Place:
    """A router's root with old bags, whose machine is in memory; nothing of the old agent runs there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, bags: dict[str, Any]) -> None:
        self.root = root
        self.session = Session(root)
        self.machine = FakeMachine(NICS, runs_services=False)
        self.machine.root = root  # type: ignore[attr-defined]  # what the real one has as well
        marks = self.session.machine.marks
        self.session.machine = self.machine  # type: ignore[assignment]  # a machine in memory
        self.machine.marks = marks
        self.clearing = _Nothing()
        monkeypatch.setattr("holdfast.adopt._clearing", lambda _session: self.clearing)
        self.own = root / "etc/cloudstack"
        self.own.mkdir(parents=True)
        for name, text in old.written(bags).items():
            (self.own / f"{name}.json").write_bytes(text)

    def adopt(self, **how: Any) -> Adoption:
        return adopt.adopt(self.session, **how)


class _Nothing:
    up = False
    held: bool | None = None
    """Whether the old election was ended, and ours held back with it."""

    def prepare(self) -> None:
        pass

    def serves(self, _outer: Any) -> bool:
        return self.up

    def end_election(self, *, hold: bool) -> None:
        self.held = hold

    def found(self, _ways: Any) -> list[Any]:
        return []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch, old.isolated("4.22"))


def listed(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_dry_run_says_what_would_be_and_touches_nothing(place: Place) -> None:
    before = listed(place.own)
    done = place.adopt(dry=True)

    assert (done.code, listed(place.own), place.machine.applied) == (0, before, [])
    text = "\n".join(adopt.lines(done, dry=True))
    assert "read: firewallrules: 6" in text
    assert "would change: + address eth2 203.0.113.22/24" in text
    assert "repaired: ips: given up earlier" in text


def test_adopted_bags_are_ours_and_the_old_ones_are_kept_for_root_alone(place: Place) -> None:
    before = listed(place.own)
    done = place.adopt()

    assert done.code == 0, adopt.lines(done)
    kept = place.own / adopt.KEPT
    assert listed(kept) == before
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
    assert kept.stat().st_mode & 0o777 == 0o700
    assert all(path.is_symlink() for path in place.own.glob("*.json"))
    assert list(place.own.glob("*.before-*")) == []
    now, number = agent.current(Store(place.own))
    assert (number, len(now["firewallrules"].rules)) == (1, 6)


def test_an_adopted_router_is_not_adopted_again(place: Place) -> None:
    place.adopt()
    with pytest.raises(Rejected, match="a configuration of its own already, generation 1"):
        place.adopt()


def test_a_router_that_has_only_its_boot_line_can_still_be_adopted(place: Place) -> None:
    line = {"type": "cmdline", "cmd_line": old.LINE}
    event = Event("cmd_line.json", json.dumps(line).encode())
    place.session.apply([event], "boot")  # the store puts the old bags aside under other names
    assert len(list(place.own.glob("*.json.before-000001"))) == len(old.isolated("4.22"))

    assert place.adopt().code == 0
    assert len(agent.current(Store(place.own))[0]["firewallrules"].rules) == 6


def test_what_cannot_be_read_stops_it_unless_somebody_insists(place: Place) -> None:
    (place.own / "firewallrules.json").write_bytes(b'{"1": {"id"')
    before = listed(place.own)
    with pytest.raises(Rejected, match=r"firewallrules\.json cannot be read"):
        place.adopt()
    assert (listed(place.own), place.machine.applied) == (before, [])

    assert place.adopt(force=True).code == 0
    assert (place.own / adopt.KEPT / "firewallrules.json").read_bytes() == b'{"1": {"id"'


def test_the_one_of_a_pair_that_serves_is_adopted_only_if_somebody_insists(place: Place) -> None:
    of_a_pair(place)
    place.clearing.up = True
    with pytest.raises(Rejected, match="adopt the other one first"):
        place.adopt()
    assert not place.clearing.held
    done = place.adopt(force=True)
    assert done.code == 0
    assert place.clearing.held is False
    assert adopt.HELD not in done.answer.warnings


def test_the_other_one_is_adopted_and_holds_itself_back(place: Place) -> None:
    of_a_pair(place)
    assert (place.adopt(dry=True).reason, place.clearing.held) == ("", None)
    done = place.adopt()
    assert (done.code, place.clearing.held) == (0, True)
    assert f"warning: {adopt.HELD}" in adopt.lines(done)


@pytest.mark.parametrize(("flags", "serves"), [("0x1003\n", True), ("0x1002\n", False), (None, False)])
def test_who_serves_has_an_outer_link_up(tmp_path: Path, flags: str | None, serves: bool) -> None:  # noqa: FBT001 a case
    link = tmp_path / "sys/class/net/eth2"
    link.mkdir(parents=True)
    if flags:
        (link / "flags").write_text(flags)
    clearing = Clearing(tmp_path, tmp_path / "kept", services=False, whole=False)
    assert clearing.serves(["eth2", "eth9"]) is serves


def of_a_pair(place: Place) -> None:
    line = place.own / "cmdline.json"
    line.write_text(line.read_text().replace('"redundant_router": "false"', '"redundant_router": "true"'))


def test_a_place_without_bags_is_told_so(place: Place) -> None:
    for path in place.own.glob("*.json"):
        path.unlink()
    with pytest.raises(Rejected, match="no bags of CloudStack's in /etc/cloudstack"):
        place.adopt()


def test_theirs_stays_where_ours_did_not_come_into_force(place: Place) -> None:
    place.machine.ignores.add(("Elements", "ingress_port"))
    done = place.adopt()

    assert (done.code, done.cleared) == (3, ())
    assert done.faults[0] == "our rules are not in force, so theirs stay"
    assert (place.own / adopt.KEPT / adopt.UNFINISHED).exists()
    place.machine.ignores.clear()
    again = place.adopt()
    assert (again.code, again.read) == (0, ())
    assert not (place.own / adopt.KEPT / adopt.UNFINISHED).exists()


SOAK = os.environ.get("HOLDFAST_SOAK") == "1"
SAMPLED = 40


def test_a_power_cut_at_any_moment_leaves_the_old_router_adoptable_or_the_new_store_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "live").mkdir()
    live = Place(tmp_path / "live", monkeypatch, old.isolated("4.22"))
    files = old.written(old.isolated("4.22"))
    disk = RecordingDisk(live.root)
    live.session.store = Store(live.own, disk)
    assert live.adopt(disk=disk).code == 0
    wanted = agent.current(Store(live.own))[0]
    states = [*dict.fromkeys(state for moment in disk.states for state in moment)]
    whole = 0
    for at, state in enumerate(states if SOAK else [*states[:: len(states) // SAMPLED or 1], states[-1]]):
        top = tmp_path / f"cut{at}"
        state.lay_out(top)
        own = top / "etc/cloudstack"
        now, number = agent.current(Store(own))
        if number:
            whole += 1
            assert now == wanted
        else:
            session = Session(top)
            session.machine = live.machine  # type: ignore[assignment]
            seen = adopt.found(session)
            assert dict(seen.files) == files, disk.log
    assert 0 < whole < len(states)
