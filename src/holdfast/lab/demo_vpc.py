"""What the demo claims of the VPC's router in `examples/vpc`, each claim proven with packets."""

from collections.abc import Mapping
from functools import partial

from holdfast.lab.demo_act import (
    AGREES,
    ELSEWHERE,
    OFFICE,
    Act,
    Sentence,
    all_refused,
    leases,
    listen,
    management,
    resolved,
    said,
)
from holdfast.lab.host import Connection
from holdfast.lab.sentence import NotSo
from holdfast.lab.story import Stage

SOURCE_NAT, FORWARDS, STATIC = "203.0.113.130", "203.0.113.131", "198.51.100.20"
DOMAIN, CONTROL, PARTNER = "hub.example", "169.254.91.7", "192.168.70.10"
WEB1, APP1, DB1 = "10.40.1.21", "10.40.2.21", "10.40.3.21"
WEB_GATEWAY = "10.40.1.1"
GUESTS = {"web1": (WEB1, WEB_GATEWAY), "app1": (APP1, "10.40.2.1"), "db1": (DB1, "10.40.3.1")}
TRIAL = "10.40.9."
TRIAL_MAC = "02:01:00:cc:00:01"
SERVICES = {
    "world": [("tcp", port) for port in (25, 80, 443, 5000)],
    "web1": [("tcp", 80), ("tcp", 9090), ("udp", 6000)],
    "app1": [("tcp", port) for port in (22, 8000, 8001, 8002)],
    "db1": [("tcp", 3306), ("tcp", 3307)],
    "partner": [("tcp", 7000), ("tcp", 7001)],
}
_PLACES = ("/etc", "/run", "/var/lib")
_LEASES = "/var/lib/misc/dnsmasq.leases"
_HISTORY = ("/etc/cloudstack/", "/var/lib/holdfast/", "/run/log/", _LEASES)
"""What may tell of a tier that is gone: older generations, the journal; the leases are asked about by `_forgotten`."""


def _prepare(stage: Stage) -> None:
    listen(stage, SERVICES)


def _connects(stage: Stage) -> Mapping[str, Connection]:
    guests = stage.guests
    for guest in guests.values():
        guest.gets_lease()
    return {
        "trial": guests["trial1"].connects(OFFICE, 5000),
        "forward": stage.world.connects(FORWARDS, 8080, source=OFFICE),
        "web to app": guests["web1"].connects(APP1, 8000),
        "app to db": guests["app1"].connects(DB1, 3306),
    }


def _leases(stage: Stage) -> None:
    leases(stage, GUESTS, DOMAIN)


def _names(stage: Stage) -> None:
    web1, app1, db1 = (stage.guests[name] for name in GUESTS)
    resolved(web1, "app1", APP1)
    resolved(app1, f"db1.{DOMAIN}", DB1)
    resolved(db1, WEB1, f"web1.{DOMAIN}", "PTR")


def _web_to_app(stage: Stage) -> None:
    web1 = stage.guests["web1"]
    said(web1.reaches(APP1, 8000), "app1", WEB1)
    # Only web's egress would let the one pass, only app's ingress the other.
    all_refused(partial(web1.cannot_reach, APP1, 8001), partial(web1.cannot_reach, APP1, 8002))


def _db(stage: Stage) -> None:
    web1, app1 = stage.guests["web1"], stage.guests["app1"]
    said(app1.reaches(DB1, 3306), "db1", APP1)
    all_refused(partial(web1.cannot_reach, DB1, 3306), partial(app1.cannot_reach, DB1, 3307))


def _egress(stage: Stage) -> None:
    web1 = stage.guests["web1"]
    web1.reaches(OFFICE, 443)
    all_refused(partial(web1.cannot_reach, OFFICE, 25), partial(web1.cannot_reach, OFFICE, 5000))


def _forward(stage: Stage) -> None:
    said(stage.world.can_fetch(FORWARDS, 8080, source=OFFICE), "web1", OFFICE)
    stage.world.cannot_reach(FORWARDS, 8080, source=ELSEWHERE)


def _both(stage: Stage) -> None:
    said(stage.world.reaches(FORWARDS, 6000, "udp", source=OFFICE), "web1", OFFICE)
    # The one is forwarded and not allowed, the other allowed and not forwarded.
    all_refused(*(partial(stage.world.cannot_reach, FORWARDS, port, source=OFFICE) for port in (9090, 80)))


def _source_nat(stage: Stage) -> None:
    for name in ("web1", "db1"):
        said(stage.guests[name].can_fetch(OFFICE), "world", SOURCE_NAT)


def _static(stage: Stage) -> None:
    said(stage.world.reaches(STATIC, 22, source=OFFICE), "app1", OFFICE)
    stage.world.cannot_reach(STATIC, 22, source=ELSEWHERE)
    said(stage.guests["app1"].can_fetch(OFFICE), "world", STATIC)


def _partner(stage: Stage) -> None:
    web1, partner = stage.guests["web1"], stage.beside["partner"]
    said(web1.reaches(PARTNER, 7000), "partner", WEB1)
    said(partner.reaches(APP1, 22, source=PARTNER), "app1", PARTNER)
    all_refused(
        partial(web1.cannot_reach, PARTNER, 7001),
        partial(partner.cannot_reach, WEB1, 80, source=PARTNER),
    )


def _gone(stage: Stage) -> None:
    """No trace of it: kernel, what services read, the documents that are in force."""
    router = stage.router
    for words in (
        ["ip", "address"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "rule"],
        ["ip", "neighbour"],
        ["nft", "list", "ruleset"],
        ["conntrack", "-L"],
    ):
        shown = router.shell(words).text
        if not shown and words[0] != "conntrack":
            raise NotSo(f"{' '.join(words)} shows nothing at all")
        for line in shown.splitlines():
            if TRIAL in line or TRIAL_MAC in line or "eth7" in line:
                raise NotSo(f"{' '.join(words)}: {line.strip()}")
    pattern = rf"{TRIAL.replace('.', '[.]')}|{TRIAL_MAC}|\btrial1\b"
    found = router.shell(["grep", "-rslE", pattern, *_PLACES]).text.splitlines()
    found = [path for path in found if not path.startswith(_HISTORY)]
    now = ["grep", "-rslE", "--exclude=command.json", pattern, "/etc/cloudstack/current/"]
    found += router.shell(now).text.splitlines()
    if found:
        raise NotSo(f"the tier trial is still in {', '.join(found)}")


def _forgotten(stage: Stage) -> None:
    stage.guests["web1"].cannot_resolve(f"trial1.{DOMAIN}")
    leased = [line for line in stage.router.read(_LEASES).splitlines() if TRIAL in line]
    if leased:
        raise NotSo(f"{_LEASES}: {leased[0]}")


SENTENCES = (
    Sentence("web1, app1 and db1 each get their tier's address, gateway, DNS server and domain by DHCP", _leases),
    Sentence("names are known across tiers: web1 finds app1, app1 db1, db1 web1's name by its address", _names),
    Sentence("web reaches app at 8000; 8001 is closed by app's ACL, 8002 by web's own", _web_to_app),
    Sentence("app reaches db at 3306; web, denied before the VPC is allowed, does not", _db),
    Sentence("egress of web: 443 is open, 25 denied before 20-443 is allowed, 5000 not named", _egress),
    Sentence(f"{FORWARDS}:8080 leads to web1's port 80, but for {ELSEWHERE}, which is denied first", _forward),
    Sentence("from outside both are needed: a forward without the ACL, the ACL without a forward stay closed", _both),
    Sentence(f"web1 and db1 fetch a page from the Internet and are seen as {SOURCE_NAT}", _source_nat),
    Sentence(f"static NAT on the second public network: {STATIC} is app1 both ways, as its ACL allows", _static),
    Sentence(f"private gateway: web1 reaches {PARTNER} by the static route, the partner app1; no more", _partner),
    Sentence("of the tier trial nothing is left in the kernel and in the files that services read", _gone),
    Sentence("its VM's name is unknown now, and its lease has ended", _forgotten),
    management(CONTROL, [("web1", WEB_GATEWAY), ("web1", CONTROL), ("world", SOURCE_NAT)]),
    AGREES,
)

VPC = Act(
    name="vpc",
    title="A VPC's router",
    cast="a router with one nic, guests of four tiers, an Internet, a partner, a management side",
    sentences=SENTENCES,
    prepare=_prepare,
    connects=_connects,
    opened="four connections are open while a tier is removed: its own, one from outside, two between tiers",
    again="a tier sent again changes nothing",
    first=(FORWARDS, 6000),
    refused=(FORWARDS, 8080),
)
