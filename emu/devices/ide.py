"""PIIX3's IDE controller: two channels of two drives at the ports of a PC, and their bus masters (Intel 82371FB/SB data sheet, 2.7).

Both drives of a channel take what is written to its registers, so that either knows which of them is selected; a command is for the
selected one, and what is read comes from it. A drive that is not there reads as status 0, and a channel without drives as zeros,
whatever was written, as QEMU's do: a driver that looks for a drive sees a status with neither BSY nor DRDY and its own writes gone, and gives
up at once. With all ones it would see BSY, and wait.

A bus master's registers, for each channel, at BAR4 of the controller's PCI function, and its table of descriptors in memory:

    +0  command   bit 0 start, bit 3 towards memory
    +2  status    bit 0 active, bit 1 error, bit 2 interrupt (write 1 to clear both), bits 5 and 6 software's
    +4  address of the table, bits 31-2: at most 512 descriptors
    descriptor    u32 address (bit 0 is no part of it), u16 bytes (bit 0 likewise; 0: 64 KiB), u16 with bit 15 at the last one

A transfer begins when the drive has a DMA command, the master is started and the function may master the bus. Descriptors that
hold less than the command wants end both without an interrupt and nothing is moved; if they hold more, the active bit stays set.
What a descriptor points to outside RAM takes nothing and reads as ones. The direction bit is kept and not looked at.

Invariants (asserted by `check`):

1. A channel's interrupt line, IRQ 14 or 15, is high just when the selected drive asks for it and nIEN is clear.
2. The bus master's ports are where BAR4 says, if the function's I/O space is on, and nowhere else.
3. At most one drive of a channel is at a command.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import ClassVar

from emu.devices import pci
from emu.devices.ata import COMMAND, Drive, DriveSettings
from emu.devices.ata import FEATURES as ERROR  # when it is read
from emu.devices.clock import NEVER, Clock
from emu.devices.guest_memory import Extent, GuestMemory
from emu.devices.ports import PORTS, PortBus
from emu.errors import BrokenInvariantError, UsageError
from emu.saving import Giver, Taker

CHANNELS = ((0x1F0, 0x3F6), (0x170, 0x376))  # command block, and device control
DRIVES_ON_CHANNEL = 2
MAX_DRIVES = len(CHANNELS) * DRIVES_ON_CHANNEL
DATA, STATUS = 0, COMMAND
MASTER_PORTS, CHANNEL_MASTER_PORTS = 16, 8
MASTER_COMMAND, MASTER_STATUS, MASTER_TABLE = 0, 2, 4
START, TO_MEMORY = 0x01, 0x08
ACTIVE, FAILED, INTERRUPT, SOFTWARE = 0x01, 0x02, 0x04, 0x60
DESCRIPTOR = struct.Struct("<II")
TABLE_BYTES = 4096
DESCRIPTORS_AT_ONCE = 32
LAST_DESCRIPTOR = 1 << 31


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


class Channel:
    """A channel: its drives, its half of the bus master, its interrupt line."""

    WIRING: ClassVar = frozenset({"_block", "_control", "_memory", "_set_irq", "_may_master"})

    def __init__(
        self,
        places: tuple[int, int],
        settings: Sequence[DriveSettings],
        clock: Clock,
        insns_per_second: int,
        memory: GuestMemory,
        set_irq: Callable[[bool], None],
        may_master: Callable[[], bool],
    ) -> None:
        """`settings`: of the first drive, and the second; `may_master` says whether the function has leave to master the bus."""
        self._block, self._control = places
        self._memory = memory
        self._set_irq = set_irq
        self._may_master = may_master
        self._is_high = False  # the interrupt line
        self._table_bytes = 0  # in the descriptors of the last transfer
        self.master = MasterRegisters()
        self.drives: tuple[Drive, ...] = ()
        self.drives = tuple(Drive(one, number, clock, insns_per_second, memory, self) for number, one in enumerate(settings))

    def put_on(self, ports: PortBus) -> None:
        """Answer at the channel's ports."""
        ports.register(range(self._block, self._block + 1), self, sizes=(1, 2, 4))  # data: wider ones do not reach the next port
        ports.register(range(self._block + 1, self._block + 8), self)
        ports.register(range(self._control, self._control + 1), self)

    def reset(self) -> None:
        """Power-on state."""
        self.master.reset()
        for drive in self.drives:
            drive.reset()

    def next_event(self) -> int:
        """Virtual time at which a drive is done."""
        return min((drive.next_event() for drive in self.drives), default=NEVER)

    def advance(self) -> None:
        """Do what came due."""
        for drive in self.drives:
            drive.advance()

    @property
    def _selected(self) -> Drive | None:
        return next((drive for drive in self.drives if drive.is_selected), None)

    # ---- ports ----

    def read(self, port: int, size: int) -> int:
        """IN."""
        self.advance()
        if not self.drives:
            return 0
        drive, number = self._selected, port - self._block
        if port == self._control:
            return drive.read_status(is_alternate=True) if drive else 0
        if number == DATA:
            return drive.read_data(size) if drive else 0
        if number == STATUS:
            return drive.read_status(is_alternate=False) if drive else 0
        if drive is None and number == ERROR:
            return 0
        return (drive or self.drives[0]).read_register(number)

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self.advance()
        number = port - self._block
        if port == self._control:
            for drive in self.drives:
                drive.write_control(value)
            self.interrupt_changed()
        elif number == DATA:
            if (selected := self._selected) is not None:
                selected.write_data(size, value)
        elif number == COMMAND:
            for drive in self.drives:
                drive.command(value)
            self.start_if_ready()
        elif not any(drive.is_occupied for drive in self.drives):
            for drive in self.drives:
                drive.write_register(number, value)
            self.interrupt_changed()

    # ---- what a drive asks ----

    def interrupt_changed(self) -> None:
        """INTRQ, nIEN or the selection changed: drive the line, whose rising edge the bus master keeps."""
        is_high = self._asks()
        if is_high and not self._is_high:
            self.master.status |= INTERRUPT
        if is_high != self._is_high:
            self._is_high = is_high
            self._set_irq(is_high)

    def _asks(self) -> bool:
        drive = self._selected
        return drive is not None and drive.is_interrupting and not drive.masks_interrupt

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
        for at in range(self.master.table, self.master.table + TABLE_BYTES, step):
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
            self.master.status &= ~ACTIVE

    # ---- bus master ----

    def start_if_ready(self) -> None:
        """Begin a transfer for which all is there."""
        if self.master.status & ACTIVE and self._may_master():
            for drive in self.drives:
                drive.start_dma()

    def write_master(self, offset: int, value: int) -> None:
        """OUT at the bus master's ports."""
        self.master.write(offset, value)
        if offset == MASTER_COMMAND:
            if not value & START:
                for drive in self.drives:
                    drive.stop_dma()
            self.start_if_ready()

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        for drive in self.drives:
            drive.check()
        if self._is_high != self._asks():
            raise BrokenInvariantError(f"IDE invariant 1: the interrupt of {self._block:#x} does not follow the drive")
        if sum(drive.is_occupied for drive in self.drives) > 1:
            raise BrokenInvariantError(f"IDE invariant 3: two drives of {self._block:#x} are at a command")


class Ide:
    """The controller. `function` are its registers in PCI configuration space; `set_irqs` drive IRQ 14 and 15."""

    WIRING: ClassVar = frozenset({"_ports", "_function"})

    def __init__(
        self,
        ports: PortBus,
        function: pci.Function,
        settings: Sequence[DriveSettings],
        clock: Clock,
        insns_per_second: int,
        memory: GuestMemory,
        set_irqs: Sequence[Callable[[bool], None]],
    ) -> None:
        """`settings` of the drives: the two of the first channel, then those of the second."""
        if len(settings) > MAX_DRIVES:
            raise UsageError(f"{len(settings)} disks: at most {MAX_DRIVES} can be attached")
        self._ports = ports
        self._function = function
        self._base: int | None = None  # of the bus master's ports
        self._channels = tuple(
            Channel(
                places,
                settings[DRIVES_ON_CHANNEL * number : DRIVES_ON_CHANNEL * (number + 1)],
                clock,
                insns_per_second,
                memory,
                set_irqs[number],
                self._may_master,
            )
            for number, places in enumerate(CHANNELS)
        )
        function.on_change = self._function_changed
        for channel in self._channels:
            channel.put_on(ports)

    @property
    def drives(self) -> tuple[Drive, ...]:
        """All that are there."""
        return tuple(drive for channel in self._channels for drive in channel.drives)

    @property
    def timed(self) -> tuple[Channel, ...]:
        """The channels in which something may come due."""
        return tuple(channel for channel in self._channels if channel.drives)

    def reset(self) -> None:
        """Power-on state."""
        for channel in self._channels:
            channel.reset()

    def _may_master(self) -> bool:
        return bool(self._function.register(pci.COMMAND, 2) & pci.COMMAND_MASTER)

    def _function_changed(self) -> None:
        """The function's configuration was written: its ports may move, and it may have got leave to master the bus."""
        base = self._function.register(pci.BAR4, 4) & ~0xF
        is_on = self._function.register(pci.COMMAND, 2) & pci.COMMAND_IO and 0 < base < PORTS
        self._base = base if is_on else None
        self._move_ports()
        for channel in self._channels:
            channel.start_if_ready()

    def _move_ports(self) -> None:
        self._ports.move(self, None if self._base is None else range(self._base, self._base + MASTER_PORTS))

    def saved_extra(self, _taker: Taker) -> None:
        """Nothing; `give_extra` is asked for."""

    def give_extra(self, _data: None, _giver: Giver) -> None:
        """From a snapshot: the bus knows where the ports are."""
        self._move_ports()

    def read(self, port: int, _size: int) -> int:
        """IN at the bus master's ports."""
        number, offset = divmod(port - (self._base or 0), CHANNEL_MASTER_PORTS)
        self._channels[number].advance()
        return self._channels[number].master.read(offset)

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT at the bus master's ports."""
        number, offset = divmod(port - (self._base or 0), CHANNEL_MASTER_PORTS)
        self._channels[number].advance()
        self._channels[number].write_master(offset, value)

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        for channel in self._channels:
            channel.check()
        is_on = self._function.register(pci.COMMAND, 2) & pci.COMMAND_IO
        if self._base is not None and not (is_on and self._function.register(pci.BAR4, 4) & ~0xF == self._base):
            raise BrokenInvariantError(f"IDE invariant 2: the bus master is at {self._base:#x}")
