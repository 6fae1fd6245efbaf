"""A serial line on a machine that has none: a pseudo-terminal whose far end is a TCP connection to the field.

    line.py HOST PORT LINK [GROUP]

Runs on a test host with its Python alone. Says to systemd when the line is there; the connection is made anew whenever it ends.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import socket
import sys
import time
import tty
from pathlib import Path


def main(host: str, port: str, link: str, group: str = "dialout") -> None:
    ours, theirs = pty.openpty()  # the line's end stays open, or reading ours would fail between two users
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    shutil.chown(name, group=group)
    Path(name).chmod(0o660)
    Path(link).unlink(missing_ok=True)
    Path(link).symlink_to(name)
    with contextlib.suppress(KeyError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        try:
            with socket.create_connection((host, int(port))) as field:
                carry(ours, field)
        except OSError:
            time.sleep(0.5)


def carry(line: int, field: socket.socket) -> None:
    """Bytes both ways, until the field goes."""
    while True:
        for ready in select.select([line, field], [], [])[0]:
            if ready is field:
                if not (chunk := field.recv(4096)):
                    return
                os.write(line, chunk)
            else:
                field.sendall(os.read(line, 4096))


if __name__ == "__main__":
    main(*sys.argv[1:])
