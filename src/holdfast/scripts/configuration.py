"""Scripts that change configuration: each becomes the message that says the same, and is taken as one."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import whole
from holdfast.answers.update_interface_config import Told, not_found, retold, smallest, with_mtu
from holdfast.inbox import BOOT_LINE
from holdfast.scripts import failed, refuse
from holdfast.texts import is_ipv4

if TYPE_CHECKING:
    from holdfast.session import Session

LONGEST_PASSWORD = 1024
_SAVE = "savepassword.sh -v IP -p PASSWORD   the password that one VM may fetch"
_UPDATE = "update_interface_config.sh IP PREFIX MTU [SECONDS]   the MTU of the nic that has this address"


def savepassword(argv: Sequence[str], root: Path = Path("/")) -> int:
    """savepassword.sh -v IP -p PASSWORD: as a message of type `vmpassword`."""
    given = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) != 4 or given.keys() != {"-v", "-p"}:  # noqa: PLR2004 two options and their values
        return refuse(_SAVE)
    address, password = given["-v"], given["-p"]
    if not is_ipv4(address) or not 0 < len(password) <= LONGEST_PASSWORD:
        return refuse(_SAVE)
    message = {"ip_address": address, "password": password, "type": "vmpassword"}
    return _guarded(lambda: _apply(_session(root), f"savepassword.sh {address}", [message]))


def update_interface_config(argv: Sequence[str], root: Path = Path("/")) -> int:
    """update_interface_config.sh IP PREFIX MTU [SECONDS]: the MTU is stored, set, and told to VMs by DHCP.

    Nobody waits for an interface to come: what the router has not been told of does not come by itself.
    """
    numbers = [int(word) if word.isascii() and word.isdigit() and len(word) < 6 else -1 for word in argv[1:]]  # noqa: PLR2004 digits
    if len(argv) not in (3, 4) or not is_ipv4(argv[0]) or min(numbers) < 0:
        return refuse(_UPDATE)
    if not 0 < numbers[0] <= 32 or not smallest() <= numbers[1] <= 65535:  # noqa: PLR2004 of IPv4
        return refuse(_UPDATE)
    return _guarded(lambda: _update(argv[0], numbers[1], root))


def _update(address: str, mtu: int, root: Path) -> int:
    from holdfast import agent  # noqa: PLC0415 after the arguments were found right
    from holdfast.router import Router  # noqa: PLC0415 same

    session = _session(root)
    config, _ = agent.current(session.store)
    told = retold(Router(config, session.machine.facts()), address, mtu)
    if told is None:
        sys.stdout.write(f"{not_found(address)}\n")
        return 1
    cause = f"update_interface_config.sh {address} {mtu}"
    if told.boot_key:
        return _of_boot_line(session, told, cause)
    return _apply(session, cause, [told.message])


def _of_boot_line(session: "Session", told: Told, cause: str) -> int:
    """The boot line says this nic's MTU: the line that is stored changes, and the one that a reboot reads."""
    message = with_mtu(json.loads(session.inbox.read(BOOT_LINE)), told.boot_key, told.mtu)
    code = _apply(session, cause, [message])
    line = session.inbox.directory / "cmdline"
    if code == 0 and line.is_file():
        words = dict(word.partition("=")[::2] for word in line.read_text("utf-8", "surrogateescape").split())
        words[told.boot_key] = str(told.mtu)
        text = " ".join(f"{key}={value}" if value else key for key, value in words.items())
        whole.put(line, f"{text}\n".encode("utf-8", "surrogateescape"), line.stat().st_mode & 0o777)
        whole.sync(line.parent)
    return code


def _session(root: Path) -> "Session":
    from holdfast.session import Session  # noqa: PLC0415 after the arguments were found right

    return Session(root)


def _apply(session: "Session", cause: str, messages: Sequence[dict[str, Any]]) -> int:
    from holdfast.answer import tell  # noqa: PLC0415 same
    from holdfast.intake import Event  # noqa: PLC0415 same

    events = [Event(cause.partition(" ")[0], json.dumps(message).encode()) for message in messages]
    return tell(cause, session.apply(events, cause=cause))


def _guarded(action: Callable[[], int]) -> int:
    from holdfast.errors import HoldfastError  # noqa: PLC0415 same

    try:
        return action()
    except HoldfastError as error:
        failed(error)
        return error.exit_code
    except (OSError, ValueError) as error:
        return failed(error)
