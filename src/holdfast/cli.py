"""Verbs, exit codes, printing; the only place that catches our errors."""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from holdfast.calls import called
from holdfast.errors import HoldfastError

USAGE = 2
DONE = (0, 2, 5)
"""Applied, or refused: trying again would change nothing."""
ROLE_HOOK = "/opt/holdfast/libexec/holdfast-role"


def main(argv: Sequence[str] | None = None) -> int:
    """The `holdfast` command: `holdfast --help` tells all."""
    from holdfast.verbs import parser  # noqa: PLC0415 argparse is not for the commands that must start fast

    options = parser().parse_args(argv)
    return guarded(lambda: int(options.verb(options)))


def guarded(action: Callable[[], int]) -> int:
    """Run, and turn our errors into a line and an exit status; anything else is a bug and shows itself."""
    # The process ends with its command: looking for cycles in ten thousand rules costs more than they ever will.
    gc.disable()
    try:
        return action()
    except HoldfastError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3


def update_config(argv: Sequence[str]) -> int:
    """update_config.py FILE [false]: merge and converge; `false`: do not archive the file."""
    if len(argv) not in (1, 2) or argv[0] in ("-h", "--help") or (len(argv) == 2 and argv[1] not in ("true", "false")):  # noqa: PLR2004 file and flag
        return _usage("update_config.py FILE [false]   merge a file of /var/cache/cloud and converge", argv)
    return guarded(lambda: _told(argv[0], lambda s: s.update(argv[0], archive=argv[1:] != ["false"])))


def merge(argv: Sequence[str]) -> int:
    """merge.py FILE: into the store only."""
    if len(argv) != 1 or argv[0].startswith("-"):
        return _usage("merge.py FILE   merge a file of /var/cache/cloud into the store, apply nothing", argv)
    return guarded(lambda: _told(argv[0], lambda s: s.merge(argv[0])))


def configure(argv: Sequence[str]) -> int:
    """configure.py [NAME]: converge from the store; the name that management servers pass says nothing."""
    if len(argv) > 1 or (argv and argv[0].startswith("-")):
        return _usage("configure.py [NAME]   compare everything with the machine and put right what differs", argv)
    return guarded(lambda: _told("configure", lambda s: s.converge("configure.py")))


def vr_cfg(argv: Sequence[str]) -> int:
    """vr_cfg.sh -c FILE: a bundle, one convergence."""
    if len(argv) != 2 or argv[0] != "-c":  # noqa: PLR2004 the option and its file
        return _usage("vr_cfg.sh -c FILE   merge a bundle of messages and converge once", argv)
    return guarded(lambda: _told(argv[1], lambda s: s.bundle(Path(argv[1]))))


def master(argv: Sequence[str]) -> int:
    """master.py --master|--backup|--fault: take a role, as older servers' keepalived was told to say it."""
    return _take_role("master.py", {"--master": "MASTER", "--backup": "BACKUP", "--fault": "FAULT"}, argv)


def configure_router(argv: Sequence[str]) -> int:
    """configure_router.py --primary|--backup|--fault: the same in newer servers' words."""
    return _take_role("configure_router.py", {"--primary": "MASTER", "--backup": "BACKUP", "--fault": "FAULT"}, argv)


def _take_role(script: str, words: Mapping[str, str], argv: Sequence[str]) -> int:
    """Say the word as keepalived would, and converge to it.  What keepalived says next holds again."""
    if len(argv) != 1 or argv[0] not in words:
        return _usage(f"{script} {'|'.join(words)}   take a role and converge, until keepalived says another", argv)
    word = words[argv[0]]

    def take() -> int:
        from holdfast.run import run  # noqa: PLC0415 after the arguments were found right

        run([ROLE_HOOK, "INSTANCE", script, word, "0"])
        followed(Path("/"), lambda: 0)  # whoever is called by the flag need not come
        return _follow()

    return guarded(take)


def follow(argv: Sequence[str]) -> int:
    """holdfast-follow: converge to the role that keepalived has given this router, unless another has done so."""
    if argv:
        return _usage("holdfast-follow   converge to keepalived's last word", argv)
    return guarded(lambda: followed(Path("/"), _follow))


def followed(root: Path, act: Callable[[], int]) -> int:
    """Take the flag that the role has moved, and act; 0 at once where another has taken it.

    The flag goes before the word is read, so what is said later sets it again.  What fails leaves it for the next.
    """
    from holdfast.role_report import MOVED  # noqa: PLC0415 after the arguments were found right

    flag = root / MOVED
    try:
        flag.unlink()
    except FileNotFoundError:
        return 0
    code = 1
    try:
        code = act()
    finally:
        if code not in DONE:
            flag.touch()
    return code


def _follow() -> int:
    from holdfast.role_report import word  # noqa: PLC0415 after the arguments were found right

    return _told(f"role {word(Path('/')) or 'unknown'}", lambda s: s.follow())


def manage_service(argv: Sequence[str]) -> int:
    """manage_service.sh ACTION SERVICE: stop a service for a while, or let it run again."""
    from holdfast.manage_service import main as manage  # noqa: PLC0415 after start-up

    return guarded(lambda: manage(argv))


def _usage(text: str, argv: Sequence[str]) -> int:
    asked = bool(argv) and argv[0] in ("-h", "--help")
    (sys.stdout if asked else sys.stderr).write(f"usage: {text}\n")
    return 0 if asked else USAGE


def _told(title: str, action: Callable[..., object], root: Path = Path("/")) -> int:
    from holdfast.answer import tell  # noqa: PLC0415 after the arguments were found right
    from holdfast.session import Session  # noqa: PLC0415 same

    return tell(title, action(Session(root)))


_NOTED: dict[str, Callable[[list[str]], int]] = {
    "configure.py": configure,
    "configure_router.py": configure_router,
    "holdfast": main,
    "manage_service.sh": manage_service,
    "master.py": master,
    "merge.py": merge,
    "update_config.py": update_config,
    "vr_cfg.sh": vr_cfg,
}
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **{name: partial(called, name, command) for name, command in _NOTED.items()},
    "holdfast-plan": main,  # it only looks
    "holdfast-follow": follow,  # nobody asks for it, and a change of roles waits for it
}
"""What a command's own process may ask the agent to do, by the command's name; what is asked for is noted."""
