# SPDX-License-Identifier: GPL-2.0-or-later
"""The local APIC by the manual: priorities, messages to itself, the timer in virtual time, and who gets the 8259's requests."""

from __future__ import annotations

import pytest

from emu.devices import apic as a
from emu.devices.clock import NEVER
from tests.devices.helpers import Bench

SELF = a.TO_SELF << 18
DIVIDE_BY_1, DIVIDE_BY_2 = 0xB, 0x0


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.board.apic.write(a.SVR, a.SVR_ENABLE | 0xEF)
    return made


def send(bench: Bench, vector: int) -> None:
    bench.board.apic.write(a.ICR_LOW, SELF | vector)


def start_timer(bench: Bench, entry: int, count: int, divide: int = DIVIDE_BY_1) -> None:
    bench.board.apic.write(a.DIVIDE, divide)
    bench.board.apic.write(a.LVT_TIMER, entry)
    bench.board.apic.write(a.INITIAL, count)


def test_power_on_state() -> None:
    apic = Bench().board.apic
    assert apic.base == 0xFEE0_0900
    assert apic.read(a.SVR) == 0xFF
    assert apic.read(a.DFR) == 0xFFFF_FFFF
    assert [apic.read(register) for register in a.LVT_BITS] == [a.LVT_MASKED] * 6
    assert apic.read(a.VERSION_REGISTER) == 0x0005_0014
    assert apic.passes_pic


def test_disabled_by_software_it_takes_nothing_and_keeps_its_masks() -> None:
    bench = Bench()
    send(bench, 0x61)
    bench.board.apic.write(a.LVT_TIMER, 0x40)
    assert not bench.board.has_interrupt()
    assert bench.board.apic.read(a.LVT_TIMER) == a.LVT_MASKED | 0x40


def test_higher_classes_interrupt_and_equal_ones_wait_for_the_end(bench: Bench) -> None:
    apic = bench.board.apic
    send(bench, 0x61)
    assert bench.board.acknowledge() == 0x61
    send(bench, 0x6F)
    assert not bench.board.has_interrupt()
    assert apic.read(a.PPR) == 0x60
    send(bench, 0x70)
    assert bench.board.acknowledge() == 0x70
    apic.write(a.EOI, 0)
    assert not bench.board.has_interrupt()
    apic.write(a.EOI, 0)
    assert bench.board.acknowledge() == 0x6F


def test_task_priority_holds_its_class_and_lower(bench: Bench) -> None:
    apic = bench.board.apic
    send(bench, 0x61)
    apic.task_priority = 6
    assert apic.read(a.TPR) == 0x60
    assert not bench.board.has_interrupt()
    apic.write(a.TPR, 0x5F)
    assert apic.task_priority == 5
    assert bench.board.has_interrupt()


def test_a_request_that_went_away_gives_the_spurious_vector(bench: Bench) -> None:
    assert bench.board.apic.acknowledge() == 0xEF
    assert bench.board.apic.read(a.PPR) == 0


@pytest.mark.parametrize(
    ("command", "destination", "arrives"),
    [(0x61, 0, True), (0x61, 0xFF, True), (0x61, 3, False), (0x8_0061, 0, True), (0xC_0061, 0, False), (0x561, 0, False)],
)
def test_where_messages_go(bench: Bench, command: int, destination: int, arrives: bool) -> None:
    bench.board.apic.write(a.ICR_HIGH, destination << 24)
    bench.board.apic.write(a.ICR_LOW, command)
    assert bench.board.has_interrupt() == arrives


@pytest.mark.parametrize(
    ("model", "destination", "arrives"), [(0xF, 2, True), (0xF, 1, False), (0, 0x12, True), (0, 0x22, False)]
)
def test_logical_destinations(bench: Bench, model: int, destination: int, arrives: bool) -> None:
    apic = bench.board.apic
    apic.write(a.DFR, model << 28)
    apic.write(a.LDR, 0x12 << 24)
    apic.write(a.ICR_HIGH, destination << 24)
    apic.write(a.ICR_LOW, a.ICR_LOGICAL | 0x61)
    assert bench.board.has_interrupt() == arrives


def test_nmi_is_taken_once(bench: Bench) -> None:
    bench.board.apic.write(a.ICR_LOW, SELF | a.NMI << 8)
    assert bench.board.has_nmi()
    bench.board.take_nmi()
    assert not bench.board.has_nmi()


def test_illegal_vectors_are_errors(bench: Bench) -> None:
    apic = bench.board.apic
    apic.write(a.LVT_ERROR, 0x50)
    send(bench, 0x0F)
    assert bench.board.acknowledge() == 0x50
    assert apic.read(a.ESR) == 0
    apic.write(a.ESR, 0)
    assert apic.read(a.ESR) == a.SEND_ILLEGAL


def test_one_shot(bench: Bench) -> None:
    start_timer(bench, 0x40, 100, DIVIDE_BY_2)
    assert bench.board.next_event() == 200
    bench.run_to(101)
    assert bench.board.apic.read(a.CURRENT) == 50
    bench.run_to(199)
    assert not bench.board.has_interrupt()
    bench.run_to(200)
    assert bench.board.acknowledge() == 0x40
    assert bench.board.apic.read(a.CURRENT) == 0
    assert bench.board.next_event() == NEVER


def test_periodic_does_not_drift(bench: Bench) -> None:
    start_timer(bench, a.LVT_PERIODIC | 0x40, 100)
    bench.run_to(350)
    assert bench.board.acknowledge() == 0x40
    bench.board.apic.write(a.EOI, 0)
    assert not bench.board.has_interrupt()
    assert bench.board.next_event() == 400
    bench.board.apic.write(a.INITIAL, 0)
    assert (bench.board.next_event(), bench.board.apic.read(a.CURRENT)) == (NEVER, 0)


def test_masked_timer_counts_in_silence(bench: Bench) -> None:
    start_timer(bench, a.LVT_MASKED | 0x40, 100)
    assert bench.board.next_event() == NEVER
    bench.run_to(40)
    assert bench.board.apic.read(a.CURRENT) == 60
    bench.run_to(200)
    assert not bench.board.has_interrupt()


def test_8259_passes_by_lint0(bench: Bench) -> None:
    bench.start_pics()
    bench.board.set_line(4, True)
    assert not bench.board.has_interrupt()
    bench.board.apic.write(a.LVT_LINT0, a.EXTINT << 8)
    assert bench.board.acknowledge() == 0x24
    bench.board.apic.write(a.LVT_LINT0, a.LVT_MASKED | a.EXTINT << 8)
    assert not bench.board.apic.passes_pic


def test_base_register(bench: Bench) -> None:
    apic = bench.board.apic
    assert not apic.write_base(0xFEE0_0901)
    assert not apic.write_base(0xFED0_0900)
    send(bench, 0x61)
    assert apic.write_base(0xFEE0_0100)
    assert (apic.is_enabled, apic.read(a.ID), apic.passes_pic) == (False, 0xFFFF_FFFF, True)
    assert apic.write_base(0xFEE0_0900)
    assert apic.read(a.SVR) == 0xFF
    assert not bench.board.has_interrupt()


def test_a_request_of_the_8259_is_an_nmi_where_lint0_says_so(bench: Bench) -> None:
    board = bench.board
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)):
        board.ports.write(port, 1, value)
    board.apic.write(a.SVR, a.SVR_ENABLE | 0xFF)
    board.apic.write(a.LVT_LINT0, a.NMI << 8)
    assert board.may_send_nmi()
    board.pic.set_line(0, False)
    board.pic.set_line(0, True)
    assert board.has_nmi()
    assert not board.has_interrupt()
    board.take_nmi()
    board.pic.set_line(0, False)
    board.pic.set_line(0, True)  # the 8259 asks all the time
    assert not board.has_nmi()


def test_what_may_send_an_nmi(bench: Bench) -> None:
    board = bench.board
    assert not board.may_send_nmi()
    board.ioapic.write(0, 0x10 + 2 * 4)
    board.ioapic.write(0x10, a.NMI << 8)
    assert board.may_send_nmi()
    board.ioapic.write(0x10, a.NMI << 8 | a.LVT_MASKED)
    assert not board.may_send_nmi()
