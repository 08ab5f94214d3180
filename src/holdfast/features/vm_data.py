"""Metadata and user data: what each VM may ask about itself."""

import binascii
from base64 import b64encode
from collections.abc import Iterator

from holdfast.errors import Rejected
from holdfast.feature import Blob, Claim, Command, Feature, Gone, Ipv4, Merged, Secret
from holdfast.router import Router
from holdfast.shared import Metadata, VmMetadata

_URL_SAFE = str.maketrans("-_", "+/")


class VmData(Command, frozen=True, kw_only=True, tag="vmdata"):
    """Everything about one VM (WIRE 5.10): folder, name, content; content null is an empty file, "" is none."""

    vm_ip_address: Ipv4
    vm_metadata: tuple[tuple[Blob, Blob, Secret | None], ...]


def merge(bag: Metadata, command: VmData, _router: Router) -> Merged[Metadata]:
    """Replace everything known of one VM."""
    metadata: dict[str, str] = {}
    userdata = None
    warnings = []
    for index, (folder, name, content) in enumerate(command.vm_metadata):
        if content == "":
            continue
        if folder == "metadata" and name:
            metadata[name] = content or ""
        elif folder == "userdata" and name == "user-data":
            userdata = _canonical(content or "", f"vm_metadata[{index}][2]")
        else:
            warnings.append(f"vm_metadata[{index}]: {folder}/{name} is served nowhere: left out")
    vms = dict(bag.vms)
    vms[command.vm_ip_address] = VmMetadata(metadata=metadata, userdata=userdata)
    return Merged(Metadata(vms=vms), warnings=tuple(warnings))


def _canonical(text: str, path: str) -> str:
    """Base64 as RFC 4648 writes it, from text with line breaks, of the alphabet for URLs, or without its padding."""
    plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return b64encode(binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)).decode()
    except (binascii.Error, ValueError) as error:
        raise Rejected("not base64", path) from error


def contribute(_bag: Metadata, _router: Router) -> Iterator[Claim]:
    """Nothing of its own: the guest service's view holds it."""
    yield from ()


def forget(bag: Metadata, gone: Gone) -> Metadata:
    """What is about a VM that is gone is nothing for the next one at its address."""
    return Metadata(vms={address: vm for address, vm in bag.vms.items() if gone.keeps(address)})


FEATURE = Feature("vmdata", (VmData,), Metadata, merge, contribute, forget=forget)
