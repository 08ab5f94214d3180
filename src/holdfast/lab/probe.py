"""Probes: numbered packets at a fixed rate between hosts, counted by their numbers where they arrive."""

import contextlib
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from holdfast.lab.host import Host
from holdfast.lab.network import Port, batch
from holdfast.lab.sentence import LabError

if TYPE_CHECKING:
    from holdfast.lab.lab import Lab

RATE_HZ = 1000
_CONTROL_PORT = 40_000
_runs = itertools.count(1)


class Flow(NamedTuple):
    """Packets from a host to a port of another.

    `established`: one socket, each packet is answered.  `new`: a new source port for each packet.
    `address`: where it sends to, if that is not the target's own address (a port forward).
    `target_port`: where the target listens, if that is another port.  `refused`: none of it may arrive.
    """

    source: Host
    target: Host
    port: int
    kind: Literal["established", "new"] = "established"
    address: str = ""
    target_port: int = 0
    source_address: str = ""
    refused: bool = False


class Count(NamedTuple):
    """What came of a flow, in packets: `lost` never came, `leaked` came and should not have, `returned` were answered.

    `longest_gap`: most numbers lost in a row.  `silence_s`: longest time between two that came, by the
    receiver's kernel.
    """

    sent: int
    received: int
    lost: int
    leaked: int
    returned: int
    longest_gap: int
    silence_s: float


class Probe:
    """Flows that run in the background between `start` and `stop`, with a control flow beside each sender."""

    def __init__(self, lab: "Lab", flows: Sequence[Flow], rate_hz: float = RATE_HZ) -> None:
        self.lab, self.flows, self.rate_hz = lab, list(flows), rate_hz
        self.counts: list[Count] = []
        self.controls: list[Count] = []
        self._key = f"probe{next(_runs)}"
        self._started: list[tuple[Host, str]] = []
        self._addresses: list[tuple[str, str]] = []

    @property
    def void(self) -> bool:
        """Whether a control flow lost anything: then the counts say nothing."""
        return any(control.lost for control in self.controls)

    def start(self) -> None:
        """Start receivers, then senders; returns while they send."""
        senders = list(dict.fromkeys(flow.source for flow in self.flows))
        controls = [self._control(number, source) for number, source in enumerate(senders)]
        everything = [*self.flows, *controls]
        ports: dict[Host, list[int]] = {}
        for flow in everything:
            listens = flow.target_port or flow.port
            if listens in ports.setdefault(flow.target, []):
                raise LabError(f"two flows of a probe need {flow.target.name}'s port {listens}; give one another port")
            ports[flow.target].append(listens)
        for host, numbers in ports.items():
            self._begin(host, "receiver", {"ports": numbers})
        for source in senders:
            sent = [_spec(number, flow) for number, flow in enumerate(everything) if flow.source is source]
            self._begin(source, "sender", {"flows": sent, "rate_hz": self.rate_hz})

    def _begin(self, host: Host, role: str, spec: dict[str, Any]) -> None:
        host.ask("flows_start", key=f"{self._key}-{role}", role=role, spec=spec)
        self._started.append((host, role))

    def _control(self, number: int, source: Host) -> Flow:
        """A flow on the sender's own segment that no router sees, over addresses that nobody else uses."""
        port: Port = next(iter(source.ports.values()))
        bystander = self.lab.bystander(port.segment)
        own, other = f"198.18.{number}.1", f"198.18.{number}.2"
        for host, nic, address in ((source, port.nic, own), (bystander, "eth0", other)):
            batch(host.namespace, [f"address replace {address}/30 dev {nic} scope link"])
            self._addresses.append((host.namespace, f"address delete {address}/30 dev {nic}"))
        return Flow(source, bystander, _CONTROL_PORT + number, address=other, source_address=own)

    def stop(self) -> None:
        """Stop all, senders first, and count."""
        said: dict[str, dict[str, dict[str, Any]]] = {"sender": {}, "receiver": {}}
        while self._started:
            host, role = self._started.pop()
            said[role].update(host.ask("flows_stop", key=f"{self._key}-{role}"))
        for namespace, line in self._addresses:
            with contextlib.suppress(LabError):  # its nic may be gone
                batch(namespace, [line])
        counts = []
        for number in range(len(said["sender"])):
            refused = number < len(self.flows) and self.flows[number].refused
            sent, came = (
                said["sender"][str(number)],
                said["receiver"].get(str(number), {"ranges": [], "silence_s": 0.0}),
            )
            counts.append(_count(sent, came, refused=refused))
        self.counts, self.controls = counts[: len(self.flows)], counts[len(self.flows) :]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _spec(number: int, flow: Flow) -> dict[str, Any]:
    return {
        "flow": number,
        "kind": flow.kind,
        "address": flow.address or flow.source.where(flow.target),
        "port": flow.port,
        "source": flow.source_address,
        "refused": flow.refused,
    }


def _count(sent: dict[str, int], came: dict[str, Any], *, refused: bool) -> Count:
    number = sent["sent"]
    received = sum(last - first + 1 for first, last in came["ranges"])
    # Lost in a row: before the first that came, between two runs, behind the last.
    edges = [(-1, -1), *came["ranges"], (number, number)]
    gap = max(after[0] - before[1] - 1 for before, after in itertools.pairwise(edges))
    leaked = received if refused else 0
    lost = 0 if refused else number - received
    return Count(number, received, lost, leaked, sent["returned"], gap, came["silence_s"])
