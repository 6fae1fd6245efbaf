"""RTU over a serial port: no fixed sleeps, no polling, and t3.5 of silence between frames.

Shell. pyserial opens and sets the port; from then on the event loop watches its file descriptor. The end of an answer
is known from its length, so the only pause is the silence that the standard asks for before the next request. A byte
may reach us late (USB adapters gather them), never early, so that silence is never shorter on the wire than counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import termios
from typing import Final

import serial  # type: ignore[import-untyped]  # pyserial has no types

from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.modbus.config import ModbusRtu, bits_per_character
from protocols.modbus.frames import Request, Taken, take_rtu
from protocols.modbus.line import LEAST_QUIET_S, Line
from protocols.modbus.plan import silence_s
from protocols.model import ScanStats

PARITY: Final = {"even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD, "none": serial.PARITY_NONE}
CHUNK: Final = 4096
_PORT_ERRORS: Final = (OSError, serial.SerialException, termios.error)
"""What pyserial lets through. ``termios.error`` is no OSError: it says that a port cannot do what it was set to."""


class SerialLine(Line):
    """See the module's text."""

    def __init__(self, options: ModbusRtu, stats: ScanStats) -> None:
        super().__init__(options, options.serial_port, stats)
        self._options = options
        self._port: serial.Serial | None = None
        self._fd = -1
        self._character_s = bits_per_character(options) / options.baud_rate
        self._silence_s = silence_s(options)
        self._unsent = b""
        self._echo = b""

    async def open(self) -> None:
        """Open the port. Raises Unreachable, Refused or Misfit."""
        options = self._options
        try:
            self._port = serial.Serial(
                options.serial_port,
                options.baud_rate,
                bytesize=options.data_bits,
                parity=PARITY[options.parity],
                stopbits=options.stop_bits,
                timeout=0,
                write_timeout=0,
                exclusive=True,
            )
        except (*_PORT_ERRORS, ValueError) as error:
            raise _open_error(options, error) from error
        with contextlib.suppress(OSError, ValueError, NotImplementedError):  # only some USB adapters have it: 1 ms instead of 16
            self._port.set_low_latency_mode(True)
        self._fd = self._port.fileno()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)
        self._heard_at = self._now()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.tap = None  # that we close is no trouble
        self._fail(Unreachable(f"{self.where}: the port was closed"))
        self._cut()

    def _cut(self) -> None:
        if self._port is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            port, self._port = self._port, None
            with contextlib.suppress(*_PORT_ERRORS):  # an adapter that was pulled cannot be closed properly
                port.close()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("end of file")
            return
        if self._echo:
            data = self._without_echo(data)
        if self.tap is not None and data:
            self.tap.received(data)
        self._received(data)

    def _without_echo(self, data: bytes) -> bytes:
        """The adapter hears us: take our own request off the front, once."""
        size = min(len(data), len(self._echo))
        if data[:size] != self._echo[:size]:
            self._echo = b""
            return data
        self._echo = self._echo[size:]
        return data[size:]

    def _lose(self, why: str) -> None:
        self._fail(Unreachable(f"{self.where}: the port is gone ({why}): check the adapter and its cable"))
        self._cut()

    async def _ready(self, request: Request) -> None:
        await super()._ready(request)
        await self._until(self._heard_at + self._silence_s)

    def _patience(self, request: Request) -> float:
        """The device's time to answer, beyond what both frames take on the wire."""
        return self._timeout_s + (len(request.rtu) + request.expect + 3) * self._character_s

    def _send(self, request: Request) -> None:
        self._echo = request.rtu if self._options.echo else b""
        if self.tap is not None:
            self.tap.sent(request.rtu)
        self._unsent = request.rtu
        self._writable()

    def _writable(self) -> None:
        """Hand the rest of the request to the port; ask to be called again if it is full."""
        if self._port is None:
            return
        try:
            self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if self._unsent:
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._loop.remove_writer(self._fd)

    def _take(self, data: bytes) -> Taken:
        return take_rtu(data, self._request)

    def _garbage(self, taken: Taken, data: bytes) -> None:
        self._noise(taken, data)

    def _spoil(self, quiet_s: float) -> None:
        self._quiet_s = max(self._quiet_s, quiet_s, LEAST_QUIET_S)
        self._heard_at = self._now()

    async def _mend(self) -> None:
        await self._silence()
        self._unsent = self._buffer = self._echo = b""
        if self._port is not None:
            with contextlib.suppress(*_PORT_ERRORS):  # a port that is gone is noticed by the next read
                self._port.reset_input_buffer()
        self._quiet_s = 0.0


def _open_error(options: ModbusRtu, error: Exception) -> DriverError:
    """Foreign errors of opening, translated once."""
    port = options.serial_port
    number = error.args[0] if isinstance(error, termios.error) else getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return Refused(f"{port}: no permission: add the service's user to the group of the port (often dialout)")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Unreachable(f"{port}: no such serial port: check the adapter, or use its /dev/serial/by-id name")
    if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return Unreachable(f"{port}: another program uses it: stop that program")
    if isinstance(error, ValueError) or number == errno.EINVAL:
        return Misfit(f"{port}: the port cannot do these settings ({error}): check baud_rate, parity, data_bits and stop_bits")
    return Unreachable(f"{port}: cannot be opened ({error}): check that it is a serial port")
