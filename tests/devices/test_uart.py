# SPDX-License-Identifier: GPL-2.0-or-later
"""The 16550A by the PC16550D data sheet: registers, FIFO, interrupts and their priority, loopback, back-pressure."""

from __future__ import annotations

import pytest

from emu.devices.uart import Uart

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
FCR = IIR
NONE, MODEM, TRANSMITTER, RECEIVED, TIMEOUT, LINE = 0x01, 0x00, 0x02, 0x04, 0x0C, 0x06
OUT2, LOOP = 0x08, 0x10


class Port:
    """A UART at port 0 with everything it did: bytes sent and rising edges of its interrupt line."""

    def __init__(self) -> None:
        self.sent, self.edges, self.line = bytearray(), 0, False
        self.uart = Uart(0x3F8, self.sent.extend, self._set_line)

    def _set_line(self, high: bool) -> None:
        self.edges += high and not self.line
        self.line = high

    def write(self, register: int, *values: int) -> None:
        for value in values:
            self.uart.write(0x3F8 + register, 1, value)
            self.uart.check()

    def read(self, register: int) -> int:
        value = self.uart.read(0x3F8 + register, 1)
        self.uart.check()
        return value


@pytest.fixture
def port() -> Port:
    return Port()


def test_power_on_registers(port: Port) -> None:
    assert [port.read(register) for register in (IER, IIR, LCR, MCR, LSR)] == [0, NONE, 0, 0, 0x60]


def test_bytes_are_sent_at_once_and_in_order(port: Port) -> None:
    for byte in b"hello":
        assert port.read(LSR) & 0x60 == 0x60
        port.write(DATA, byte)
    assert port.sent == b"hello"


def test_divisor_hides_data_and_ier(port: Port) -> None:
    port.write(LCR, 0x83)
    port.write(DATA, 0x34)
    port.write(IER, 0x12)
    assert (port.read(DATA), port.read(IER)) == (0x34, 0x12)
    port.write(LCR, 0x03)
    assert port.read(IER) == 0
    assert port.sent == b""


def test_unused_bits_and_scratch(port: Port) -> None:
    port.write(IER, 0xFF)
    port.write(MCR, 0xFF & ~LOOP)
    port.write(SCRATCH, 0xA5)
    assert (port.read(IER), port.read(MCR), port.read(SCRATCH)) == (0x0F, 0x0F, 0xA5)


def test_one_byte_at_a_time_without_fifo(port: Port) -> None:
    assert port.uart.room() == 1
    assert port.uart.receive(b"abc") == 1
    assert port.uart.room() == 0
    assert port.uart.receive(b"bc") == 0
    assert port.read(LSR) & 0x01
    assert port.read(DATA) == ord("a")
    assert not port.read(LSR) & 0x01
    assert port.uart.room() == 1


def test_sixteen_bytes_with_fifo(port: Port) -> None:
    port.write(FCR, 0x01)
    assert port.read(IIR) & 0xC0 == 0xC0
    assert port.uart.receive(bytes(range(20))) == 16
    assert [port.read(DATA) for _ in range(16)] == list(range(16))


@pytest.mark.parametrize("control", [0x03, 0x00])
def test_fifo_is_emptied_by_its_clear_bit_and_by_switching_it(port: Port, control: int) -> None:
    port.write(FCR, 0x01)
    port.uart.receive(b"abc")
    port.write(FCR, control)
    assert not port.read(LSR) & 0x01


@pytest.mark.parametrize(("bits", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_trigger_level_and_timeout_below_it(port: Port, bits: int, level: int) -> None:
    port.write(FCR, 0x01 | bits)
    port.write(IER, 0x01)
    port.uart.receive(bytes(level))
    assert port.read(IIR) & 0x0F == RECEIVED
    if level > 1:
        port.read(DATA)
        assert port.read(IIR) & 0x0F == TIMEOUT


def test_interrupt_for_data_that_waits_already(port: Port) -> None:
    port.uart.receive(b"a")
    assert not port.line
    port.write(IER, 0x01)
    assert port.line
    assert port.read(IIR) == RECEIVED
    port.read(DATA)
    assert not port.line
    assert port.read(IIR) == NONE


@pytest.mark.parametrize("control", [0x00, OUT2, LOOP, LOOP | OUT2])
def test_out2_and_loopback_gate_nothing(port: Port, control: int) -> None:
    """As in QEMU, and unlike a PC: kernels that never set OUT2 get their input."""
    port.write(MCR, control)
    port.write(IER, 0x01)
    assert not port.line
    if control & LOOP:
        port.write(DATA, 0x41)
    else:
        port.uart.receive(b"a")
    assert port.line
    assert port.read(IIR) == RECEIVED
    assert port.read(MCR) == control
    port.read(DATA)
    assert not port.line


def test_empty_transmitter_interrupts_until_iir_tells(port: Port) -> None:
    port.write(MCR, OUT2)
    port.write(IER, 0x02)
    assert port.line
    assert port.read(IIR) == TRANSMITTER
    assert not port.line
    assert port.read(IIR) == NONE
    port.write(DATA, 0x41)
    assert port.read(IIR) == TRANSMITTER


def test_each_byte_sent_gives_a_new_edge(port: Port) -> None:
    """A handler that writes the next byte without reading IIR relies on it: the 8259 sees edges only."""
    port.write(MCR, OUT2)
    port.write(IER, 0x02)
    before = port.edges
    port.write(DATA, *b"xyz")
    assert port.edges == before + 3


def test_ier_that_stays_on_does_not_raise_the_transmitter_again(port: Port) -> None:
    port.write(IER, 0x02)
    port.read(IIR)
    port.write(IER, 0x03)
    assert port.read(IIR) == NONE


def test_priority_of_causes(port: Port) -> None:
    port.write(MCR, LOOP)
    port.write(IER, 0x0F)
    port.write(DATA, 0x41, 0x42)  # the second overruns the first
    port.write(MCR, LOOP | 0x02)  # CTS changes
    seen = [port.read(IIR)]
    assert port.read(LSR) & 0x02
    seen.append(port.read(IIR))
    port.read(DATA)
    seen.append(port.read(IIR))
    seen.append(port.read(IIR))
    port.read(MSR)
    seen.append(port.read(IIR))
    assert seen == [LINE, RECEIVED, TRANSMITTER, MODEM, NONE]


def test_iir_read_for_another_cause_keeps_the_transmitter_pending(port: Port) -> None:
    port.write(IER, 0x03)
    port.uart.receive(b"a")
    assert port.read(IIR) == RECEIVED
    port.read(DATA)
    assert port.read(IIR) == TRANSMITTER


def test_loopback_returns_bytes_and_modem_lines(port: Port) -> None:
    port.write(MCR, LOOP | 0x0A)  # what Linux tries: RTS and OUT2
    assert port.read(MSR) & 0xF0 == 0x90
    port.write(DATA, 0x5A)
    assert port.read(DATA) == 0x5A
    assert port.sent == b""


def test_nothing_is_received_from_outside_in_loopback(port: Port) -> None:
    port.write(MCR, LOOP)
    assert port.uart.room() == 0
    assert port.uart.receive(b"a") == 0
    port.write(MCR, 0)
    assert port.uart.receive(b"a") == 1


def test_overrun_without_fifo_keeps_the_later_byte_and_is_told_once(port: Port) -> None:
    port.write(MCR, LOOP)
    port.write(DATA, 0x41, 0x42)
    assert port.read(LSR) & 0x02
    assert not port.read(LSR) & 0x02
    assert port.read(DATA) == 0x42


def test_overrun_with_fifo_keeps_the_earlier_bytes(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(MCR, LOOP)
    port.write(DATA, *range(17))
    assert port.read(LSR) & 0x02
    assert [port.read(DATA) for _ in range(16)] == list(range(16))


def test_modem_status_changes_are_told_once(port: Port) -> None:
    assert port.read(MSR) == 0xB0
    port.write(MCR, LOOP | 0x04)  # CTS, DSR and DCD drop, RI rises
    assert port.read(MSR) == 0x40 | 0x0B
    assert port.read(MSR) == 0x40
    port.write(MCR, LOOP)
    assert port.read(MSR) == 0x04  # the end of a ring


def test_reset_is_power_on(port: Port) -> None:
    port.write(MCR, OUT2)
    port.write(IER, 0x01)
    port.uart.receive(b"a")
    port.uart.reset()
    assert not port.line
    assert [port.read(register) for register in (IER, IIR, LCR, MCR, LSR, MSR)] == [0, NONE, 0, 0, 0x60, 0xB0]
