"""`python -m holdfast.guest`: the sockets, the paths, and then the service."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.guest.service import Ports, Settings, serve
from holdfast.systemd import inherited

HTTP, HTTPS, PASSWORDS = 8580, 8543, 8588  # of holdfast-guest.socket
_BACKLOG = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 2 if there is no socket to serve on."""
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = [options.http, options.https, options.passwords]
    if any(given):
        ports = Ports(*(_listening(text) if text else None for text in given))
    else:
        sockets = inherited(os.environ)
        ports = Ports(sockets.get(HTTP), sockets.get(HTTPS), sockets.get(PASSWORDS))
    if not any(ports):
        parser.error("no socket from systemd and none named")
    asyncio.run(serve(ports, Settings(options.view, options.state, options.certificate, disc=options.disc)))
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="holdfast-guest", description="Metadata, user data and passwords for guests.")
    for name, what in (("http", "metadata"), ("https", "metadata by TLS"), ("passwords", "passwords")):
        parser.add_argument(
            f"--{name}", metavar="HOST:PORT", help=f"where to serve {what}, instead of systemd's sockets"
        )
    parser.add_argument("--view", type=Path, default=defaults.view, metavar="PATH", help="what guests are to be told")
    parser.add_argument("--state", type=Path, default=defaults.state, metavar="DIR", help="receipts, own certificate")
    parser.add_argument("--certificate", type=Path, default=defaults.certificate, metavar="PATH", help="key and chain")
    parser.add_argument("--disc", type=Path, default=defaults.disc, metavar="DIR", help="mounted disc to be served")
    return parser


def _listening(text: str) -> socket.socket:
    host, _, port = text.rpartition(":")
    return socket.create_server((host, int(port)), backlog=_BACKLOG)


if __name__ == "__main__":
    sys.exit(main())
