"""The demo's redundant pair, in `examples/redundant-pair`: a download goes on while the router that serves goes."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from holdfast.lab.demo_act import ELSEWHERE, OFFICE, Act, Sentence, leases, listen, resolved, said
from holdfast.lab.demo_play import AGAIN, TOLD, Performance
from holdfast.lab.download import Download
from holdfast.lab.lab import Lab
from holdfast.lab.router import Router
from holdfast.lab.sentence import NotSo, eventually
from holdfast.lab.story import Stage, build, holdfast

SOURCE_NAT, FORWARDS, GATEWAY = "203.0.113.75", "203.0.113.76", "10.20.40.1"
ADDRESSES = {"web1": "10.20.40.21", "web2": "10.20.40.22"}
SERVICES = {"world": [("tcp", 80)], "web2": [("tcp", 80)]}
SERVES_S = 20.0
BEGUN_S = 1.5
SECONDS = 8.0
STALLS_S = 15.0
"""How long a download may stand still: an election takes up to 3.5 s, and TCP waits twice as long after each try."""
PORTS = iter(range(8100, 8200))


def _routers(stage: Stage) -> list[Router]:
    return [*stage.lab.routers.values()]


def _serving(stage: Stage) -> list[Router]:
    """Who says PRIMARY, of those that are on; NotSo if one gives no answer."""
    found = []
    for router in _routers(stage):
        if router.running:
            done = router.run("checkrouter.sh")
            if done.code or done.text not in ("Status: PRIMARY\n", "Status: BACKUP\n"):
                raise NotSo(f"{router.name}: {done.text}{done.errors}")
            found += [router] if "PRIMARY" in done.text else []
    return found


def _one(stage: Stage) -> None:
    names = [router.name for router in eventually(lambda: _serving(stage), "one serves", SERVES_S)]
    if len(names) != 1:
        raise NotSo(f"PRIMARY say {' and '.join(names)}")


def _guests(stage: Stage) -> None:
    leases(stage, {name: (address, GATEWAY) for name, address in ADDRESSES.items()}, "mail.example")
    resolved(stage.guests["web1"], "web2", ADDRESSES["web2"])


def _out(stage: Stage) -> None:
    for name in ADDRESSES:
        said(stage.guests[name].can_fetch(OFFICE), "world", SOURCE_NAT)


def _in(stage: Stage) -> None:
    said(stage.world.can_fetch(FORWARDS, 8080, source=ELSEWHERE), "web2", ELSEWHERE)


def _agree(stage: Stage) -> None:
    for router in _routers(stage):
        eventually(partial(_idle, router), f"holdfast plan on {router.name}: nothing to do", SERVES_S)


def _idle(router: Router) -> bool:
    return not router.running or "nothing to do" in holdfast(router, "plan").text.splitlines()


class Failover(Performance):
    """One performance: the pair is told its story, then the one that serves goes, in three ways, during downloads."""

    def perform(self, lab: Lab) -> None:
        """Play everything; sentences that fail are kept and the rest goes on."""
        self.screen.title(f"{self.act.title}.  A lab: {self.act.cast}")
        stage = build(lab, self.story.topology)
        with ThreadPoolExecutor(2) as power:
            took = max(power.map(Router.boot, _routers(stage)))
        self.act.prepare(stage)
        self.screen.words(f"Both routers' systemd was up after {took:.1f} s. Nothing is forwarded yet.", indent=2)
        self.screen.title("The story, as the management server tells it: everything to both")
        self._tell(stage)
        self.screen.title("What works now")
        self._prove(stage, TOLD)
        self._goes("Power cut of the router that serves", stage, Router.power_cut)
        self._back(stage)
        self._goes("An orderly stop of the router that serves now", stage, Router.shutdown)
        self._back(stage)
        self.screen.title("The same questions again")
        self._prove(stage, AGAIN)

    def _goes(self, title: str, stage: Stage, how: Callable[[Router], None]) -> None:
        """Let the router that serves go while web1 downloads something."""
        self.screen.title(title)
        serving = _serving(stage)
        if not serving:
            return
        [old, *_] = serving
        with Download(stage.world, stage.guests["web1"], OFFICE, next(PORTS), seconds=SECONDS) as download:
            time.sleep(BEGUN_S)
            text = f"web1 fetches {download.size / 1e6:.0f} MB; after {download.came / 1e6:.1f} MB {old.name} goes."
            self.screen.words(text, indent=2)
            began = time.monotonic()
            with ThreadPoolExecutor(1) as power:  # an orderly stop takes its time
                going = power.submit(how, old)
                self.ask(f"{title}: the other one serves", AGAIN, lambda: _taken(stage, old))
                self.screen.words(f"the other one says PRIMARY {time.monotonic() - began:.2f} s later", indent=4)
                going.result()
            came = download.result()

        def whole() -> None:
            if not came.whole or came.stall_s > STALLS_S:
                raise NotSo(f"{came.came} of {came.size} bytes, longest pause {came.stall_s:.2f} s; {came.why}")

        self.ask(f"{title}: web1's download goes on to its last byte", AGAIN, whole)
        self.screen.words(f"the download stood still for {came.stall_s:.2f} s", "bold", indent=4)

    def _back(self, stage: Stage) -> None:
        """Switch on who is off: it is told nothing, and stays the second."""
        for router in _routers(stage):
            if not router.running:
                before = _serving(stage)
                took = router.boot()
                self.screen.words(f"{router.name} is switched on again and is up after {took:.1f} s", indent=2)
                self.ask(f"{router.name} comes back and stays BACKUP", AGAIN, partial(_same, stage, before))
                _agree(stage)


def _taken(stage: Stage, old: Router) -> None:
    [other] = [router for router in _routers(stage) if router is not old]
    eventually(lambda: other.run("checkrouter.sh").text == "Status: PRIMARY\n", f"{other.name} says PRIMARY", SERVES_S)


def _same(stage: Stage, before: list[Router]) -> None:
    time.sleep(2)
    if _serving(stage) != before:
        raise NotSo(f"PRIMARY say {' and '.join(router.name for router in _serving(stage))}")


FAILOVER = Act(
    name="redundant-pair",
    title="A redundant pair",
    cast="two routers that know nothing, two guests, an Internet, a management side",
    sentences=(
        Sentence("one of the two says PRIMARY and the other BACKUP", _one),
        Sentence("web1 and web2 get address, gateway, names and domain from the pair", _guests),
        Sentence(f"web1 and web2 fetch a page from the Internet and are seen as {SOURCE_NAT}", _out),
        Sentence(f"{FORWARDS}:8080 leads to web2's port 80, and web2 sees who asks", _in),
        Sentence("holdfast plan on both: the machine is as its documents say", _agree),
    ),
    prepare=lambda stage: listen(stage, SERVICES),
    connects=lambda _: {},
    opened="",
    again="all public addresses sent again change nothing",
    first=(FORWARDS, 8080),
    refused=(FORWARDS, 8080),
)
