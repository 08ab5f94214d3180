"""What a guest is told: each address of the old service, nobody else's data, names that are only names."""

from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.guest.answers import (
    BAD_REQUEST,
    NOT_ALLOWED,
    NOT_FOUND,
    SAVED,
    Caller,
    Guest,
    Request,
    metadata,
    password,
)
from holdfast.receipts import Receipts

CALLER = Caller("10.1.1.11", "10.1.1.1")
GUEST = Guest(
    at=("10.1.1.1",),
    metadata={"instance-id": "i-1", "local-hostname": "web1", "public-keys": "", "cloud-name": "Größe"},
    userdata=b64encode(b"#!/bin/sh\n\x00\xff").decode(),
    password='pa"ss; $(wörd)\r\n',  # noqa: S106 a made-up one
    serial=3,
)
NAMES = b"instance-id\nlocal-hostname\npublic-keys\ncloud-name\n"
USER_DATA = b"#!/bin/sh\n\x00\xff"
NOTHING = Receipts({}, {})
SEND, SAVE = b"send_my_password", b"saved_password"


def get(target: str | bytes, guest: Guest | None = GUEST, caller: Caller = CALLER) -> bytes | None:
    """The body, or None where there is nothing."""
    answer = metadata(caller, guest, Request(b"GET", target.encode() if isinstance(target, str) else target))
    assert answer.status == 200 or answer == NOT_FOUND
    return answer.body if answer.status == 200 else None


def ask(
    word: bytes, guest: Guest | None = GUEST, receipts: Receipts = NOTHING, method: bytes = b"GET"
) -> tuple[bytes, str | None, int]:
    answer = password(CALLER, guest, receipts, Request(method, b"/", [(b"domu_request", word)]))
    assert answer.status == 200
    return answer.body, answer.event, answer.serial


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/latest/user-data", USER_DATA),
        ("/latest/user-data/", USER_DATA),
        ("/userdata/10.1.1.11/user-data", USER_DATA),
        ("/latest/meta-data", NAMES),
        ("/latest/meta-data/", NAMES),
        ("/metadata/10.1.1.11/meta-data", NAMES),
        ("/metadata/10.1.1.11/meta-data/", NAMES),
        ("/latest/meta-data/instance-id", b"i-1"),
        ("/latest/meta-data/instance-id/", b"i-1"),
        ("/latest/instance-id", b"i-1"),
        ("/latest/local-hostname/", b"web1"),
        ("/metadata/10.1.1.11/local-hostname", b"web1"),
        ("/latest/meta-data/public-keys", b""),
        ("/latest/meta-data/cloud-name", "Größe".encode()),
        ("/latest/meta-data/instance%2Did", b"i-1"),
        ("/latest/meta-data/instance-id?recursive=true", b"i-1"),
        ("http://data-server/latest/user-data", USER_DATA),
        ("HTTPS://10.1.1.1:443/latest/instance-id?x", b"i-1"),
        ("/", None),
        ("", None),
        ("*", None),
        ("http://data-server", None),
        ("/latest", None),
        ("/latest/", None),
        ("/latest//", None),
        ("/latest//user-data", None),
        ("/latest/user-data/x", None),
        ("/latest/meta-data//", None),
        ("/latest/meta-data/meta-data", None),
        ("/latest/absent", None),
        ("/latest/meta-data/instance%252Did", None),
        ("/latest/../latest/user-data", None),
        ("/latest/meta-data/%ff", None),
        ("/userdata/", None),
        ("/userdata/10.1.1.11/", None),
        ("/userdata/10.1.1.11/instance-id", None),
        ("/metadata/10.1.1.11/", None),
        ("/metadata/10.1.1.11/user-data", None),
        ("/userdata/10.1.1.12/user-data", None),
        ("/userdata/10.1.1.1/user-data", None),
        ("/metadata/10.1.1.12/instance-id", None),
        ("/metadata/10.1.1.11/../10.1.1.12/instance-id", None),
    ],
)
def test_each_address_has_its_answer(target: str, body: bytes | None) -> None:
    assert get(target) == body


def test_what_is_empty_is_there_and_what_is_absent_is_not() -> None:
    assert get("/latest/user-data", Guest(at=("10.1.1.1",), userdata="")) == b""
    assert get("/latest/meta-data/", Guest(at=("10.1.1.1",), metadata={})) == b""
    assert get("/latest/user-data", Guest(at=("10.1.1.1",))) is None
    assert get("/latest/meta-data/", Guest(at=("10.1.1.1",))) is None
    assert get("/latest/instance-id", Guest(at=("10.1.1.1",))) is None


def test_a_guest_is_who_asks_from_its_address_at_its_router() -> None:
    assert get("/latest/user-data", None) is None
    assert get("/latest/user-data", GUEST, Caller("10.1.1.11", "10.2.2.1")) is None
    for name in (b"x-forwarded-for", b"host", b"forwarded"):
        stranger = Request(b"GET", b"/latest/user-data", [(name, b"10.1.1.11")])
        assert metadata(Caller("10.1.1.12", "10.1.1.1"), None, stranger) == NOT_FOUND


def test_only_reading_is_allowed() -> None:
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"):
        assert metadata(CALLER, GUEST, Request(method, b"/latest/user-data")) == NOT_ALLOWED
    assert metadata(CALLER, GUEST, Request(b"HEAD", b"/latest/user-data")).status == 200


def test_kinds_of_bodies() -> None:
    assert metadata(CALLER, GUEST, Request(b"GET", b"/latest/user-data")).kind == "application/octet-stream"
    assert metadata(CALLER, GUEST, Request(b"GET", b"/latest/instance-id")).kind == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "name", ["..", ".", "a/../b", "a/", "/", "a\nb", "a%2Fb", "%", "a b", "a?b#c", "é", "user-data"]
)
def test_a_name_is_a_key_and_never_a_path(name: str) -> None:
    guest = Guest(at=("10.1.1.1",), metadata={name: "odd", "plain": "value"})
    listed = (get("/latest/meta-data/", guest) or b"").decode().splitlines()

    assert len(listed) == 2
    assert listed[1] == "plain"
    assert set("/ ?#").isdisjoint(listed[0])
    assert get(f"/latest/meta-data/{listed[0]}", guest) == b"odd"
    assert get("/latest/meta-data/plain", guest) == b"value"


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=8))
def test_what_is_listed_can_be_fetched(names: dict[str, str]) -> None:
    guest = Guest(at=("10.1.1.1",), metadata=names)
    listed = (get("/latest/meta-data/", guest) or b"").split(b"\n")[:-1]

    assert [get(b"/latest/meta-data/" + line, guest) for line in listed] == [text.encode() for text in names.values()]
    assert all(line.isascii() and not any(byte <= 0x20 or byte == 0x7F for byte in line) for line in listed)


@given(
    st.dictionaries(st.text(min_size=1), st.text().map("own ".__add__)),
    st.one_of(
        st.binary(),
        st.text().map(lambda text: f"/latest/meta-data/{quote(text, safe='/%')}".encode()),
        st.text(st.sampled_from("/.%2eE0l1atesmdu-?#:p")).map(lambda text: f"/latest/{text}".encode()),
        st.text(st.sampled_from("/.%2e1")).map(lambda text: f"/userdata/10.1.1.{text}/user-data".encode()),
    ),
)
def test_nothing_but_the_guests_own_data_comes_back(names: dict[str, str], target: bytes) -> None:
    guest = Guest(at=("10.1.1.1",), metadata=names, userdata=b64encode(b"own user data").decode())
    whole_list = get("/latest/meta-data/", guest)

    assert get(target, guest) in {None, whole_list, b"own user data", *(text.encode() for text in names.values())}
    assert get(target, None) is None


def test_a_password_is_sent_as_it_is_until_it_is_acknowledged() -> None:
    exact = 'pa"ss; $(wörd)\r\n'.encode()

    assert ask(SEND) == (exact, "delivered", 3)
    assert ask(SEND, receipts=Receipts({"10.1.1.11": 3}, {"10.1.1.11": 2})) == (exact, "delivered", 3)
    assert ask(SEND, receipts=Receipts({}, {"10.1.1.12": 3})) == (exact, "delivered", 3)
    assert ask(SEND, receipts=Receipts({}, {"10.1.1.11": 3})) == (b"saved_password", None, 0)
    assert ask(SEND, Guest(at=("10.1.1.1",))) == (b"saved_password", None, 0)


def test_an_acknowledgement_is_for_the_password_that_was_given() -> None:
    newer_came_in_between = Receipts({"10.1.1.11": 2}, {"10.1.1.11": 1})

    assert ask(SAVE, receipts=newer_came_in_between) == (b"saved_password", "acknowledged", 2)
    assert ask(SAVE) == (b"saved_password", "acknowledged", 3)
    assert ask(SAVE, receipts=Receipts({"10.1.1.11": 3}, {"10.1.1.11": 3})) == (b"saved_password", None, 0)
    assert ask(SAVE, Guest(at=("10.1.1.1",))) == (b"saved_password", None, 0)


def test_strangers_hear_what_a_guest_without_a_password_hears() -> None:
    elsewhere = Guest(at=("10.2.2.1",), password="secret", serial=1)  # noqa: S106 a made-up one
    for guest in (None, elsewhere):
        assert ask(SEND, guest) == ask(SAVE, guest) == (b"saved_password", None, 0)


def test_everything_else_is_a_bad_request() -> None:
    for word in (b"", b"Send_My_Password", b"save_password", b"send_my_password, saved_password"):
        assert ask(word)[0] == b"bad_request"
    for method in (b"POST", b"HEAD", b"PUT"):
        assert ask(SEND, method=method)[0] == ask(SAVE, method=method)[0] == b"bad_request"
    both = [(b"domu_request", SEND), (b"domu_request", SAVE)]
    assert password(CALLER, GUEST, NOTHING, Request(b"GET", b"/", both)) == BAD_REQUEST
    assert password(CALLER, GUEST, NOTHING, Request(b"GET", b"/latest/user-data")) == BAD_REQUEST
    shouted = Request(b"GET", b"/any", [(b"DOMU_REQUEST", SAVE)])
    assert password(CALLER, None, NOTHING, shouted) == SAVED
