"""The board: all devices at their ports and interrupt lines, and what the VMM asks of them together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from emu.devices import apic, cmos, debug, ioapic, pci
from emu.devices.ata import DriveSettings
from emu.devices.clock import NEVER, Clock
from emu.devices.fw_cfg import FwCfg
from emu.devices.guest_memory import GuestMemory
from emu.devices.ide import Ide
from emu.devices.keyboard import KeyboardController
from emu.devices.mmio import MmioBus
from emu.devices.pic import PicPair
from emu.devices.pit import Pit
from emu.devices.ports import PortBus
from emu.devices.printer import Printer
from emu.devices.system import SystemPorts
from emu.devices.uart import Uart
from emu.devices.vga import Vga

COM1_BASE = 0x3F8
IRQ_TIMER, IRQ_COM1, IRQ_RTC, IRQ_IDE = 0, 4, 8, (14, 15)


@dataclass(frozen=True)
class BoardSettings:
    """What the board is built for."""

    insns_per_second: int  # of virtual time
    memory_bytes: int
    start_time: int  # of the RTC, seconds since 1970 UTC
    firmware_files: Mapping[str, bytes]  # fw_cfg files by name
    drives: tuple[DriveSettings, ...] = ()  # of the IDE channels: two of the first, two of the second


class Timed(Protocol):
    """A device that does something of itself at a time."""

    def next_event(self) -> int:
        """Virtual time of that, NEVER if there is nothing."""

    def advance(self) -> None:
        """Do what came due."""


class Signals(Protocol):
    """What devices tell the VMM."""

    def serial_output(self, data: bytes) -> None:
        """COM1 sent bytes."""

    def debug_output(self, data: bytes) -> None:
        """The debug console got bytes."""

    def exit(self, value: int) -> None:
        """The debug-exit port was written."""

    def reset(self) -> None:
        """The reset line was pulled."""

    def moved(self, size: int) -> None:
        """A device moved so many bytes while the processor waited."""


class Board:
    """Everything behind the ports."""

    WIRING: ClassVar = frozenset({"_clock", "ports", "mmio", "_timed"})

    def __init__(self, settings: BoardSettings, clock: Clock, memory: GuestMemory, signals: Signals) -> None:
        self._clock = clock
        self.ports = PortBus()
        self.mmio = MmioBus()
        self.pic = PicPair()
        self.apic = apic.LocalApic(clock)
        self.ioapic = ioapic.IoApic(self.apic)
        self.apic.on_end_of_interrupt = self.ioapic.end_of_interrupt
        self.pic.on_request = self.apic.pic_requests
        self.mmio.register(apic.ADDRESSES, self.apic)
        self.mmio.register(ioapic.ADDRESSES, self.ioapic)
        rate = settings.insns_per_second
        self.pit = Pit(clock, rate, lambda high: self.set_line(IRQ_TIMER, high))
        self.uart = Uart(COM1_BASE, signals.serial_output, lambda high: self.set_line(IRQ_COM1, high))
        self.rtc = cmos.Cmos(clock, rate, settings.start_time, settings.memory_bytes, lambda high: self.set_line(IRQ_RTC, high))
        self.keyboard = KeyboardController(signals.reset)
        self.system = SystemPorts(signals.reset)
        self.printer = Printer()
        self.vga = Vga(clock, rate)
        self.fw_cfg = FwCfg(settings.firmware_files, settings.memory_bytes, memory, signals.moved)
        for device in (self.pic, self.pit, self.keyboard, self.system, self.printer, self.vga):
            for ports in device.PORTS:
                self.ports.register(ports, device)
        self.ports.register(self.uart.ports, self.uart)
        self.ports.register(cmos.PORTS, self.rtc)
        for ports in FwCfg.PORTS:
            self.ports.register(ports, self.fw_cfg, sizes=FwCfg.SIZES)
        self.pci = pci.PciBus()
        self.ports.register(pci.ADDRESS_PORTS, self.pci, sizes=pci.PciBus.ADDRESS_SIZES)
        self.ports.register(pci.DATA_PORTS, self.pci, sizes=pci.PciBus.DATA_SIZES)
        drive_irqs = [functools.partial(self.set_line, irq) for irq in IRQ_IDE]
        self.ide = Ide(self.ports, self.pci.ide, settings.drives, clock, rate, memory, drive_irqs)
        self._timed: list[Timed] = [self.pit, self.rtc, self.apic, *self.ide.timed]
        self.ports.register(debug.EXIT_PORTS, debug.DebugExit(signals.exit), sizes=debug.DebugExit.SIZES)
        self.ports.register(debug.CONSOLE_PORTS, debug.DebugConsole(signals.debug_output))
        self.reset()

    def reset(self) -> None:
        """Power-on state of every device. Interrupt controllers come last: the others' lines going to their levels are no requests."""
        for device in (self.pit, self.uart, self.rtc, self.keyboard, self.system, self.printer, self.vga, self.fw_cfg):
            device.reset()
        self.pci.reset()
        self.ide.reset()
        for controller in (self.pic, self.ioapic, self.apic):
            controller.reset()

    def set_line(self, irq: int, high: bool) -> None:
        """Drive an ISA interrupt's line, which goes to both kinds of controller."""
        self.pic.set_line(irq, high)
        self.ioapic.set_irq(irq, high)

    def next_event(self) -> int:
        """Virtual time at which `advance` is wanted next, NEVER if it is not."""
        due = NEVER  # compared one by one: every port access comes here
        for device in self._timed:
            event = device.next_event()
            due = min(due, event)
        return due

    def advance(self) -> None:
        """Let the devices do what came due. Whoever reads a device's register has it brought up to the present by the device itself."""
        now = self._clock.now()
        for device in self._timed:
            if device.next_event() <= now:
                device.advance()

    def has_interrupt(self) -> bool:
        """Whether the interrupt controllers ask for the processor."""
        return self.pic.has_interrupt() and self.apic.passes_pic or self.apic.has_interrupt()

    def acknowledge(self) -> int:
        """INTA: the vector to deliver."""
        if self.apic.passes_pic and not self.apic.has_interrupt():
            return self.pic.acknowledge()
        return self.apic.acknowledge()

    def has_nmi(self) -> bool:
        """Whether an NMI waits for the processor."""
        return self.apic.has_nmi

    def take_nmi(self) -> None:
        """The processor takes the NMI."""
        self.apic.take_nmi()

    def may_send_nmi(self) -> bool:
        """Whether something of the board can send one while the processor does nothing."""
        return self.has_nmi() or self.apic.makes_nmi_of_pic or self.ioapic.may_send_nmi()

    def serial_room(self) -> int:
        """Bytes that COM1 can receive now."""
        return self.uart.room()

    def receive(self, data: bytes) -> int:
        """Bytes for COM1; returns how many were taken."""
        return self.uart.receive(data)

    def check(self) -> None:
        """Assert the invariants of all devices; raises BrokenInvariantError."""
        self.pic.check()
        self.pit.check()
        self.uart.check()
        self.rtc.check()
        self.apic.check()
        self.ioapic.check()
        self.ide.check()


__all__ = ["NEVER", "Board", "BoardSettings", "GuestMemory", "Signals"]
