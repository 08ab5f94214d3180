"""The hypervisor's boot line: from one flat line to a message, and to what is stored of it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.boot.line import command, parse
from holdfast.config import EMPTY, Config, decode, merge
from holdfast.router import Facts
from holdfast.shared import BootLine

PLAIN = "template=domP name=r-31-VM type=router eth0ip=10.31.0.1 eth0mask=255.255.255.0"


def stored(line: str) -> BootLine:
    config: Config = merge(EMPTY, decode(command(line)), Facts()).config
    bag: BootLine = config["cmdline"]
    return bag


def test_values_keep_their_equals_signs() -> None:
    assert parse("a=b authorized_key=c3NoLXJzYSA= userdata=H4sI==") == {
        "a": "b", "authorized_key": "c3NoLXJzYSA=", "userdata": "H4sI==",
    }  # fmt: skip


def test_of_a_repeated_key_the_first_counts() -> None:
    line = f"{PLAIN} redundant_router=1 redundant_state=BACKUP redundant_router=1 redundant_state=PRIMARY"

    assert stored(line).other["redundant_state"] == "BACKUP"


def test_blanks_at_both_ends_and_twice_mean_nothing() -> None:
    assert parse(f"  {PLAIN.replace(' ', '  ')} \n") == parse(PLAIN)


def test_a_word_without_a_value_is_its_own() -> None:
    assert parse("quiet name=r-1-VM empty=") == {"quiet": "quiet", "name": "r-1-VM", "empty": ""}


@pytest.mark.parametrize("separator", [" ", "%"])
def test_kvms_older_form(separator: str) -> None:
    text = f"pubkey:ssh-rsa AAAA= admin@example\n\ncmdline:{separator}{PLAIN.replace(' ', separator)}\n"

    assert parse(text) == parse(PLAIN)


@pytest.mark.parametrize("word", ["null", "None"])
def test_a_java_null_is_nothing(word: str) -> None:
    line = f"{PLAIN} publicMtu={word} privateMtu={word} domain={word} dns1={word} dns2=192.0.2.54 gateway={word}"
    bag = stored(f"{line} eth7ip={word} eth7mask={word}")

    assert (bag.public_mtu, bag.private_mtu, bag.domain, bag.gateway) == (0, 0, "", "")
    assert bag.dns == ("192.0.2.54",)
    assert [nic.number for nic in bag.nics] == [0]


def test_secrets_are_kept_apart_from_what_is_shown() -> None:
    bag = stored(f"{PLAIN} vmpassword=Zk4n0tShown router_password=7 colour=blue logrotatefrequency=*:00:00")

    assert bag.secrets == {"vmpassword": "Zk4n0tShown", "router_password": "7"}
    assert bag.other == {"template": "domP", "colour": "blue", "logrotatefrequency": "*:00:00"}


def test_foreign_digits_are_no_nic_number() -> None:
    assert [nic.number for nic in stored(f"{PLAIN} eth\u00b2ip=10.0.0.1 eth\u00b2mask=255.0.0.0").nics] == [0]


def test_macs_belong_to_nics_by_position() -> None:
    line = f"{PLAIN} eth1ip=169.254.31.2 eth1mask=255.255.0.0 nic_macs=02:00:1F:00:00:01|0e:00:a9:1f:00:02"

    assert [nic.mac for nic in stored(line).nics] == ["02:00:1f:00:00:01", "0e:00:a9:1f:00:02"]


@given(st.text(max_size=200))
def test_any_text_at_all_becomes_a_message(text: str) -> None:
    message = msgspec.json.decode(command(text))

    assert message == {"type": "cmdline", "cmd_line": parse(text)}
