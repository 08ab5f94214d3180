"""What can go wrong, told apart by what the caller should do next."""


class HoldfastError(Exception):
    """Base of every error that is raised on purpose; `exit_code` is what the caller's process ends with."""

    exit_code = 1


class Rejected(HoldfastError):
    """The command is wrong. Nothing was changed; sending it again will not help.

    `path` is where in the input, as `rules[3].source_cidr_list[0]`; empty for the whole.
    """

    exit_code = 2

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path


class Failed(HoldfastError):
    """The machine would not take it. The generation before is in force; sending it again may help."""

    exit_code = 3


class Degraded(HoldfastError):
    """The machine would not take it and the way back failed too. Somebody should look."""

    exit_code = 4


class Partial(HoldfastError):
    """Applied, but a unit that is new or changed in this command was refused."""

    exit_code = 5
