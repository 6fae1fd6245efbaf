"""``holdfast-console``: the line console as a program."""

from __future__ import annotations

import argparse
import os
import resource
import ssl
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from holdfast.client import Client
from tui.console import Console
from tui.terminal import Terminal

URL: Final = "https://127.0.0.1:8443"
IDLE_S: Final = 900.0
TIMEOUT_S: Final = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console. 0: left; 1: nobody signed in; 2: it cannot start; 129, 130: the terminal went away, Ctrl-C before signing in."""
    wish = _wished(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a password would stand in it
    terminal = Terminal(idle_s=wish.idle_s, ascii_=wish.ascii)
    ca_file: Path | None = wish.ca

    def make(token: str) -> Client:
        return Client(wish.url, token, ca_file=ca_file, timeout_s=TIMEOUT_S)

    try:
        make("").close()
    except (OSError, ssl.SSLError) as error:
        sys.stderr.write(
            f"the gateway's authority cannot be read from {ca_file}: {error}: the gateway writes it when it is started first\n"
        )
        return 2
    code = Console(terminal, make).run()
    _forget_output()
    return code


def _wished(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="holdfast-console", description="A console of lines and words for the gateway's local API.")
    parser.add_argument("--url", default=URL, help="the gateway, https://HOST:PORT (%(default)s)")
    parser.add_argument("--ca", type=Path, help="certificate of the gateway's authority; without it, what the system trusts")
    parser.add_argument("--idle-s", type=_idle, default=IDLE_S, help="sign out when nobody types for so many seconds (%(default)s)")
    parser.add_argument("--ascii", action="store_true", help="the terminal knows nothing but ASCII")
    parser.add_argument("--version", action="version", version=version("holdfast"))
    wish = parser.parse_args(arguments)
    if not wish.url.startswith("https://"):
        parser.error("--url: https:// and the gateway's address: passwords are sent over TLS alone")
    return wish


def _idle(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("1 to 86,400 seconds")
    return seconds


def _forget_output() -> None:
    """What is left in a buffer for a terminal that is gone is no error of the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
