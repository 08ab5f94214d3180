"""The hypervisor's boot line: from one flat line to a message, and to what is stored of it."""

from base64 import b64encode
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.boot.line import command, is_boot_line, parse
from holdfast.config import EMPTY, Config, decode, dump, load, merge
from holdfast.login import hashed
from holdfast.router import Facts
from holdfast.shared import BootLine
from holdfast.ssh_key import authorized

EXAMPLES = Path(__file__).parents[1].parent / "shared/reference/examples"
RECORDED = sorted(path for kind in ("bootargs", "cmdline") for path in EXAMPLES.glob(f"*/*/*-{kind}.txt"))
OPTIONS = {
    "extdns-setting": {"useextdns": "true"},
    "nodns": {"useextdns": "true"},
    "nodhcp-nodns": {"dns1": "", "dns2": ""},
    "exposedns": {"exposedns": "true"},
    "logrotate": {"logrotatefrequency": "daily"},
    "logrotate-bad": {"logrotatefrequency": "*:00:00"},
    "rpfilter": {"disable_rp_filter": ""},
    "nopw": {"vmpassword": ""},
    "nodomain-onedns": {"domain": "", "dns2": ""},
    "dnssearch": {"dnssearchorder": "corp.example,example.com"},
    "isolated-vmware": {"localgw": "192.168.100.1", "mgmtcidr": "192.168.100.0/24", "eth1ip": "192.168.100.83"},
    "basic-vmware": {"sshonguest": "false", "privateMtu": "null", "type": "dhcpsrvr"},
    "basic-hyperv": {"sshonguest": "true", "extra_pubnics": "2"},
}
"""What each recorded string is about; an empty value: the key is not there."""
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC3ringring cloud@management"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"

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

    assert parse(line)["redundant_state"] == "BACKUP"
    assert stored(line).older, "PRIMARY, which comes later, is a newer server's word"


@pytest.mark.parametrize("said", ["PRIMARY", "MASTER", "BACKUP", "FAULT"])
def test_a_boot_line_of_an_earlier_version_loses_its_words_for_the_role(said: str) -> None:
    """And means what the same boot line means today."""
    roles = {"redundant_state": said, "redundant_master": "true"}
    for more in ("", " authorized_key=QQ==", " publicMtu=1500"):
        now = stored(f"{PLAIN} redundant_router=1 redundant_state={said}{more}")
        then = replace(now, older=False, other={**now.other, **roles})

        assert load(dump({**EMPTY, "cmdline": then})) == {**EMPTY, "cmdline": now}
        assert not now.other.keys() & roles.keys()


def test_blanks_at_both_ends_and_twice_mean_nothing() -> None:
    assert parse(f"  {PLAIN.replace(' ', '  ')} \n") == parse(PLAIN)


def test_a_word_without_a_value_is_its_own() -> None:
    assert parse("quiet name=r-1-VM empty=") == {"quiet": "quiet", "name": "r-1-VM", "empty": ""}


@pytest.mark.parametrize("separator", [" ", "%"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_kvms_older_form(separator: str, end: str) -> None:
    text = f"pubkey:{RSA}{end}cmdline:{separator}{PLAIN.replace(' ', separator)}{end}"

    assert parse(text) == {**parse(PLAIN), "authorized_key": b64encode(RSA.encode()).decode()}
    assert authorized(parse(text)["authorized_key"]) == (RSA,)


def test_a_percent_sign_of_newer_lines_means_itself() -> None:
    assert parse(f"{PLAIN} vmpassword=a%b%%c")["vmpassword"] == "a%b%%c"


@pytest.mark.parametrize(
    "value", ['"quoted"', "'", "back\\slash", "a\\nb", "*:00:00", "$HOME`id`;|&", "ü\u2028\x85\xa0", "=", "=="]
)
def test_every_character_but_a_blank_means_itself(value: str) -> None:
    message = msgspec.json.decode(command(f"{PLAIN} odd={value} next=1\n"))["cmd_line"]

    assert (message["odd"], message["next"]) == (value, "1")


@pytest.mark.parametrize("text", [
    PLAIN.replace(" ", "\t"),
    PLAIN.replace(" ", " \r\n"),
    f"\ufeff{PLAIN}\r\n",
    PLAIN.replace(" ", "\0") + "\0" * 512,
])  # fmt: skip
def test_blanks_and_line_ends_of_any_kind_part_words(text: str) -> None:
    assert parse(text) == parse(PLAIN)


def test_a_pool_of_hyper_v_that_was_copied_whole_is_understood() -> None:
    record = "cloudstack-vm-userdata".ljust(512, "\0") + PLAIN.ljust(2048, "\0")

    assert parse(record) == {"cloudstack-vm-userdata": "cloudstack-vm-userdata", **parse(PLAIN)}


@pytest.mark.parametrize("key", ["redundant_router", "redundant_state", "advert_int", "localgw", "authorized_key"])
def test_every_key_that_is_known_to_repeat_keeps_its_first_value(key: str) -> None:
    assert parse(f"{key}=first {PLAIN} {key}=second {key}")[key] == "first"


def test_an_empty_line_is_none() -> None:
    assert [is_boot_line(text) for text in ("", "\n", "\0", "BOOT_IMAGE=/vmlinuz ro quiet", PLAIN)] == [False] * 4 + [
        True
    ]


def test_the_password_of_a_redundant_vpc_is_longer_than_any_number() -> None:
    password = "9" * 155

    assert stored(f"vpccidr=10.0.0.0/16 router_id=4711 router_password={password} {PLAIN}").secrets == {
        "router_password": password
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eth0ip6", "2001:db8::1"), ("eth0ip6prelen", "64"), ("ip6gateway", "fe80::1"), ("ip6dns1", "2001:db8::53"),
        ("ip6firewall", "true"), ("is_routed", "true"), ("guestgw6", "2001:db8::1"), ("guestcidr6size", "64"),
        ("logrotatefrequency", "*:00:00"), ("guestbrd", "10.31.0.255"), ("guestcidrsize", "24"), ("cidrsize", "24"),
        ("dhcprange", "10.31.0.1:10.31.0.9"), ("router_pr", "100"), ("bootproto", "static"), ("host", "192.0.2.9"),
        ("port", "8080"), ("extra_pubnics", "2"), ("ntpserverlist", "192.0.2.123"), ("template", "domP"),
    ],
)  # fmt: skip
def test_a_key_that_no_feature_asks_for_yet_is_kept(key: str, value: str) -> None:
    line = f"{PLAIN.replace('template=domP ', '')} {key}={value}"

    assert stored(line).other == {key: value}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parents[1].name}/{path.parent.name}/{path.stem}")
def test_recorded_strings_are_understood_whole(path: Path) -> None:
    text = path.read_text()
    serial = "cmdline:" in text
    words = [word.partition("=") for word in text.rpartition("cmdline:")[2].split()]
    found, bag = parse(text), stored(text)

    told = {key: value for key, _, value in reversed(words)}
    assert {key: value for key, value in found.items() if key != "authorized_key" or not serial} == told
    assert (bag.name, bag.type) == (found["name"], found["type"])
    assert len(bag.nics) == len([key for key in found if key.startswith("eth") and key.endswith("ip")])
    if "authorized_key" in found:
        assert authorized(found["authorized_key"])[0].startswith("ssh-rsa AAAA")


@pytest.mark.parametrize(
    "path", [path for path in RECORDED if path.parent.name == "CMDLINES"], ids=lambda path: path.stem
)
def test_recorded_options(path: Path) -> None:
    found = parse(path.read_text())
    _, _, kind = path.stem.rpartition("-")
    story = path.stem[len("000-") : -len(kind) - 1]
    for key, value in OPTIONS.get(story.removeprefix("isolated-"), OPTIONS.get(story, {})).items():
        assert found.get(key, "") == value, key


@pytest.mark.skipif(not RECORDED, reason="the recorded strings lie beside the checkout, and are not here")
def test_there_are_recorded_strings() -> None:
    stories = {
        path.stem[4:].rpartition("-")[0].removeprefix("isolated-")
        for path in RECORDED
        if path.parent.name == "CMDLINES"
    }

    assert len(RECORDED) > 50
    assert {name.removeprefix("isolated-") for name in OPTIONS} - stories == set()


@pytest.mark.parametrize("word", ["null", "None"])
def test_a_java_null_is_nothing(word: str) -> None:
    line = f"{PLAIN} publicMtu={word} privateMtu={word} domain={word} dns1={word} dns2=192.0.2.54 gateway={word}"
    bag = stored(f"{line} eth7ip={word} eth7mask={word}")

    assert (bag.public_mtu, bag.private_mtu, bag.domain, bag.gateway) == (0, 0, "", "")
    assert bag.dns == ("192.0.2.54",)
    assert [nic.number for nic in bag.nics] == [0]


def test_secrets_are_kept_apart_from_what_is_shown() -> None:
    bag = stored(f"{PLAIN} vmpassword=Zk4n0tShown router_password=7 colour=blue logrotatefrequency=*:00:00")

    assert bag.secrets == {"vmpassword": hashed("Zk4n0tShown", "r-31-VM"), "router_password": "7"}
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


@pytest.mark.parametrize("text", [RSA, f"{RSA}\n{ED25519}\n", f"# ours\n\n  {ED25519}\r\n"])
@pytest.mark.parametrize("padding", ["=", ""])
def test_keys_to_log_in_by(text: str, padding: str) -> None:
    encoded = b64encode(text.encode()).decode()
    wanted = tuple(line.strip() for line in text.splitlines() if line.strip().startswith("ssh-"))

    assert authorized(encoded if padding else encoded.rstrip("=")) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "ssh-rsa", "ssh-rsa AAAA", f'command="id" {RSA}', f"{RSA}\x1b[2J", "-----BEGIN OPENSSH PRIVATE KEY-----"],
)
def test_what_is_no_plain_key_lets_nobody_in(text: str) -> None:
    assert authorized(b64encode(text.encode()).decode()) == ()


@given(st.text(max_size=60))
def test_no_text_at_all_stops_the_reading_of_keys(text: str) -> None:
    assert authorized(text) == ()


def test_a_key_that_is_none_does_not_take_the_place_of_one_that_is() -> None:
    good = b64encode(RSA.encode()).decode()
    first = merge(EMPTY, decode(command(f"{PLAIN} authorized_key={good}")), Facts()).config
    second = merge(first, decode(command(f"{PLAIN} authorized_key=not-base64")), Facts())
    bag: BootLine = second.config["cmdline"]

    assert bag.other["authorized_key"] == good
    assert second.warnings == (
        "cmd_line.authorized_key: not base64 of a public key: nobody is let in by it, and an earlier one stays",
    )


def test_a_line_without_a_key_has_none() -> None:
    good = b64encode(RSA.encode()).decode()
    first = merge(EMPTY, decode(command(f"{PLAIN} authorized_key={good}")), Facts()).config
    bag: BootLine = merge(first, decode(command(PLAIN)), Facts()).config["cmdline"]

    assert "authorized_key" not in bag.other
