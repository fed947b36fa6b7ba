"""A 16550A serial port: COM1, the guest's console (National PC16550D data sheet).

Transmission takes no time, so the transmitter is always empty. Received bytes are handed over one at a time while the FIFO
is off, sixteen while it is on; the sender waits until there is room, so nothing is ever overrun. The character timeout comes
at once: whatever waits below the trigger level raises it.

Invariants (asserted by `check`):

1. No more bytes wait than there is room for.
2. The interrupt line is high just when IIR names a cause and OUT2 lets it through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from emu.errors import BrokenInvariantError

FIFO_BYTES = 16
DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
IER_RECEIVED, IER_TRANSMITTER, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_TRANSMITTER, IIR_RECEIVED, IIR_LINE, IIR_TIMEOUT = 1, 0, 2, 4, 6, 12
IIR_FIFO = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
TRIGGER_LEVELS = (1, 4, 8, 14)
LCR_DIVISOR = 0x80
MCR_LOOP, MCR_OUT2, MCR_MASK = 0x10, 0x08, 0x1F
LSR_READY, LSR_TRANSMITTER_EMPTY = 0x01, 0x60
MSR_CONNECTED = 0xB0  # CTS, DSR, DCD: someone is at the other end


class Uart:
    """The port at `base`; `send` gets each byte that goes out, `set_irq` the level of the interrupt line."""

    def __init__(self, base: int, send: Callable[[bytes], None], set_irq: Callable[[bool], None]) -> None:
        self.ports = range(base, base + 8)
        self._send = send
        self._set_irq = set_irq
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self._received: deque[int] = deque()
        self._ier = self._fcr = self._lcr = self._mcr = self._scratch = 0
        self._divisor = 12  # 9600 baud; kept for reading back
        self._transmitter_due = False  # the empty transmitter was not yet reported by IIR
        self._is_high = False
        self._update()

    # ---- the outside ----

    def room(self) -> int:
        """How many bytes can be received now."""
        if self._mcr & MCR_LOOP:
            return 0
        return (FIFO_BYTES if self._fcr & FCR_ENABLE else 1) - len(self._received)

    def receive(self, data: bytes) -> int:
        """Take as many bytes as there is room for; returns how many."""
        taken = data[: max(0, self.room())]
        self._received.extend(taken)
        self._update()
        return len(taken)

    # ---- the guest ----

    def _cause(self) -> int:
        """What IIR says, by priority."""
        if self._ier & IER_RECEIVED and self._received:
            level = TRIGGER_LEVELS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
            return IIR_RECEIVED if len(self._received) >= level else IIR_TIMEOUT
        if self._ier & IER_TRANSMITTER and self._transmitter_due:
            return IIR_TRANSMITTER
        return IIR_NONE

    def _update(self) -> None:
        self._is_high = self._cause() != IIR_NONE and bool(self._mcr & MCR_OUT2)
        self._set_irq(self._is_high)

    def read(self, port: int, _size: int) -> int:
        """IN of a register."""
        register = port & 7
        if register in (DATA, IER) and self._lcr & LCR_DIVISOR:
            return self._divisor >> 8 * register & 0xFF
        if register == DATA:
            return self._take()
        if register == IIR_FCR:
            return self._identify()
        if register == MSR:
            return self._modem_status()
        if register == LSR:
            return LSR_TRANSMITTER_EMPTY | (LSR_READY if self._received else 0)
        return {IER: self._ier, LCR: self._lcr, MCR: self._mcr}.get(register, self._scratch)

    def _take(self) -> int:
        byte = self._received.popleft() if self._received else 0
        self._update()
        return byte

    def _identify(self) -> int:
        cause = self._cause()
        if cause == IIR_TRANSMITTER:
            self._transmitter_due = False
            self._update()
        return cause | (IIR_FIFO if self._fcr & FCR_ENABLE else 0)

    def _modem_status(self) -> int:
        if not self._mcr & MCR_LOOP:
            return MSR_CONNECTED
        # Looped back: RTS, DTR, OUT1, OUT2 appear as CTS, DSR, RI, DCD.
        mcr = self._mcr
        return (mcr >> 1 & 1) << 4 | (mcr & 1) << 5 | (mcr >> 2 & 1) << 6 | (mcr >> 3 & 1) << 7

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT to a register."""
        register = port & 7
        if register in (DATA, IER) and self._lcr & LCR_DIVISOR:
            shift = 8 * register
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif register == DATA:
            self._transmit(value)
        elif register == IER:
            self._transmitter_due |= bool(value & ~self._ier & IER_TRANSMITTER)
            self._ier = value & 0x0F
        elif register == IIR_FCR:
            self._control_fifo(value)
        elif register == LCR:
            self._lcr = value
        elif register == MCR:
            self._mcr = value & MCR_MASK
        elif register == SCRATCH:
            self._scratch = value
        self._update()

    def _transmit(self, byte: int) -> None:
        self._transmitter_due = True
        if not self._mcr & MCR_LOOP:
            self._send(bytes([byte]))
        elif len(self._received) < (FIFO_BYTES if self._fcr & FCR_ENABLE else 1):
            self._received.append(byte)

    def _control_fifo(self, value: int) -> None:
        if (value ^ self._fcr) & FCR_ENABLE or value & FCR_CLEAR_RECEIVER:
            self._received.clear()
        self._fcr = value & (FCR_ENABLE | 0xC0) if value & FCR_ENABLE else 0

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError."""
        if len(self._received) > (FIFO_BYTES if self._fcr & FCR_ENABLE else 1):
            raise BrokenInvariantError("16550 invariant 1: more bytes wait than fit")
        if self._is_high != (self._cause() != IIR_NONE and bool(self._mcr & MCR_OUT2)):
            raise BrokenInvariantError("16550 invariant 2: the interrupt line does not follow IIR")
