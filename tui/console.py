"""The line console: somebody signs in, says words, and is signed out, however it ends.

There is one way in (a name and a password, or a token, that the gateway knows) and there are many ways out: ``quit``, Ctrl-D, nobody
typing for a while, a connection that goes away, a session that the gateway ended. All of them sign out; none of them leads to anything
else on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.client import Client, ClientError, NotAllowed, Refused, Unknown
from tui import views
from tui.doing import DOING, Here, Leave, Names, not_for
from tui.terminal import Closed, HungUp, Idle, Terminal
from tui.words import Wrong, completions, read

MOST_TRIES: Final = 5
"""Failed attempts to sign in, after which it ends; the gateway itself makes each further one wait."""
Maker = Callable[[str], Client]
"""A client with this token."""


class Console:
    """One person at one terminal."""

    def __init__(self, terminal: Terminal, make: Maker) -> None:
        self._terminal, self._make = terminal, make
        self._names: Names | None = None

    def run(self) -> int:
        """Sign in, do what is said, sign out. The exit code."""
        try:
            return self._sessions()
        except Closed:
            return 0
        except KeyboardInterrupt:
            return 130
        except Idle:
            self._terminal.say("", "nobody has typed for a while")
            return 0
        except HungUp:
            return 129

    def _completions(self, line: str) -> list[str]:
        return completions(line, self._names) if self._names is not None else []

    def _sessions(self) -> int:
        """One session after the other, until whoever it is leaves."""
        while True:
            self._terminal.begin(self._completions)
            here = self._sign_in()
            if here is None:
                return 1
            try:
                self._names = Names(here.client)
                self._terminal.say("", f"{here.account.name}, {here.account.role}. 'help' lists the words, 'quit' leaves.", "")
                self._loop(here)
                return 0
            except Unknown as ended:
                self._terminal.say(*views.refusal(ended, self._terminal.width), "sign in again, or Ctrl-D")
            finally:
                self._names = None
                _sign_out(here)

    def _sign_in(self) -> Here | None:
        self._terminal.say("Sign in as a user of the gateway. With a token, leave the user empty.")
        for _ in range(MOST_TRIES):
            client: Client | None = None
            try:
                client = self._make("")
                name = self._terminal.ask("User: ", remembered=False).strip()
                here, client = self._enter(client, name), None
                return here
            except Wrong as wrong:
                self._terminal.say(str(wrong))
            except Refused as refused:
                self._terminal.say(*views.refusal(refused, self._terminal.width))
            except ClientError as error:
                self._terminal.say(f"the gateway does not answer: {error}")
            finally:
                if client is not None:
                    client.close()
        self._terminal.say("too many attempts")
        return None

    def _enter(self, client: Client, name: str) -> Here:
        if not name:
            return self._enter_by_token(client)
        client.sign_in(name, self._terminal.ask_hidden("Password: "))
        try:
            return self._here(client)
        except BaseException:
            client.delete_session()  # nobody will use it
            raise

    def _enter_by_token(self, client: Client) -> Here:
        token = self._terminal.ask_hidden("Token: ").strip()
        if not (token.isascii() and token.isprintable()):
            raise Wrong("that is no token")
        client.close()
        by_token = self._make(token)
        return self._here(by_token)

    def _here(self, client: Client) -> Here:
        try:
            name = client.get_gateway().name
        except NotAllowed:  # a token that was narrowed
            name = ""
        return Here(client, self._terminal, client.get_session(), name)

    def _loop(self, here: Here) -> None:
        """Lines, until whoever types them leaves. Raises Unknown where the session has ended, Closed, Idle, HungUp."""
        line = "status"
        while True:
            try:
                self._do(here, line)
                line = self._terminal.ask(f"{here.gateway}> ")
            except Leave:
                return
            except KeyboardInterrupt:
                line = ""
                self._terminal.say("")

    def _do(self, here: Here, line: str) -> None:
        """Carry out ``line``; what is wrong with it or what the gateway refuses is said."""
        try:
            said = read(line)
            if said is None:
                return
            word, rest = said
            if word.needs and not here.may(word.needs):
                raise Wrong(not_for(here, word.needs, f"'{word.name}'"))
            DOING[word.name](here, rest)
        except Unknown:
            raise
        except Wrong as wrong:
            self._terminal.say(str(wrong))
        except Refused as refused:
            self._terminal.say(*views.refusal(refused, self._terminal.width))
        except ClientError as error:
            self._terminal.say(f"no answer: {error}", "a write that was under way may have been carried out: look before you repeat it")


def _sign_out(here: Here) -> None:
    """End the session at the gateway. Nothing interrupts it; a token stays what it is."""
    here.terminal.end()  # begin() listens again
    with here.client:
        if here.account.session is None:
            return
        try:
            here.client.delete_session()
            here.terminal.say("signed out")
        except Unknown:
            return  # it had ended
        except ClientError as error:
            here.terminal.say(f"not signed out, the session ends by itself: {error}")
