"""What an operator has chosen for this router: /etc/holdfast/settings.json.  Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from holdfast.errors import Rejected

PATH = "/etc/holdfast/settings.json"
SHORTEST_ADVERT_S, LONGEST_ADVERT_S = 0.05, 255.0


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be chosen, and what holds where nothing is.  Both routers of a pair need the same.

    `advert_s`: seconds between keepalived's advertisements, 0.05 to 255; 0 leaves it to the boot line.  Below one
    second the protocol is version 3, which has no password; a router that pauses for three of them has lost.  From one
    second on the protocol is version 2, which knows whole seconds alone.
    `gateway_probe`: whether a serving router of a pair that hears nothing of its public gateway yields to its peer.
    """

    advert_s: Annotated[float, Meta(ge=0, le=LONGEST_ADVERT_S)] = 0
    gateway_probe: bool = False


def parse(text: bytes) -> Settings:
    """Return the settings; Rejected names the field that is wrong, or that there is none of."""
    try:
        settings = msgspec.json.decode(text, type=Settings)
    except msgspec.DecodeError as error:
        raise Rejected(f"{PATH}: {error}") from error
    if 0 < settings.advert_s < SHORTEST_ADVERT_S:
        raise Rejected(f"{PATH}: advert_s: less than {SHORTEST_ADVERT_S} s is more than keepalived can keep")
    if settings.advert_s >= 1 and not settings.advert_s.is_integer():
        raise Rejected(f"{PATH}: advert_s: {settings.advert_s:g} s: from one second on it has to be a whole number")
    return settings
