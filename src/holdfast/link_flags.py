"""A network device's flags, asked of the kernel without starting a program.  Imports little."""

import fcntl
import socket
import struct

UP, RUNNING = 0x1, 0x40
"""Ordered to be up; carrying (IFF_UP and IFF_RUNNING of netdevice(7)).  The second follows the carrier by up to 1 s."""
_SIOCGIFFLAGS = 0x8913


def link_flags(asked: socket.socket, device: str) -> int:
    """Return the flags as they are now; OSError if there is no such device.

    `asked`: any socket of the device's network namespace.
    """
    answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("40s", device.encode()))
    (flags,) = struct.unpack_from("16xH", answer)
    return int(flags)
