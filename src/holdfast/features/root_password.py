"""Who may log in at the console: root, by the boot line's password."""

from collections.abc import Iterator

from holdfast.feature import Claim, Feature
from holdfast.login import Login
from holdfast.router import Router


def contribute(_bag: None, router: Router) -> Iterator[Claim]:
    """The password's hash; a line without one leaves the image's own alone."""
    told = router.boot.secrets.get("vmpassword", "")
    if told.startswith("$6$"):  # what an earlier version has kept is the word itself: the next start brings its hash
        yield Claim("cmdline/vmpassword", Login("root", told))


FEATURE = Feature("root_password", (), None, None, contribute)
