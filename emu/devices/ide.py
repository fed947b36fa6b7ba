"""PIIX3's IDE controller: two channels at the ports of a PC, and their bus masters (Intel 82371FB/SB data sheet, 2.7).

Drive 0 of the first channel is there if the VM has a disk. A channel without a drive reads as zeros, whatever was written, as
QEMU's does: a driver that looks for a drive sees a status with neither BSY nor DRDY and its own writes gone, and gives up at
once. With all ones it would see BSY, and wait.

A bus master's registers, for each channel, at BAR4 of the controller's PCI function, and its table of descriptors in memory:

    +0  command   bit 0 start, bit 3 towards memory
    +2  status    bit 0 active, bit 1 error, bit 2 interrupt (write 1 to clear both), bits 5 and 6 software's
    +4  address of the table, bits 31-2: at most 512 descriptors
    descriptor    u32 address (bit 0 is no part of it), u16 bytes (bit 0 likewise; 0: 64 KiB), u16 with bit 15 at the last one

A transfer begins when the drive has a DMA command, the master is started and the function may master the bus. Descriptors that
hold less than the command wants end both without an interrupt and nothing is moved; if they hold more, the active bit stays set.
What a descriptor points to outside RAM takes nothing and reads as ones. The direction bit is kept and not looked at.

Invariants (asserted by `check`):

1. IRQ 14 is high just when the drive asks for it and nIEN is clear.
2. The bus master's ports are where BAR4 says, if the function's I/O space is on, and nowhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar

from emu.devices import pci
from emu.devices.ata import COMMAND, Drive, DriveSettings
from emu.devices.clock import Clock
from emu.devices.guest_memory import Extent, GuestMemory
from emu.devices.ports import PORTS, PortBus
from emu.errors import BrokenInvariantError
from emu.saving import Giver, Taker

FIRST_CHANNEL, SECOND_CHANNEL = (0x1F0, 0x3F6), (0x170, 0x376)  # command block, and device control
DATA, STATUS = 0, COMMAND
MASTER_PORTS, CHANNEL_MASTER_PORTS = 16, 8
MASTER_COMMAND, MASTER_STATUS, MASTER_TABLE = 0, 2, 4
START, TO_MEMORY = 0x01, 0x08
ACTIVE, FAILED, INTERRUPT, SOFTWARE = 0x01, 0x02, 0x04, 0x60
DESCRIPTOR = struct.Struct("<II")
TABLE_BYTES = 4096
DESCRIPTORS_AT_ONCE = 32
LAST_DESCRIPTOR = 1 << 31


class EmptyChannel:
    """A channel without drives."""

    def read(self, _port: int, _size: int) -> int:
        """IN: zeros."""
        return 0

    def write(self, _port: int, _size: int, _value: int) -> None:
        """OUT: nobody listens."""


class MasterRegisters:
    """One channel's half of the bus master."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self.command = self.status = self.table = 0

    def read(self, offset: int) -> int:
        """A byte."""
        if offset == MASTER_COMMAND:
            return self.command
        if offset == MASTER_STATUS:
            return self.status
        return self.table >> 8 * (offset - MASTER_TABLE) & 0xFF if offset >= MASTER_TABLE else 0

    def write(self, offset: int, value: int) -> None:
        """A byte. A start bit that rises sets ACTIVE, one that falls clears it."""
        if offset == MASTER_COMMAND:
            if (value ^ self.command) & START:
                self.status = self.status | ACTIVE if value & START else self.status & ~ACTIVE
            self.command = value & (START | TO_MEMORY)
        elif offset == MASTER_STATUS:
            kept = self.status & (ACTIVE | FAILED | INTERRUPT) & ~(value & (FAILED | INTERRUPT))
            self.status = kept | value & SOFTWARE
        elif offset >= MASTER_TABLE:
            shift = 8 * (offset - MASTER_TABLE)
            self.table = (self.table & ~(0xFF << shift) | value << shift) & 0xFFFF_FFFC


class Ide:
    """The controller. `function` are its registers in PCI configuration space; `set_irq` drives IRQ 14."""

    WIRING: ClassVar = frozenset({"_ports", "_function", "_memory", "_set_irq"})

    def __init__(
        self,
        ports: PortBus,
        function: pci.Function,
        settings: DriveSettings | None,
        clock: Clock,
        insns_per_second: int,
        memory: GuestMemory,
        set_irq: Callable[[bool], None],
    ) -> None:
        self._ports = ports
        self._function = function
        self._memory = memory
        self._set_irq = set_irq
        self._is_high = False  # IRQ 14
        self._masters = (MasterRegisters(), MasterRegisters())
        self._base: int | None = None  # of the bus master's ports
        self._table_bytes = 0  # in the descriptors of the last transfer
        self.drive: Drive | None = None
        if settings is not None:
            self.drive = Drive(settings, clock, insns_per_second, memory, self)
        function.on_change = self._function_changed
        self._register(FIRST_CHANNEL, EmptyChannel() if self.drive is None else Channel(self.drive, self._start_if_ready))
        self._register(SECOND_CHANNEL, EmptyChannel())

    def _register(self, places: tuple[int, int], channel: EmptyChannel | Channel) -> None:
        block, control = places
        self._ports.register(range(block, block + 1), channel, sizes=(1, 2, 4))  # data: wider ones do not reach the next port
        self._ports.register(range(block + 1, block + 8), channel)
        self._ports.register(range(control, control + 1), channel)

    def reset(self) -> None:
        """Power-on state."""
        for master in self._masters:
            master.reset()
        if self.drive is not None:
            self.drive.reset()

    def advance(self) -> None:
        """Do what came due."""
        if self.drive is not None:
            self.drive.advance()

    # ---- what the drive asks ----

    def interrupt_changed(self) -> None:
        """INTRQ or nIEN changed: drive the line, whose rising edge the bus master keeps."""
        drive = self.drive
        if drive is None:  # it is being made
            return
        is_high = drive.is_interrupting and not drive.masks_interrupt
        if is_high and not self._is_high:
            self._masters[0].status |= INTERRUPT
        if is_high != self._is_high:
            self._is_high = is_high
            self._set_irq(is_high)

    def dma_extents(self, size: int) -> list[Extent] | None:
        """The first `size` bytes that the descriptors name; None if they name less."""
        extents, total = self._read_table()
        self._table_bytes = total
        if total < size:
            return None
        kept = []
        for extent in extents:
            part = min(extent.size, size)
            if part:
                kept.append(Extent(extent.pa, part))
            size -= part
        return kept

    def _read_table(self) -> tuple[list[Extent], int]:
        extents: list[Extent] = []
        total = 0
        step = DESCRIPTORS_AT_ONCE * DESCRIPTOR.size
        for at in range(self._masters[0].table, self._masters[0].table + TABLE_BYTES, step):
            for address, word in DESCRIPTOR.iter_unpack(self._memory.read_physical(at, step)):
                extent = Extent(address & ~1, word & 0xFFFE or 0x10000)
                extents.append(extent)
                total += extent.size
                if word & LAST_DESCRIPTOR:
                    return extents, total
        return extents, total

    def dma_done(self, size: int) -> None:
        """The drive's transfer is over: ACTIVE goes, unless descriptors are left."""
        if not 0 < size < self._table_bytes:
            self._masters[0].status &= ~ACTIVE

    # ---- bus master ----

    def _function_changed(self) -> None:
        """The function's configuration was written: its ports may move, and it may have got leave to master the bus."""
        base = self._function.register(pci.BAR4, 4) & ~0xF
        is_on = self._function.register(pci.COMMAND, 2) & pci.COMMAND_IO and 0 < base < PORTS
        self._base = base if is_on else None
        self._move_ports()
        self._start_if_ready()

    def _move_ports(self) -> None:
        self._ports.move(self, None if self._base is None else range(self._base, self._base + MASTER_PORTS))

    def saved_extra(self, _taker: Taker) -> None:
        """Nothing; `give_extra` is asked for."""

    def give_extra(self, _data: None, _giver: Giver) -> None:
        """From a snapshot: the bus knows where the ports are."""
        self._move_ports()

    def _start_if_ready(self) -> None:
        may_master = self._function.register(pci.COMMAND, 2) & pci.COMMAND_MASTER
        if self.drive is not None and may_master and self._masters[0].status & ACTIVE:
            self.drive.start_dma()

    def read(self, port: int, _size: int) -> int:
        """IN at the bus master's ports."""
        self.advance()
        channel, offset = divmod(port - (self._base or 0), CHANNEL_MASTER_PORTS)
        return self._masters[channel].read(offset)

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT at the bus master's ports."""
        self.advance()
        channel, offset = divmod(port - (self._base or 0), CHANNEL_MASTER_PORTS)
        self._masters[channel].write(offset, value)
        if channel == 0 and offset == MASTER_COMMAND and self.drive is not None:
            if not value & START:
                self.drive.stop_dma()
            self._start_if_ready()

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        if self.drive is not None:
            self.drive.check()
            if self._is_high != (self.drive.is_interrupting and not self.drive.masks_interrupt):
                raise BrokenInvariantError("IDE invariant 1: IRQ 14 does not follow the drive")
        is_on = self._function.register(pci.COMMAND, 2) & pci.COMMAND_IO
        if self._base is not None and not (is_on and self._function.register(pci.BAR4, 4) & ~0xF == self._base):
            raise BrokenInvariantError(f"IDE invariant 2: the bus master is at {self._base:#x}")


class Channel:
    """The registers of a channel with a drive 0."""

    def __init__(self, drive: Drive, commanded: Callable[[], None]) -> None:
        self._drive = drive
        self._commanded = commanded

    def read(self, port: int, size: int) -> int:
        """IN."""
        if port == FIRST_CHANNEL[1]:
            return self._drive.read_status(is_alternate=True)
        number = port - FIRST_CHANNEL[0]
        if number == DATA:
            return self._drive.read_data(size)
        if number == STATUS:
            return self._drive.read_status(is_alternate=False)
        return self._drive.read_register(number)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        if port == FIRST_CHANNEL[1]:
            self._drive.write_control(value)
        elif port == FIRST_CHANNEL[0]:
            self._drive.write_data(size, value)
        elif port == FIRST_CHANNEL[0] + COMMAND:
            self._drive.command(value)
            self._commanded()
        else:
            self._drive.write_register(port - FIRST_CHANNEL[0], value)
