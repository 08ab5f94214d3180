"""Passwords of accounts: read from shadow(5), written by chpasswd(8), which hears them by its input alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from holdfast.converge import Failure
from holdfast.login import Login
from holdfast.run import CommandFailed
from holdfast.run import run as run_program
from holdfast.state import Change, Resource, State


class Logins:
    """Keeps those accounts' hashes that somebody claims; no claim, no opinion.

    `whole`: this is a machine of ours, not a directory and a network namespace on somebody else's.
    """

    kinds: tuple[type[Resource], ...] = (Login,)

    def __init__(self, root: Path = Path("/"), *, whole: bool = True, run: Callable[..., str] = run_program) -> None:
        self.shadow = root / "etc/shadow"
        self.whole = whole
        self.run = run

    def observe(self, desired: State) -> Iterator[Login]:
        """Read the claimed accounts' hashes; an account that is not there counts as absent."""
        wanted = [login for login in desired.values() if isinstance(login, Login)]
        if not self.whole:
            yield from wanted
        elif wanted:
            try:
                lines = self.shadow.read_text("utf-8", "surrogateescape").splitlines()
            except OSError:
                return
            held = {account: rest.partition(":")[0] for account, _, rest in (line.partition(":") for line in lines)}
            yield from (Login(login.account, held[login.account]) for login in wanted if login.account in held)

    def check(self, changes: Sequence[Change]) -> Iterable[Failure]:  # noqa: ARG002
        """Ask nothing: who refuses an account has changed nothing."""
        return ()

    def apply(self, changes: Sequence[Change]) -> Iterator[Failure]:
        """Write what differs, one account at a time."""
        for change in changes:
            if isinstance(change.after, Login):
                try:
                    self.run(["chpasswd", "--encrypted"], f"{change.after.account}:{change.after.hash}\n")
                except CommandFailed as error:
                    yield Failure(change.key, str(error))
                except OSError as error:
                    yield Failure(change.key, f"chpasswd: {error.strerror}")
