# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8259A pair by its data sheet: initialization, nesting, ends of interrupt, rotation, masks, polling, cascade, ELCR."""

from __future__ import annotations

import pytest

from emu.devices.pic import PicPair

MASTER, SLAVE = 0x20, 0xA0
EOI, SPECIFIC_EOI, ROTATE_ON_EOI, ROTATE_ON_SPECIFIC, SET_PRIORITY, ROTATE_AUTO = 0x20, 0x60, 0xA0, 0xE0, 0xC0, 0x80
POLL, READ_IRR, READ_ISR, SET_SPECIAL_MASK, CLEAR_SPECIAL_MASK = 0x0C, 0x0A, 0x0B, 0x68, 0x48
AUTO_EOI, SPECIAL_NESTED = 0x03, 0x11


class Pics:
    """An initialized pair with all lines unmasked."""

    def __init__(self, icw4: int = 0x01) -> None:
        self.pair = PicPair()
        for port, words in ((MASTER, (0x11, 0x20, 0x04, icw4)), (SLAVE, (0x11, 0x28, 0x02, icw4))):
            self.command(words[0], port)
            self.data(*words[1:], port=port)
            self.data(0, port=port)

    def command(self, value: int, port: int = MASTER) -> None:
        self.pair.write(port, 1, value)

    def data(self, *values: int, port: int = MASTER) -> None:
        for value in values:
            self.pair.write(port + 1, 1, value)

    def register(self, select: int, port: int = MASTER) -> int:
        self.command(select, port)
        return self.pair.read(port, 1)

    def pulse(self, *irqs: int) -> None:
        for irq in irqs:
            self.pair.set_line(irq, False)
            self.pair.set_line(irq, True)

    def take(self) -> int:
        """Acknowledge; returns the IRQ."""
        assert self.pair.has_interrupt()
        irq = self.pair.acknowledge() - 0x20
        self.pair.check()
        return irq


@pytest.fixture
def pics() -> Pics:
    return Pics()


def test_nothing_is_asked_for_without_a_request(pics: Pics) -> None:
    assert not pics.pair.has_interrupt()


@pytest.mark.parametrize("irq", [0, 1, 3, 7, 8, 12, 15])
def test_vector_and_service(pics: Pics, irq: int) -> None:
    pics.pulse(irq)
    assert pics.take() == irq
    assert not pics.pair.has_interrupt()
    assert pics.register(READ_ISR) == (1 << irq if irq < 8 else 1 << 2)
    assert pics.register(READ_ISR, SLAVE) == (1 << irq) >> 8


def test_fixed_priority_and_nesting(pics: Pics) -> None:
    pics.pulse(5, 3)
    assert pics.take() == 3
    assert not pics.pair.has_interrupt()
    pics.pulse(1)
    assert pics.take() == 1
    pics.command(EOI)
    pics.command(EOI)
    assert pics.take() == 5


def test_slave_comes_between_irq_1_and_irq_3(pics: Pics) -> None:
    pics.pulse(3, 8, 1)
    assert pics.take() == 1
    pics.command(EOI)
    assert pics.take() == 8
    pics.command(EOI, SLAVE)
    pics.command(EOI)
    assert pics.take() == 3


def test_mask_holds_back_but_keeps_the_request(pics: Pics) -> None:
    pics.data(0x08)
    assert pics.pair.read(MASTER + 1, 1) == 0x08
    pics.pulse(3)
    assert not pics.pair.has_interrupt()
    assert pics.register(READ_IRR) == 0x08
    pics.data(0x00)
    assert pics.take() == 3


def test_an_edge_is_served_once_while_the_line_stays_up(pics: Pics) -> None:
    pics.pulse(4)
    assert pics.take() == 4
    pics.command(EOI)
    pics.pair.set_line(4, True)
    assert not pics.pair.has_interrupt()
    pics.pulse(4)
    assert pics.take() == 4


def test_specific_eoi_retires_the_named_line(pics: Pics) -> None:
    pics.pulse(5)
    pics.take()
    pics.pulse(2 + 1)
    pics.take()
    pics.command(SPECIFIC_EOI | 5)
    assert pics.register(READ_ISR) == 0x08


def test_rotation_on_eoi_makes_the_served_line_the_lowest(pics: Pics) -> None:
    pics.pulse(3)
    pics.take()
    pics.command(ROTATE_ON_EOI)
    pics.pulse(3, 4)
    assert pics.take() == 4


def test_rotation_on_specific_eoi_and_set_priority(pics: Pics) -> None:
    pics.command(SET_PRIORITY | 4)
    pics.pulse(4, 5)
    assert pics.take() == 5
    pics.command(ROTATE_ON_SPECIFIC | 5)
    pics.pulse(5, 6)
    assert pics.take() == 6


def test_automatic_eoi_leaves_nothing_in_service() -> None:
    pics = Pics(AUTO_EOI)
    pics.pulse(3, 5)
    assert pics.take() == 3
    assert pics.register(READ_ISR) == 0
    assert pics.take() == 5


def test_automatic_eoi_with_rotation() -> None:
    pics = Pics(AUTO_EOI)
    pics.command(ROTATE_AUTO)
    pics.pulse(3)
    assert pics.take() == 3
    pics.pulse(3, 6)
    assert pics.take() == 6


def test_special_mask_lets_lower_lines_through(pics: Pics) -> None:
    pics.pulse(3)
    pics.take()
    pics.pulse(6)
    assert not pics.pair.has_interrupt()
    pics.data(0x08)
    pics.command(SET_SPECIAL_MASK)
    assert pics.take() == 6
    pics.command(EOI)  # retires 6: a line masked in special mask mode is not touched
    assert pics.register(READ_ISR) == 0x08
    pics.pulse(6)
    pics.command(CLEAR_SPECIAL_MASK)
    assert not pics.pair.has_interrupt()


def test_special_nesting_lets_a_higher_slave_line_in() -> None:
    for icw4, nests in ((0x01, False), (SPECIAL_NESTED, True)):
        pics = Pics(icw4)
        pics.pulse(12)
        assert pics.take() == 12
        pics.pulse(8)
        assert pics.pair.has_interrupt() == nests


def test_special_nesting_concerns_the_cascade_line_of_the_master_only() -> None:
    pics = Pics(SPECIAL_NESTED)
    pics.pulse(10)
    assert pics.take() == 10
    pics.pulse(10)
    assert not pics.pair.has_interrupt()


def test_poll_acknowledges(pics: Pics) -> None:
    assert pics.register(POLL) & 0x80 == 0
    pics.pulse(6)
    assert pics.register(POLL) == 0x86
    assert pics.pair.read(MASTER, 1) == 0  # the poll was for one read; IRR again
    assert pics.register(READ_ISR) == 0x40
    assert not pics.pair.has_interrupt()


def test_polling_the_slave_lets_its_next_line_reach_the_master() -> None:
    pics = Pics(AUTO_EOI)
    pics.pulse(8, 9)
    assert pics.register(POLL) == 0x82
    assert pics.register(POLL, SLAVE) == 0x80
    assert pics.take() == 9


def test_spurious_interrupts_are_line_7_of_their_chip(pics: Pics) -> None:
    assert pics.pair.acknowledge() == 0x27
    assert pics.register(READ_ISR) == 0
    pics.pulse(3)
    pics.data(0xFF)  # masked between the request and its acknowledge
    assert pics.pair.acknowledge() == 0x27


def test_spurious_interrupt_of_the_slave_is_served_by_the_master(pics: Pics) -> None:
    pics.pair.write(0x4D1, 1, 0x02)
    pics.pair.set_line(9, True)
    pics.data(0xFF, port=SLAVE)
    assert pics.pair.acknowledge() == 0x2F
    assert pics.register(READ_ISR) == 0x04
    assert pics.register(READ_ISR, SLAVE) == 0


def test_two_slave_lines_in_turn(pics: Pics) -> None:
    pics.pulse(14, 9)
    assert pics.take() == 9
    pics.command(EOI, SLAVE)
    pics.command(EOI)
    assert pics.take() == 14


def test_level_triggered_line_asks_until_it_drops(pics: Pics) -> None:
    pics.pair.write(0x4D0, 1, 0xFF)
    assert pics.pair.read(0x4D0, 1) == 0xF8  # timer, keyboard and cascade stay edge-triggered
    pics.pair.set_line(5, True)
    assert pics.take() == 5
    pics.command(EOI)
    assert pics.take() == 5
    pics.command(EOI)
    pics.pair.set_line(5, False)
    assert not pics.pair.has_interrupt()


def test_trigger_mode_takes_effect_on_the_line_as_it_is(pics: Pics) -> None:
    pics.pulse(5)
    pics.take()
    pics.command(EOI)
    pics.pair.write(0x4D0, 1, 0x20)
    assert pics.take() == 5
    pics.pair.write(0x4D0, 1, 0x00)
    pics.pulse(6)
    pics.pair.set_line(6, False)
    pics.pair.write(0x4D0, 1, 0x40)
    pics.pair.check()
    assert pics.register(READ_IRR) & 0x40 == 0


def test_icw1_forgets_edges_and_masks_but_not_levels(pics: Pics) -> None:
    pics.pair.write(0x4D0, 1, 0x20)
    pics.pair.set_line(5, True)
    pics.pulse(3)
    pics.data(0xFF)
    pics.command(0x11)
    pics.data(0x40, 0x04, 0x01)
    assert pics.pair.read(MASTER + 1, 1) == 0
    assert pics.pair.acknowledge() == 0x45
    assert pics.register(READ_IRR) == 0x20


def test_icw3_and_icw4_are_only_expected_when_announced(pics: Pics) -> None:
    pics.command(0x12)  # single, no ICW4
    pics.data(0x30, 0x81)
    assert pics.pair.read(MASTER + 1, 1) == 0x81
    pics.command(0x10)
    pics.data(0x30, 0x04, 0x42)
    assert pics.pair.read(MASTER + 1, 1) == 0x42


def test_no_interrupt_while_initialization_words_are_due(pics: Pics) -> None:
    pics.command(0x11)
    pics.pulse(4)
    assert not pics.pair.has_interrupt()
    pics.data(0x20, 0x04, AUTO_EOI)
    assert pics.take() == 4
    assert pics.register(READ_ISR) == 0
