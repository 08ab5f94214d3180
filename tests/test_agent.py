"""One run: what it answers, what it rolls back, what it leaves alone.  The store is real, the machine is in memory."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_machine import BOOT_LINE, NICS, PUBLIC_2, FakeMachine
from holdfast import agent
from holdfast.agent import Answer
from holdfast.desired import desired
from holdfast.errors import Failed
from holdfast.generation import Damaged
from holdfast.intake import Event
from holdfast.state import Key
from holdfast.store import Store

PUBLIC_ADDRESS = ("Elements", "public_address")
INGRESS = ("Elements", "ingress_port")
DHCPHOSTS = ("File", "/etc/dhcphosts.txt")
DNSMASQ = ("Unit", "dnsmasq.service")
NEW_ADDRESS = ("Address", "eth2", "198.51.100.21/24")


class Bench:
    """A router that has its boot line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine = FakeMachine(NICS)
        self.store = Store(root / "etc/cloudstack")
        assert self.events(BOOT_LINE).code == 0

    def send(self, *messages: dict[str, Any], **how: bool) -> Answer:
        return self.events(*(Event("m.json", msgspec.json.encode(message)) for message in messages), **how)

    def events(self, *events: Event, **how: bool) -> Answer:
        return agent.handle(events, self.store, self.machine, cause="test", **how)

    def entries(self, key: Key) -> set[str]:
        return set(self.machine.held[key].entries)  # type: ignore[attr-defined]  # the keys here are of sets

    def number(self) -> int:
        return agent.current(self.store)[1]

    def take_back(self, answer: Answer) -> Answer:
        return agent.take_back(answer, self.store, self.machine, cause="taken back")

    def in_order(self) -> bool:
        """Whether the machine is what its bags mean."""
        return not agent.outlook([], self.store, self.machine).changes


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def address(last: int = 21, /, **fields: object) -> dict[str, Any]:
    unit = {
        "public_ip": f"198.51.100.{last}", "source_nat": False, "add": True, "gateway": "198.51.100.1",
        "netmask": "255.255.255.0", "vif_mac_address": "1e:00:c6:33:64:14", "nic_dev_id": 2, "nw_type": "Public",
    }  # fmt: skip
    return {"type": "ips", "ip_address": [{**unit, **fields}]}


def far(last: int, mac: str = PUBLIC_2.mac) -> dict[str, Any]:
    """An address on a nic that is not there."""
    here = address(last, gateway="203.0.113.129", netmask="255.255.255.128", vif_mac_address=mac, nic_dev_id=3)
    here["ip_address"][0]["public_ip"] = f"203.0.113.{last}"
    return here


def rule(number: int, port: int, *, revoked: bool = False) -> dict[str, Any]:
    return {
        "id": number, "src_ip": "198.51.100.20", "protocol": "tcp", "src_port_range": [port, port],
        "revoked": revoked, "source_cidr_list": [], "traffic_type": "Ingress",
    }  # fmt: skip


def rules(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "firewallrules", "rules": list(items)}


def static_nat(last: int, vm: str) -> dict[str, Any]:
    item = {"revoke": False, "source_ip_address": f"198.51.100.{last}", "source_port_range": "0:0"}
    return {"type": "staticnatrules", "rules": [{**item, "destination_ip_address": vm}]}


def vm(last: int, name: str = "") -> dict[str, Any]:
    nic = {
        "host_name": name or f"vm{last}",
        "mac_address": f"02:00:1f:00:01:{last:02x}",
        "ipv4_address": f"10.31.0.{last}",
    }
    return {"type": "dhcpentry", "default_entry": True, **nic}


def opening(port: int) -> str:
    return f"198.51.100.20 . tcp . 0.0.0.0/0 . {port}"


def test_0_everything_was_taken_and_is_seen_on_the_machine(bench: Bench) -> None:
    answer = bench.send(address())

    assert (answer.code, answer.parent, answer.generation) == (0, 1, 2)
    assert NEW_ADDRESS in bench.machine.held
    assert [text for text in answer.changes if "198.51.100.21" in text and "[ips/198.51.100.21]" in text]


def test_2_nothing_was_taken_and_nothing_was_stored(bench: Bench) -> None:
    held = dict(bench.machine.held)

    answer = bench.send(rules(rule(1, 70000)))

    assert (answer.code, answer.generation, bench.number()) == (2, 1, 1)
    assert bench.machine.held == held


@pytest.mark.parametrize("where", ["fails", "refuses"])
def test_3_the_machine_would_not_take_it(bench: Bench, where: str) -> None:
    held = dict(bench.machine.held)
    getattr(bench.machine, where)[NEW_ADDRESS] = "no room"

    answer = bench.send(address())

    assert (answer.code, answer.generation, bench.number()) == (3, 1, 1)
    assert "no room" in answer.reason
    assert "[ips/198.51.100.21]" in answer.reason
    assert bench.machine.held == held
    assert bench.store.history()[0].number == 1


def test_3_a_change_that_was_taken_and_did_not_stick(bench: Bench) -> None:
    bench.machine.ignores.add(NEW_ADDRESS)

    answer = bench.send(address())

    assert answer.code == 3
    assert "did not stick" in answer.reason
    assert bench.entries(PUBLIC_ADDRESS) == {"198.51.100.20"}


def test_3_one_transaction_takes_all_of_the_firewall_or_nothing(bench: Bench) -> None:
    bench.machine.fails[INGRESS] = "nft: too many"

    answer = bench.send(rules(rule(1, 22)), address())

    assert answer.code == 3
    assert bench.entries(PUBLIC_ADDRESS) == {"198.51.100.20"}
    assert NEW_ADDRESS not in bench.machine.held


def test_2_what_its_own_program_calls_wrong_touches_nothing(bench: Bench) -> None:
    bench.machine.wrong = {"wrong-name"}
    before, number = dict(bench.machine.held), bench.number()
    bench.machine.applied.clear()

    for _ in range(2):
        answer = bench.send(vm(11, name="wrong-name"))
        assert (answer.code, answer.generation) == (2, number)
        assert all("line 1: wrong  [dhcpentry" in text for text in answer.fresh)
        assert answer.fresh
    assert (bench.machine.held, bench.machine.applied, bench.number()) == (before, [], number)

    assert bench.send(rules(rule(1, 22))).code == 0
    assert bench.send(vm(11)).code == 0


def test_5_what_is_wrong_in_itself_does_not_block_what_comes_with_it(bench: Bench) -> None:
    bench.machine.wrong = {"wrong-name"}

    answer = bench.send(rules(rule(1, 22)), vm(11, name="wrong-name"))

    assert answer.code == 5
    assert any("line 1: wrong  [dhcpentry" in text for text in answer.fresh)
    assert "198.51.100.20 . tcp . 0.0.0.0/0 . 22" in bench.entries(INGRESS)
    assert agent.current(bench.store)[0]["dhcpentry"].hosts == {}


def test_0_a_start_is_not_stopped_by_what_is_wrong_in_itself(bench: Bench) -> None:
    bench.machine.wrong = {"wrong-name"}

    answer = bench.send(vm(11, name="wrong-name"), starting=True)

    assert answer.code == 0
    assert any("line 1: wrong  [dhcpentry" in text for text in answer.refused)


def test_4_the_way_back_failed_too(bench: Bench) -> None:
    bench.machine.fails[("Unit", "dnsmasq.service")] = "exited"
    bench.machine.ignores.add(DHCPHOSTS)
    original = bench.machine.take

    def take(change: Any) -> None:
        if change.key == ("File", "/etc/hosts"):
            bench.machine.fails[("File", "/etc/hosts")] = "read-only"
        original(change)

    bench.machine.take = take  # type: ignore[method-assign]  # the file can be written once and never again
    answer = bench.send(vm(11))

    assert answer.code == 4
    assert "the way back failed too" in answer.reason
    assert "read-only" in answer.reason
    assert bench.number() == 1


def test_5_a_new_unit_was_refused_and_the_others_were_taken(bench: Bench) -> None:
    answer = bench.send(rules(rule(1, 22), rule(2, 70000)))

    assert answer.code == 5
    assert len(answer.refused) == 1
    assert bench.entries(INGRESS) == {opening(22)}


def test_a_refusal_that_was_answered_before_is_a_warning(bench: Bench) -> None:
    bench.send(rules(rule(1, 22), rule(2, 70000)))

    answer = bench.send(rules(rule(2, 70000), rule(1, 22), rule(3, 80)))

    assert answer.code == 0
    assert len(answer.refused) == 1
    assert bench.entries(INGRESS) == {opening(22), opening(80)}


def test_a_refusal_is_remembered_by_a_new_agent(bench: Bench) -> None:
    bench.send(rules(rule(1, 22), rule(2, 70000)))
    bench.store = Store(bench.root / "etc/cloudstack")

    assert bench.send(rules(rule(1, 22), rule(2, 70000))).code == 0


def test_a_host_name_that_dns_cannot_carry_is_taken_with_a_warning(bench: Bench) -> None:
    answer = bench.send({**vm(11), "host_name": "gr\u00f6\u00dfe"})

    assert answer.code == 0
    assert "gr\u00f6\u00dfe" in str(msgspec.to_builtins(answer))


def test_of_a_good_and_a_bad_message_the_good_one_is_taken(bench: Bench) -> None:
    assert bench.send(vm(11), {"type": "teapot"}).code == 5
    assert bench.send(vm(12), {"type": "teapot"}, starting=True).code == 0


def test_an_older_fault_is_named_and_blocks_nobody(bench: Bench) -> None:
    assert bench.send(vm(11)).code == 0
    bench.machine.held.pop(DHCPHOSTS)
    bench.machine.fails[DHCPHOSTS] = "disk full"

    answer = bench.send(rules(rule(1, 22)))

    assert (answer.code, bench.number()) == (0, 3)
    assert any("dhcphosts" in text and "disk full" in text for text in answer.faults)
    assert bench.entries(INGRESS) == {opening(22)}
    bench.machine.fails.clear()
    assert bench.send().faults == ()
    assert bench.in_order()


def test_rolling_back_does_not_blame_older_faults(bench: Bench) -> None:
    bench.machine.held.pop(("File", "/etc/hostname"))
    bench.machine.fails = {("File", "/etc/hostname"): "disk full", NEW_ADDRESS: "no room"}

    answer = bench.send(address())

    assert answer.code == 3
    assert "disk full" not in answer.reason
    assert any("disk full" in text for text in answer.faults)


def test_a_fault_blocks_only_what_depends_on_it(bench: Bench) -> None:
    bench.machine.plug(*PUBLIC_2)
    bench.machine.fails[("Link", "eth3")] = "carrier trouble"

    answer = bench.send(far(130), rules(rule(1, 22)), booting=True)

    faults = "\n".join(answer.faults)
    assert answer.code == 0
    assert "Link eth3: carrier trouble" in faults
    assert "Address eth3 203.0.113.130/25: waits for Link eth3" in faults
    assert "Route 103 default: waits for Link eth3" in faults
    assert opening(22) in bench.entries(INGRESS)
    assert ("PolicyRule", "1003", "", "2777", "4095", "103") in bench.machine.held


def test_at_boot_nothing_is_rolled_back(bench: Bench) -> None:
    bench.machine.fails[NEW_ADDRESS] = "no room"

    answer = bench.send(address(), booting=True)

    assert (answer.code, bench.number()) == (0, 2)
    assert any("no room" in text for text in answer.faults)


def test_drift_is_repaired_by_the_next_run(bench: Bench) -> None:
    bench.machine.held.pop(("Address", "eth2", "198.51.100.20/24"))
    bench.machine.held.pop(DNSMASQ)

    answer = bench.send()

    assert (answer.code, answer.generation, len(answer.changes)) == (0, 1, 2)
    assert bench.in_order()


def test_a_reboot_restores_everything(bench: Bench) -> None:
    bench.send(address(), rules(rule(1, 22)), vm(11))
    before = dict(bench.machine.held)
    bench.machine.reboot()

    bench.events(booting=True)

    assert bench.machine.held == before


def test_two_claims_on_one_thing_are_refused_when_new(bench: Bench) -> None:
    bench.send(address(21), address(22), static_nat(21, "10.31.0.11"))

    answer = bench.send(static_nat(22, "10.31.0.11"))

    assert (answer.code, answer.reason, bench.number()) == (2, "two claims on one thing", 2)
    assert "198.51.100.21" in answer.refused[0]
    assert "198.51.100.22" in answer.refused[0]
    assert bench.in_order()


def test_of_stored_claims_that_conflict_the_older_wins_and_life_goes_on(bench: Bench) -> None:
    bench.send(static_nat(21, "10.31.0.11"), static_nat(22, "10.31.0.11"))
    assert bench.send(address(21), address(22), booting=True).code == 0

    answer = bench.send(rules(rule(1, 22)))

    assert answer.code == 0
    assert len(answer.conflicts) == 1
    assert bench.entries(("Elements", "static_source")) == {'"eth2" . 10.31.0.11'}


def test_without_a_boot_line_nothing_is_applied_and_that_is_said(tmp_path: Path) -> None:
    machine, store = FakeMachine(NICS), Store(tmp_path)
    message = Event("fw.json", msgspec.json.encode(rules(rule(1, 22))))

    answer = agent.handle([message], store, machine, cause="test")

    assert (answer.code, answer.changes, answer.generation) == (0, (), 1)
    assert answer.pending == ("everything waits for the boot line",)
    assert machine.applied == []


def test_what_waits_for_a_nic_is_named_once(bench: Bench) -> None:
    assert bench.send(far(130)).awaits == (PUBLIC_2.mac,)
    assert bench.send(rules(rule(1, 22))).awaits == ()


def test_a_nic_that_never_came_is_taken_back(bench: Bench) -> None:
    answer = bench.send(far(130))

    back = bench.take_back(answer)

    assert back.code == 3
    assert PUBLIC_2.mac in back.reason
    assert back.pending == ()
    assert bench.in_order()


def test_taking_back_keeps_what_others_have_commanded_since(bench: Bench) -> None:
    answer = bench.send(far(130))
    bench.send(rules(rule(1, 22)))
    bench.send(vm(11))

    back = bench.take_back(answer)

    config, _ = agent.current(bench.store)
    assert back.code == 3
    assert list(config["firewallrules"].rules) == [1]
    assert list(config["dhcpentry"].hosts) == ["02:00:1f:00:01:0b"]
    assert config["ips"].addresses == {}
    assert bench.entries(INGRESS) == {opening(22)}
    assert bench.in_order()


def test_taking_back_twice_brings_nothing_back(bench: Bench) -> None:
    first = bench.send(far(130))
    second = bench.send(far(140, "1e:00:cb:00:71:99"))

    bench.take_back(first)
    bench.take_back(second)

    assert agent.current(bench.store)[0]["ips"].addresses == {}


def test_taking_back_keeps_an_operators_rollback(bench: Bench) -> None:
    bench.send(rules(rule(1, 22)))
    answer = bench.send(far(130))
    agent.restore(1, bench.store, bench.machine, cause="rollback 1")

    bench.take_back(answer)

    assert agent.current(bench.store)[0]["firewallrules"].rules == {}


def test_rollback_takes_an_older_generation_as_a_new_one(bench: Bench) -> None:
    bench.send(rules(rule(1, 22)))
    before = dict(bench.machine.held)
    bench.send(address(), rules(rule(1, 22, revoked=True), rule(2, 80)), vm(11))

    answer = agent.restore(2, bench.store, bench.machine, cause="rollback 2")

    assert (answer.code, answer.generation) == (0, 4)
    assert bench.machine.held == before
    assert bench.in_order()


def test_a_damaged_generation_is_told_and_the_one_before_is_used(bench: Bench) -> None:
    bench.send(rules(rule(1, 22)))
    (bench.root / "etc/cloudstack/generations/000002/ips.json").unlink()

    answer = bench.send()

    assert answer.code == 0
    assert any("000002/ips.json" in text for text in answer.damage)
    assert desired(agent.current(bench.store)[0], bench.machine.facts()).state
    assert bench.entries(INGRESS) == set()


def test_a_store_without_a_whole_generation_is_no_empty_configuration(bench: Bench) -> None:
    held = dict(bench.machine.held)
    (bench.root / "etc/cloudstack/generations/000001/meta.json").unlink()

    with pytest.raises(Damaged):
        bench.send(rules(rule(1, 22)))

    assert bench.machine.held == held


def test_a_full_disk_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    held = dict(bench.machine.held)

    def full(*_: object, **__: object) -> int:
        raise Failed("no space left")

    monkeypatch.setattr(bench.store, "propose", full)
    with pytest.raises(Failed):
        bench.send(rules(rule(1, 22)))

    assert bench.machine.held == held


def test_where_no_services_run_they_are_pending(tmp_path: Path) -> None:
    machine = FakeMachine(NICS, runs_services=False)

    answer = agent.handle([BOOT_LINE], Store(tmp_path), machine, cause="test")

    assert answer.code == 0
    assert "service dnsmasq.service waits for systemd" in answer.pending
    assert DNSMASQ not in machine.held


def test_a_nic_that_leaves_turns_its_objects_pending_and_comes_back_whole(bench: Bench) -> None:
    bench.machine.plug(*PUBLIC_2)
    bench.send(far(130))
    before = dict(bench.machine.held)
    bench.machine.unplug("eth3")

    away = bench.send()
    bench.machine.plug(*PUBLIC_2)
    bench.send()

    assert away.pending == (f"address 203.0.113.130/25 waits for nic {PUBLIC_2.mac}",)
    assert away.faults == ()
    assert bench.machine.held == before


def test_the_plan_says_what_a_run_would_do_and_does_nothing(bench: Bench) -> None:
    held, number = dict(bench.machine.held), bench.number()

    seen = agent.outlook([Event("m", msgspec.json.encode(address()))], bench.store, bench.machine)

    assert {change.key for change in seen.changes} == {NEW_ADDRESS, PUBLIC_ADDRESS, ("Usage",)}
    assert (bench.machine.held, bench.number()) == (held, number)
