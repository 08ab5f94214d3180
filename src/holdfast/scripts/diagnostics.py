"""diagnostics.py: an operator looks from the router whether something answers."""

import sys
from collections.abc import Sequence

from holdfast.answers.diagnostics import command, parts

LONGEST_S = 50.0
"""The server waits 60 s, and takes what comes later for nothing."""
NOT_ALLOWED, NOT_THERE = 2, 127


def diagnostics(argv: Sequence[str]) -> int:
    """Print three parts and end with 0: of a script that fails no text would reach anybody."""
    try:
        program = command(argv)
    except ValueError as error:
        sys.stdout.write(parts("", f"refused: {error}", NOT_ALLOWED))
        return 0
    from holdfast.run import capture  # noqa: PLC0415 after the words were found right

    try:
        done = capture(program, timeout_s=LONGEST_S)
    except OSError:
        sys.stdout.write(parts("", f"{program[0]} is not installed on this router", NOT_THERE))
        return 0
    sys.stdout.write(parts(done.out, done.errors, done.code))
    return 0
