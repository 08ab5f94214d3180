"""Passwords on two routers: what a guest has acknowledged at one is not given by the other, and no more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import pair_files, receipts
from holdfast.acknowledgements import merged
from holdfast.ears import acknowledged
from holdfast.features.vm_password import VmPassword, merge
from holdfast.router import Facts, Router
from holdfast.shared import BootLine, Password, Passwords

VM = "10.1.1.7"
SECRET = BootLine(redundant=True, pair=7, vpccidr="10.1.0.0/16", secrets={"router_password": "21654098723165409872"})
KNOWN_TO_TENANTS = BootLine(redundant=True, pair=7, guest_gateway="10.1.1.1")
HEARD = ("10.1.1.2", "02:00:48:01:00:1f")


class One:
    """A router of a pair, as far as passwords go; the guest service gives by its rule."""

    def __init__(self, boot: BootLine) -> None:
        self.boot = boot
        self.bag, self.here, self.there = Passwords(), dict[str, int](), dict[str, int]()
        self.peer: tuple[str, str] | None = None

    def tell(self, password: str) -> None:
        config: dict[str, Any] = {"cmdline": self.boot}
        facts = Facts(acknowledged=self.here, acknowledged_there=self.there, peer=self.peer)
        self.bag = merge(self.bag, VmPassword(ip_address=VM, password=password), Router(config, facts)).bag

    @property
    def held(self) -> Password:
        return self.bag.passwords.get(VM, Password(serial=0))

    def gives(self) -> str:
        held = self.held
        due = held.serial > self.here.get(VM, 0) and not held.is_over(self.there.get(VM, 0))
        return held.password if due else ""

    def acknowledge(self) -> None:
        if self.gives():
            self.here[VM] = self.held.serial

    def hears(self, other: "One") -> None:
        self.peer = HEARD
        if VM in other.here:
            told = {VM: acknowledged.told(other.here[VM], other.held.known)}
            self.there = merged(self.there, told, {VM: self.held.known})


def meet(one: One, two: One) -> None:
    one.hears(two)
    two.hears(one)


@pytest.fixture(params=[SECRET, KNOWN_TO_TENANTS], ids=["VPC", "isolated"])
def pair(request: pytest.FixtureRequest) -> tuple[One, One]:
    one, two = One(request.param), One(request.param)
    meet(one, two)
    return one, two


def test_one_that_was_off_while_a_password_was_told_gives_none_again(pair: tuple[One, One]) -> None:
    one, two = pair
    one.tell("missed by the other, fetched by nobody")
    for router in pair:
        router.tell("the next")
    assert (one.held.serial, two.held.serial) == (2, 1)

    two.acknowledge()
    meet(one, two)
    assert (one.gives(), two.gives()) == ("", "")

    for router in pair:
        router.tell("the one after that")
    assert (one.gives(), two.gives()) == ("the one after that",) * 2
    one.acknowledge()
    meet(one, two)
    assert (one.gives(), two.gives()) == ("", "")


def test_one_that_is_made_anew_gives_what_it_was_told_before_it_heard_the_other(pair: tuple[One, One]) -> None:
    one, two = pair
    for password in ("a", "b", "c"):
        for router in pair:
            router.tell(password)
        one.acknowledge()
        meet(one, two)

    anew = One(one.boot)
    anew.tell("d")
    meet(one, anew)
    assert anew.gives() == "d"
    anew.acknowledge()
    meet(one, anew)
    anew.tell("e")
    one.tell("e")
    assert (one.gives(), anew.gives()) == ("e", "e")
    anew.acknowledge()
    meet(one, anew)
    assert (one.gives(), anew.gives()) == ("", "")


def test_the_same_password_once_more_is_given_once_more(pair: tuple[One, One]) -> None:
    one, two = pair
    for _ in range(3):
        for router in pair:
            router.tell("the same")
        assert (one.gives(), two.gives()) == ("the same", "the same")
        two.acknowledge()
        meet(one, two)
        assert (one.gives(), two.gives()) == ("", "")


def test_an_acknowledgement_that_comes_late_holds_nothing_newer_back(pair: tuple[One, One]) -> None:
    one, two = pair
    one.tell("missed")
    for router in pair:
        router.tell("the next")
    one.acknowledge()  # the other has not heard of it when the next one is told
    for router in pair:
        router.tell("the one after that")
    meet(one, two)
    assert (one.gives(), two.gives()) == ("the one after that",) * 2


def test_one_that_missed_a_newer_password_does_not_give_the_older_one_again(pair: tuple[One, One]) -> None:
    one, two = pair
    for password in ("first missed by the other", "second missed by the other"):
        two.tell(password)
    for router in pair:
        router.tell("known to both")
    one.acknowledge()
    meet(one, two)
    one.tell("missed")
    assert one.gives() == "missed"
    one.acknowledge()
    meet(one, two)
    assert two.gives() == ""

    for router in pair:
        router.tell("the next")
    meet(one, two)
    assert (one.gives(), two.gives()) == ("the next", "the next")
    one.acknowledge()
    meet(one, two)
    assert two.gives() == ""


def test_a_router_alone_has_no_tags() -> None:
    alone = One(BootLine())
    alone.tell("a")
    assert alone.held == Password(serial=1, password="a")  # noqa: S106 a made-up one


def test_a_secret_that_is_empty_is_none() -> None:
    assert SECRET.pair_is_secret
    assert not BootLine(redundant=True, secrets={"router_password": ""}).pair_is_secret
    assert not KNOWN_TO_TENANTS.pair_is_secret


def test_a_tag_tells_little_where_tenants_can_make_it() -> None:
    words = [f"word{n}" for n in range(3000)]
    key = KNOWN_TO_TENANTS.pair_key
    small, large = ({receipts.tag(key, VM, word, 0, secret=secret) for word in words} for secret in (False, True))

    assert max(small) < 256 < len(large)
    assert min(small | large) > 0


EVENTS = st.lists(st.sampled_from(["told", "first alone", "second alone", "first", "second"]), max_size=30)


@given(EVENTS)
def test_whatever_happens_none_is_given_twice_and_none_held_back(events: Sequence[str]) -> None:
    one, two = One(SECRET), One(SECRET)
    meet(one, two)
    taken = set[str]()
    newest = {one: "", two: ""}
    for number, event in enumerate(events):
        password = f"password {number}"
        for router, name in ((one, "first"), (two, "second")):
            if event in ("told", f"{name} alone"):
                router.tell(password)
                newest[router] = password
            elif event == name:
                taken |= {router.gives()}
                router.acknowledge()
        meet(one, two)

        for router in (one, two):
            assert router.gives() not in taken - {""}
        if newest[one] == newest[two] and newest[one] not in taken:
            assert one.gives() == two.gives() == newest[one]


def test_a_file_of_the_other_routers_passwords(tmp_path: Path) -> None:
    pair_files.remember_there(tmp_path, {VM: receipts.taken(5, 77)})

    assert pair_files.acknowledged_there(tmp_path) == {VM: 5 * 65536 + 77}
    assert (tmp_path / pair_files.THERE).stat().st_mode & 0o777 == 0o600
    (tmp_path / pair_files.THERE).write_text('{"10.1.0.1": "x"}')
    assert pair_files.acknowledged_there(tmp_path) == {}
