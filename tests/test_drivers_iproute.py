"""What ip(8) prints, understood: the samples are what iproute2 6.1 printed on a machine."""

from pathlib import Path

import pytest

from holdfast.announce import frames
from holdfast.drivers.address import Addresses
from holdfast.drivers.link import Links
from holdfast.drivers.policy_rule import PolicyRules, parse_rules
from holdfast.drivers.route import Routes, parse_routes
from holdfast.facts import nics
from holdfast.iproute import IpRoute, Order, blame
from holdfast.router import Nic
from holdfast.run import CommandFailed
from holdfast.state import Address, Change, Handover, Link, PolicyRule, Resource, Route, State

DEVICES = """[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"link_type":"[772]",
"address":"00:00:00:00:00:00","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"254",
"label":"lo","valid_life_time":4294967295,"preferred_life_time":4294967295}]},{},
{"ifindex":9,"link":"p0","ifname":"eth10","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,"operstate":"DOWN",
"address":"0A:94:c6:9a:5d:61","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,"scope":"0"},
{"family":"inet","local":"10.0.0.3","prefixlen":32,"scope":"0","valid_life_time":4294967295},
{"family":"inet","local":"10.0.0.4","prefixlen":24,"scope":"0","dynamic":true,"valid_life_time":3600},
{"family":"inet","local":"169.254.0.9","prefixlen":16,"scope":"253","valid_life_time":4294967295},
{"family":"inet6","local":"fe80::894:c6ff:fe9a:5d61","prefixlen":64,"scope":"253"}]},
{"ifname":"eth2","flags":["BROADCAST","MULTICAST"],"mtu":1500,"address":"0a:94:c6:9a:5d:61","addr_info":[]},
{"ifname":"eth2.10","flags":["UP"],"mtu":1500,"address":"0a:94:c6:9a:5d:62",
"addr_info":[{"family":"inet","local":"10.9.0.1","prefixlen":24,"scope":"0","valid_life_time":4294967295}]}]"""

ROUTES = """[{"type":"9","dst":"10.7.0.0/16","table":"101","flags":[]},
{"dst":"10.51.0.0/16","gateway":"10.0.0.7","dev":"eth0","prefsrc":"10.0.0.1","metric":4,"flags":["onlink","linkdown"],
"metrics":[{"mtu":1300}]},
{"dst":"10.51.0.0/16","gateway":"10.0.0.7","dev":"eth0","flags":["linkdown"]},
{"dst":"10.8.0.5","dev":"eth0","table":"101","scope":"253","flags":[]},
{"dst":"10.50.0.0/16","metric":5,"flags":[],"nexthops":[{"gateway":"10.0.0.7","dev":"eth0","weight":1,"flags":[]}]},
{"type":"6","dst":"10.52.0.0/16","flags":[]},
{"dst":"10.53.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0","flags":["linkdown"]},
{"dst":"default","gateway":"10.0.0.9","dev":"eth0","flags":[]}]"""

RULES = """[{"priority":0,"src":"all","table":"255"},
{"priority":1000,"src":"all","fwmark":"0x101","fwmask":"0xfff","table":"101"},
{"priority":1001,"src":"10.1.1.0","srclen":24,"table":"101"},
{"priority":1002,"src":"10.1.1.5","fwmark":"0x5","table":"300"},
{"priority":1003,"src":"all","iif":"eth0","table":"300"},
{"priority":1004,"not":null,"src":"10.0.0.0","srclen":8,"table":"300"},
{"priority":1006,"src":"all","action":"6"},{"priority":1007,"src":"all","goto":32766},
{"priority":1009,"src":"all","table":"300","suppress_prefixlength":0},
{"priority":2000,"src":"all","table":"254"},{"priority":32766,"src":"all","table":"254"}]"""


class Recorder:
    """Answers like ip(8) and counts how often it is asked."""

    def __init__(self, answer: str = "", complaint: str = "") -> None:
        self.answer = answer
        self.complaint = complaint
        self.asked: list[tuple[tuple[str, ...], str]] = []

    def __call__(self, argv: tuple[str, ...], stdin: str = "") -> str:
        self.asked.append((tuple(argv), stdin))
        if self.complaint:
            raise CommandFailed(self.complaint)
        return self.answer


def state(*resources: Resource) -> State:
    return {one.key: one for one in resources}


def test_links_addresses_and_nics_cost_one_child() -> None:
    recorder = Recorder(DEVICES)
    ip = IpRoute(recorder)

    list(Links(ip).observe(state(Link("eth2"))))
    list(Addresses(ip).observe({}))
    nics(ip)

    assert len(recorder.asked) == 1
    ip.forget()
    nics(ip)
    assert len(recorder.asked) == 2


def test_nics_are_numbered_devices_and_the_lowest_number_stands_first() -> None:
    found = nics(IpRoute(Recorder(DEVICES)))

    assert found == (Nic("0a:94:c6:9a:5d:61", "eth2"), Nic("0a:94:c6:9a:5d:61", "eth10"))


def test_a_link_is_up_by_order_not_by_carrier() -> None:
    wanted = state(Link("eth10"), Link("eth2", up=True, mtu=1400), Link("eth7"))

    seen = list(Links(IpRoute(Recorder(DEVICES))).observe(wanted))

    assert seen == [Link("eth10", up=True, mtu=0), Link("eth2", up=False, mtu=1500)]


def test_only_a_link_that_is_raised_is_given_time_to_carry() -> None:
    waited: list[str] = []
    links = Links(IpRoute(Recorder()), waited.extend)

    links.apply(
        [
            Change(Link("eth1", up=False), Link("eth1")),
            Change(Link("eth2", mtu=1500), Link("eth2", mtu=1400)),
            Change(Link("eth3"), Link("eth3", up=False)),
            Change(None, Link("eth4")),
        ]
    )

    assert waited == ["eth1", "eth4"]


def test_ours_are_global_addresses_of_our_nics() -> None:
    seen = list(Addresses(IpRoute(Recorder(DEVICES))).observe({}))

    assert seen == [Address("eth10", f"10.0.0.{last}") for last in ("1/24", "3/32", "4/24")]


def test_what_another_keeps_is_neither_missed_nor_removed() -> None:
    there, absent = (Address("eth10", f"10.0.0.{last}/32", keeper="keepalived") for last in (3, 99))

    seen = list(Addresses(IpRoute(Recorder(DEVICES))).observe(state(there, absent)))

    assert seen == [there, absent, Address("eth10", "10.0.0.1/24"), Address("eth10", "10.0.0.4/24")]


@pytest.mark.parametrize(
    ("role", "runs", "goes"),
    [
        ("BACKUP", False, True),
        ("FAULT", False, True),
        ("MASTER", False, False),
        ("BACKUP", True, False),
        ("", False, False),
    ],
)
def test_what_a_keeper_has_left_behind_goes(tmp_path: Path, role: str, *, runs: bool, goes: bool) -> None:
    there, absent = (Address("eth10", f"10.0.0.{last}/32", keeper="keepalived") for last in (3, 99))
    wanted = state(there, absent, *([Handover(role)] if role else []))
    recorder = Recorder(DEVICES)
    addresses = Addresses(IpRoute(recorder), tmp_path)
    assert list(addresses.observe(wanted))[:2] == [there, absent], "without systemd nothing is known"
    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)
    if runs:
        (units / "invocation:keepalived.service").symlink_to("7f")

    before, other = list(addresses.observe(wanted))[:2]

    assert other == absent
    assert (before != there) == goes
    if goes:
        assert list(addresses.apply([Change(before, there)])) == []
        assert recorder.asked[-1][1] == "addr del 10.0.0.3/32 dev eth10\n"


def test_a_wanted_address_is_seen_as_wanted_unless_it_would_expire() -> None:
    wanted = state(
        Address("eth10", "10.0.0.1/24", announce=True),
        Address("eth10", "10.0.0.4/24"),
        Address("eth10", "10.0.0.3/32"),
        Address("eth2.10", "10.9.0.1/24"),
    )

    seen = list(Addresses(IpRoute(Recorder(DEVICES))).observe(wanted))

    assert state(*seen) == {key: one for key, one in wanted.items() if "10.0.0.4/24" not in key}


def test_routes_are_parsed_and_odd_ones_equal_nothing_wanted() -> None:
    found = parse_routes(ROUTES, {})

    assert found == [
        Route("10.7.0.0/16", 101, "throw"),
        Route("10.51.0.0/16", gateway="10.0.0.7", device="eth0"),
        Route("10.8.0.5/32", 101, device="eth0"),
        Route("10.52.0.0/16", kind="blackhole"),
        Route("default", gateway="10.0.0.9", device="eth0"),
        Route("10.51.0.0/16", 254, "unicast metric 4 +metrics +onlink", "10.0.0.7", "eth0", "10.0.0.1"),
        Route("10.50.0.0/16", 254, "unicast metric 5 +nexthops"),
        Route("10.53.0.0/16", 254, "unicast +via", "", "eth0"),
    ]


@pytest.mark.parametrize("spelling", ["10.8.0.5", "10.8.0.5/32"])
def test_a_host_route_is_known_by_both_spellings(spelling: str) -> None:
    wanted = Route(spelling, 101, device="eth0")

    assert wanted in parse_routes(ROUTES, state(wanted))


def test_an_odd_route_is_taken_before_the_right_one_is_given() -> None:
    recorder = Recorder()
    odd = Route("10.51.0.0/16", 254, "unicast metric 4", "10.0.0.7", "eth0", "10.0.0.1")
    behind = Route("default", gateway="10.51.0.1", device="eth0")
    right = Route("10.51.0.0/16", device="eth0")

    assert list(Routes(IpRoute(recorder)).apply([Change(None, behind), Change(odd, right)])) == []

    assert recorder.asked[0][1].splitlines() == [
        "route del unicast 10.51.0.0/16 table 254 proto 77 metric 4",
        "route replace unicast 10.51.0.0/16 dev eth0 table 254 proto 77",
        "route replace unicast default via 10.51.0.1 dev eth0 table 254 proto 77",
    ]


def test_rules_of_our_range_are_parsed_and_foreign_selectors_show() -> None:
    assert list(parse_rules(RULES, {})) == [
        PolicyRule(1000, 101, mark=0x101, mask=0xFFF),
        PolicyRule(1001, 101, "10.1.1.0/24"),
        PolicyRule(1002, 300, "10.1.1.5/32", 5, 0xFFFFFFFF),
        PolicyRule(1003, 300, " iif eth0"),
        PolicyRule(1004, 300, "10.0.0.0/8 not"),
        PolicyRule(1006, 0, " action 6"),
        PolicyRule(1007, 0, " goto 32766"),
        PolicyRule(1009, 300, " suppress_prefixlength 0"),
    ]


@pytest.mark.parametrize("source", ["10.1.1.5", "10.1.1.5/32"])
@pytest.mark.parametrize("mask", [0, 0xFFFFFFFF])
def test_a_rule_is_known_by_each_of_its_spellings(source: str, mask: int) -> None:
    wanted = PolicyRule(1002, 300, source, 5, mask)

    assert wanted in list(parse_rules(RULES, state(wanted)))


def test_a_priority_that_is_not_ours_is_refused_before_anything_happens() -> None:
    failures = list(PolicyRules(IpRoute(Recorder())).check([Change(None, PolicyRule(2000, 101))]))

    assert [failure.reason for failure in failures] == ["priority is not within 1000-1999"]


def test_blame_is_read_from_a_forced_batch() -> None:
    said = (
        "ip -force -batch -: Error: Nexthop has invalid gateway.; Command failed -:1; "
        'Cannot find device "x"; Command failed -:3'
    )

    assert blame(said) == {1: "Error: Nexthop has invalid gateway.", 3: 'Cannot find device "x"'}


@pytest.mark.parametrize(
    "said",
    [
        "ip -force -batch -: no answer within 60 s",
        'ip -force -batch -: Cannot find device "x"; Command failed -:3; Error: any valid prefix is expected',
    ],
)
def test_a_batch_that_did_not_end_blames_nobody(said: str) -> None:
    assert blame(said) is None


def test_when_a_batch_breaks_off_each_order_is_tried_alone() -> None:
    recorder = Recorder(complaint="ip: no answer within 60 s")
    orders = [Order(("A",), ("route", "a")), Order(("B",), ("route", "b"), ("no answer",))]

    failures = IpRoute(recorder).change(orders)

    assert [failure.key for failure in failures] == [("A",)]
    assert [argv for argv, _ in recorder.asked[1:]] == [("ip", "route", "a"), ("ip", "route", "b")]


@pytest.mark.parametrize("word", ["a b", "a\nlink del eth0", "'x", "-x", "#", "a\\", ""])
def test_no_word_can_add_an_order_or_an_option(word: str) -> None:
    recorder = Recorder()

    failures = IpRoute(recorder).change([Order(("A",), ("link", word))])

    assert [failure.key for failure in failures] == [("A",)]
    assert recorder.asked == []


def test_an_announcement_is_a_request_and_a_reply_to_everybody() -> None:
    request, reply = frames(bytes.fromhex("020000000001"), "203.0.113.7")

    assert request.hex() == ("ffffffffffff02000000000108060001080006040001020000000001cb007107000000000000cb007107")
    assert reply.hex() == ("ffffffffffff02000000000108060001080006040002020000000001cb007107020000000001cb007107")
