"""A command's own process: it hands the work to the resident agent, and does it itself where there is none.

A command is answered within milliseconds of work, so what is imported here counts.  That is why the library's
`_socket` is used, which `socket` only dresses: with `socket` and `json` the start of a command costs twice as much.
"""

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET, socket

SOCKET = "/run/holdfast/agent.sock"
NIC_WAIT = "HOLDFAST_NIC_WAIT_S"
BY_AGENT = frozenset({"apply", "converge", "handover", "plan", "rollback"})
"""The verbs of `holdfast` that go through the agent: those that write, but for what boots a machine, and the one that
is asked for again and again.  `status` does not: it has to tell of an agent that hangs.
"""
_LONGEST = 1024
_OWN_ROOT = ("--r", "--n")  # --root and --netns, which argparse lets anybody shorten


def main(name: str, argv: list[str]) -> int:
    """Run the command of this name, by the agent if it is there; return the exit status."""
    code = ask(name, argv)
    if code is None:
        from holdfast import cli  # noqa: PLC0415 only where there is no agent

        code = cli.COMMANDS[name](argv)
    return code


def holdfast(argv: list[str]) -> int:
    """Run the operator's command: some verbs, on this router itself, by the agent."""
    if argv and argv[0] in BY_AGENT and not any(word.startswith(_OWN_ROOT) for word in argv):
        return main("holdfast-plan" if argv[0] == "plan" else "holdfast", argv)
    from holdfast import cli  # noqa: PLC0415 the agent does without it

    return cli.main(argv)


def ask(name: str, argv: list[str], path: str = SOCKET) -> int | None:
    """Let the agent run a command with this process's own input, output and directory.

    Returns its exit status; None if nobody listens, if the agent is busy or if it has ended meanwhile: the command may
    then have done nothing, a part or all, and doing it again is right.
    """
    words = [name, os.environ.get(NIC_WAIT, ""), *argv]
    caller = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        caller.connect(path)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        handles = b"".join(handle.to_bytes(4, sys.byteorder) for handle in (0, 1, 2, here))
        caller.sendmsg([os.fsencode("\0".join(words))], [(SOL_SOCKET, SCM_RIGHTS, handles)])
        os.close(here)
        code, _, why = caller.recv(_LONGEST).decode("utf-8", "replace").partition(" ")
    except OSError:
        return None
    finally:
        caller.close()
    if why:
        sys.stderr.write(f"error: {why}\n")
    return int(code) if code.isdecimal() else None
