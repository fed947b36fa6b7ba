"""A 16550A serial port: COM1, the guest's console (National PC16550D data sheet).

Transmission takes no time, so the transmitter is always empty. Received bytes are handed over one at a time while the FIFO
is off, sixteen while it is on; the sender waits until there is room, so only loopback overruns. The character timeout comes at
once: whatever waits below the trigger level raises it. Baud rate, word length, parity and break have no effect.

On a PC the pin OUT2 gates the interrupt, and it is off in loopback. Here OUT2 is kept and gates nothing, as in QEMU: kernels that were
written there never set it, and a driver that does sees no difference.

Invariants (asserted by `check`):

1. No more bytes wait than there is room for.
2. The interrupt line is high just when IIR names a cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

from emu.errors import BrokenInvariantError

FIFO_BYTES = 16
DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
IER_RECEIVED, IER_TRANSMITTER, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_TRANSMITTER, IIR_RECEIVED, IIR_LINE, IIR_TIMEOUT = 1, 0, 2, 4, 6, 12
IIR_FIFO = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
TRIGGER_LEVELS = (1, 4, 8, 14)
LCR_DIVISOR = 0x80
MCR_LOOP, MCR_MASK = 0x10, 0x1F
LSR_READY, LSR_OVERRUN, LSR_TRANSMITTER_EMPTY = 0x01, 0x02, 0x60
MSR_CONNECTED = 0xB0  # CTS, DSR, DCD: someone is at the other end
MSR_RING = 0x40  # of the lines in bits 7-4 (DCD, RI, DSR, CTS); their changes are in bits 3-0, of RI only its end
MSR_CHANGES_SHIFT = 4


class Uart:
    """The port at `base`; `send` gets each byte that goes out, `set_irq` the level of the interrupt line."""

    WIRING: ClassVar = frozenset({"ports", "_send", "_set_irq"})

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
        self._overrun = False  # a byte was lost since LSR was read
        self._modem_lines, self._modem_changes = MSR_CONNECTED, 0  # MSR, bits 7-4 and 3-0
        self._is_high = False
        self._update()

    # ---- the outside ----

    def room(self) -> int:
        """How many bytes can be received now."""
        if self._mcr & MCR_LOOP:
            return 0
        return self._capacity() - len(self._received)

    def _capacity(self) -> int:
        return FIFO_BYTES if self._fcr & FCR_ENABLE else 1

    def receive(self, data: bytes) -> int:
        """Take as many bytes as there is room for; returns how many."""
        taken = data[: self.room()]
        self._received.extend(taken)
        self._update()
        return len(taken)

    # ---- the guest ----

    def _cause(self) -> int:
        """What IIR says, by priority."""
        if self._ier & IER_LINE and self._overrun:
            return IIR_LINE
        if self._ier & IER_RECEIVED and self._received:
            level = TRIGGER_LEVELS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
            return IIR_RECEIVED if len(self._received) >= level else IIR_TIMEOUT
        if self._ier & IER_TRANSMITTER and self._transmitter_due:
            return IIR_TRANSMITTER
        if self._ier & IER_MODEM and self._modem_changes:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        self._is_high = self._cause() != IIR_NONE
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
            return self._line_status()
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

    def _line_status(self) -> int:
        status = LSR_TRANSMITTER_EMPTY | self._overrun * LSR_OVERRUN | bool(self._received) * LSR_READY
        self._overrun = False
        self._update()
        return status

    def _modem_status(self) -> int:
        status, self._modem_changes = self._modem_lines | self._modem_changes, 0
        self._update()
        return status

    def _control_modem(self, value: int) -> None:
        """Set MCR. Looped back, RTS, DTR, OUT1 and OUT2 appear as CTS, DSR, RI and DCD."""
        self._mcr = mcr = value & MCR_MASK
        before, self._modem_lines = self._modem_lines, MSR_CONNECTED
        if mcr & MCR_LOOP:
            self._modem_lines = (mcr >> 1 & 1) << 4 | (mcr & 1) << 5 | (mcr >> 2 & 1) << 6 | (mcr >> 3 & 1) << 7
        changed = (before ^ self._modem_lines) & ~(self._modem_lines & MSR_RING)
        self._modem_changes |= changed >> MSR_CHANGES_SHIFT

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
            self._control_modem(value)
        elif register == SCRATCH:
            self._scratch = value
        self._update()

    def _transmit(self, byte: int) -> None:
        if self._transmitter_due:  # full for a moment: the line drops, and the 8259 sees the next edge
            self._transmitter_due = False
            self._update()
        if self._mcr & MCR_LOOP:
            self._loop_back(byte)
        else:
            self._send(bytes([byte]))
        self._transmitter_due = True

    def _loop_back(self, byte: int) -> None:
        """Receive what was sent; without a FIFO the new byte replaces one that still waits, with it the new one is lost."""
        if len(self._received) == self._capacity():
            self._overrun = True
            if self._fcr & FCR_ENABLE:
                return
            self._received.clear()
        self._received.append(byte)

    def _control_fifo(self, value: int) -> None:
        if (value ^ self._fcr) & FCR_ENABLE or value & FCR_CLEAR_RECEIVER:
            self._received.clear()
        self._fcr = value & (FCR_ENABLE | 0xC0) if value & FCR_ENABLE else 0

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError."""
        if len(self._received) > self._capacity():
            raise BrokenInvariantError("16550 invariant 1: more bytes wait than fit")
        if self._is_high != (self._cause() != IIR_NONE):
            raise BrokenInvariantError("16550 invariant 2: the interrupt line does not follow IIR")
