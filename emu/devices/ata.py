"""An ATA disk drive (ATA/ATAPI-6, T13/1410D): its registers, its commands, and the virtual time that they take.

    IDLE --command--> BUSY --its time is over--> IDLE
                      BUSY --> DATA_IN --block read--> BUSY or IDLE          (PIO reads; IDENTIFY DEVICE)
    IDLE --command--> DATA_OUT --block written--> BUSY --> DATA_OUT or IDLE   (PIO writes)
    IDLE --command--> DMA_READY --bus master started--> BUSY                  (DMA; stopped in between: DMA_READY again)

A transfer costs `latency_insns` once a command, and its bytes at `bytes_per_second`; the data move when that time is over. What has
nothing to do with the medium takes no time. Commands and registers that come while BSY or DRQ is set are ignored, as in QEMU.

Invariants (asserted by `check`):

1. A completion is due just in BUSY.
2. In DATA_IN and DATA_OUT the buffer has room left for the guest, and DRQ is set; elsewhere the buffer is of no use.
3. BSY is set just in BUSY, or during a software reset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

from emu.devices import ata_identity
from emu.devices.ata_identity import HEADS, SECTORS_A_TRACK
from emu.devices.clock import NEVER, Clock
from emu.devices.disk import SECTOR_BYTES, Disk, DiskError
from emu.devices.guest_memory import Extent, GuestMemory
from emu.errors import BrokenInvariantError
from emu.saving import as_value

BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01  # of the status register
READY = DRDY | DSC
UNC, IDNF, ABRT = 0x40, 0x10, 0x04  # of the error register
DIAGNOSTIC_PASSED = 0x01  # in the error register after a reset
SRST, NIEN, HOB = 0x04, 0x02, 0x80  # of the device control register
USES_LBA, SECOND_DRIVE = 0x40, 0x10  # of the device register
FEATURES, SECTOR_COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, COMMAND = range(1, 8)
MAX_MULTIPLE = 16  # sectors a block, as in QEMU
EXECUTE_DIAGNOSTIC = 0x90
SET_TRANSFER_MODE = 0x03
# Write cache, read look-ahead, defaults kept over a reset or not: there is nothing that they would change.
FEATURES_WITHOUT_EFFECT = (0x02, 0x82, 0x55, 0xAA, 0x66, 0xCC)
POWER_ACTIVE = 0xFF  # answer of CHECK POWER MODE


@dataclass(frozen=True)
class DriveSettings:
    """A disk and how long it takes, in virtual time."""

    disk: Disk
    latency_insns: int  # of each command that reaches the medium
    bytes_per_second: int  # of virtual time
    serial: str = ata_identity.SERIAL  # tells drives apart


@dataclass
class DriveCounts:
    """What the drive did, for the summary."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    reads: int = 0  # transfers
    writes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    flushes: int = 0
    errors: int = 0  # that the guest was told of


class Host(Protocol):
    """What a drive asks of the channel that it is on."""

    def interrupt_changed(self) -> None:
        """INTRQ rose or fell."""

    def dma_extents(self, size: int) -> list[Extent] | None:
        """Where in guest memory a transfer of `size` bytes goes; None if the descriptors hold less."""

    def dma_done(self, size: int) -> None:
        """A transfer of `size` bytes is over, with or without an error; 0: nothing was moved."""


@as_value
class State(Enum):
    """What a drive is at."""

    IDLE = 0
    BUSY = 1
    DATA_IN = 2
    DATA_OUT = 3
    DMA_READY = 4


@as_value
@dataclass(frozen=True)
class Access:
    """One of the commands that read or write sectors."""

    is_write: bool = False
    is_extended: bool = False  # 48-bit addresses, 16-bit counts
    is_multiple: bool = False  # a block is several sectors
    is_dma: bool = False
    is_verify: bool = False  # no data


READ, WRITE = Access(), Access(is_write=True)
VERIFY = Access(is_verify=True)
ACCESSES: dict[int, Access] = {
    0x20: READ,
    0x21: READ,
    0x24: Access(is_extended=True),
    0x25: Access(is_extended=True, is_dma=True),
    0x29: Access(is_extended=True, is_multiple=True),
    0x30: WRITE,
    0x31: WRITE,
    0x34: Access(is_write=True, is_extended=True),
    0x35: Access(is_write=True, is_extended=True, is_dma=True),
    0x39: Access(is_write=True, is_extended=True, is_multiple=True),
    0x40: VERIFY,
    0x41: VERIFY,
    0x42: Access(is_extended=True, is_verify=True),
    0xC4: Access(is_multiple=True),
    0xC5: Access(is_write=True, is_multiple=True),
    0xC8: Access(is_dma=True),
    0xC9: Access(is_dma=True),
    0xCA: Access(is_write=True, is_dma=True),
    0xCB: Access(is_write=True, is_dma=True),
}


class Drive:
    """Drive 0 or 1 of a channel."""

    WIRING: ClassVar = frozenset({"_settings", "_number", "_clock", "_memory", "_host", "_others", "disk"})

    def __init__(
        self, settings: DriveSettings, number: int, clock: Clock, insns_per_second: int, memory: GuestMemory, host: Host
    ) -> None:
        self.disk = settings.disk
        self._number = number
        self.counts = DriveCounts()
        self.is_broken = False  # every transfer fails, for experiments
        self.is_interrupting = False  # INTRQ, before nIEN
        self._settings = settings
        self._clock = clock
        self._insns_per_second = insns_per_second
        self._memory = memory
        self._host = host
        self._others: dict[int, Callable[[], None]] = {  # commands that move no sectors
            0x10: self._recalibrate,
            0x27: self._native_max_extended,
            0x70: self._seek,
            EXECUTE_DIAGNOSTIC: self._diagnose,
            0x91: self._set_geometry,
            0xC6: self._set_multiple,
            0xE0: self._complete,  # STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE, SLEEP: the disk goes on turning
            0xE1: self._complete,
            0xE2: self._complete,
            0xE3: self._complete,
            0xE5: self._check_power,
            0xE6: self._complete,
            0xE7: self._flush,
            0xEA: self._flush,
            0xEC: self._identify,
            0xEF: self._set_features,
            0xF8: self._native_max,
        }
        self.reset()

    def reset(self) -> None:
        """Power-on: all modes at their defaults, then as after a software reset."""
        self._multiple = MAX_MULTIPLE  # sectors a block of READ MULTIPLE; 0: the command is refused
        self._heads, self._sectors_a_track = HEADS, SECTORS_A_TRACK  # of CHS addresses
        self._transfer_mode = ata_identity.DEFAULT_MODE  # that SET FEATURES chose
        self._control = 0
        self.software_reset()

    def software_reset(self) -> None:
        """SRST: whatever was under way is dropped, the signature of a disk drive is in the registers."""
        self._state = State.IDLE
        self._due = NEVER  # virtual time at which BUSY ends
        self._then: Callable[[], None] = self._complete  # what happens then
        self._buffer = bytearray()  # of a PIO transfer
        self._at = 0  # where in it the guest is
        self._access = READ  # under way
        self._is_first = True  # no block of it was moved yet
        self._sector, self._left = 0, 0  # first sector to be moved, and how many
        self._registers = dict.fromkeys(range(FEATURES, COMMAND), 0)  # the last two bytes written to each, the newer one low
        self._status, self._error = READY, 0
        self._sign()
        self._set_interrupt(False)

    def _sign(self) -> None:
        self._error = DIAGNOSTIC_PASSED
        self._registers |= {SECTOR_COUNT: 1, LBA_LOW: 1, LBA_MID: 0, LBA_HIGH: 0, DEVICE: 0}

    # ---- time ----

    def next_event(self) -> int:
        """Virtual time at which what is under way is done."""
        return self._due

    def advance(self) -> None:
        """Do what came due."""
        while self._due != NEVER and self._clock.now() >= self._due:
            self._due = NEVER
            self._state = State.IDLE
            self._then()

    def _start(self, size: int, then: Callable[[], None], *, seeks: bool = True) -> None:
        """Be BUSY for as long as `size` bytes take; `seeks`: the first of a command."""
        insns = -(-size * self._insns_per_second // self._settings.bytes_per_second)
        self._due = self._clock.now() + insns + (self._settings.latency_insns if seeks else 0)
        self._then = then
        self._state = State.BUSY
        self._status = BSY | READY

    # ---- registers ----

    @property
    def is_selected(self) -> bool:
        """Whether the device register names this drive, and not the other one."""
        return bool(self._registers[DEVICE] & SECOND_DRIVE) == bool(self._number)

    @property
    def is_occupied(self) -> bool:
        """Whether it is at a command, and takes none."""
        return bool(self._status & (BSY | DRQ))

    @property
    def masks_interrupt(self) -> bool:
        """NIEN: the interrupt line is not driven."""
        return bool(self._control & NIEN)

    def read_status(self, *, is_alternate: bool) -> int:
        """The status; all but the alternate register take the interrupt back."""
        if not is_alternate:
            self._set_interrupt(False)
        return BSY if self._control & SRST else self._status

    def read_register(self, number: int) -> int:
        """A register other than data and status."""
        if number == FEATURES:
            return self._error
        word = self._registers[number]
        return (word >> 8 if self._control & HOB and number != DEVICE else word) & 0xFF

    def write_register(self, number: int, value: int) -> None:
        """A register other than data and command, while no drive is at a command."""
        self._control &= ~HOB
        self._registers[number] = value if number == DEVICE else (self._registers[number] << 8 | value) & 0xFFFF

    def write_control(self, value: int) -> None:
        """The device control register."""
        resets = self._control & ~value & SRST
        begins = value & ~self._control & SRST
        self._control = value & (SRST | NIEN | HOB)
        if resets or begins:
            self.software_reset()

    def _set_interrupt(self, is_high: bool) -> None:
        self.is_interrupting = is_high
        self._host.interrupt_changed()

    # ---- data port ----

    def read_data(self, size: int) -> int:
        """The next bytes of a block; zeros when there is none."""
        if self._state is not State.DATA_IN:
            return 0
        value = int.from_bytes(self._buffer[self._at : self._at + size], "little")
        self._at += size
        if self._at >= len(self._buffer):
            self._block_is_read()
        return value

    def write_data(self, size: int, value: int) -> None:
        """The next bytes of a block, ignored when none is wanted."""
        if self._state is not State.DATA_OUT:
            return
        part = value.to_bytes(size, "little")[: len(self._buffer) - self._at]
        self._buffer[self._at : self._at + len(part)] = part
        self._at += size
        if self._at >= len(self._buffer):
            is_first = self._is_first
            self._is_first = False
            self._start(len(self._buffer), self._store_block, seeks=is_first)

    def _ask_for_data(self, state: State, size: int) -> None:
        self._state = state
        self._status = READY | DRQ
        self._at = 0
        if state is State.DATA_OUT:
            self._buffer = bytearray(size)

    # ---- commands ----

    def command(self, code: int) -> None:
        """The channel's command register was written: a command for the selected drive, or for both."""
        if self._control & SRST or self.is_occupied or not (self.is_selected or code == EXECUTE_DIAGNOSTIC):
            return
        self._control &= ~HOB
        self._set_interrupt(False)
        self._status, self._error = READY, 0
        if code in ACCESSES:
            self._begin(ACCESSES[code])
        elif code in self._others:
            self._others[code]()
        else:
            self._abort()

    def _complete(self) -> None:
        """A command ended well."""
        self._state = State.IDLE
        self._status = READY
        self._set_interrupt(True)

    def _abort(self, error: int = ABRT) -> None:
        """A command ended with an error."""
        self._state = State.IDLE
        self._status = READY | ERR
        self._error = error
        self._set_interrupt(True)

    def _fail(self, error: int, sector: int) -> None:
        """A transfer failed at a sector, which the address registers then name."""
        self.counts.errors += 1
        self._show_sector(sector)
        self._abort(error)

    # ---- sectors ----

    def _begin(self, access: Access) -> None:
        if access.is_multiple and not self._multiple:
            self._abort()
            return
        self._access = access
        self._is_first = True
        self._left = self._wanted_sectors()
        self._sector = self._addressed_sector()
        if access.is_write and self.disk.is_readonly:
            self._fail(ABRT, self._sector)
        elif access.is_verify:
            self._start(self._left * SECTOR_BYTES, self._verified)
        elif access.is_dma:
            self._state = State.DMA_READY
            self._status = READY | DRQ
        elif access.is_write:
            self._ask_for_data(State.DATA_OUT, self._block_sectors() * SECTOR_BYTES)
        else:
            self._start(self._block_sectors() * SECTOR_BYTES, self._fetch_block)

    def _wanted_sectors(self) -> int:
        count = self._registers[SECTOR_COUNT]
        if self._access.is_extended:
            return count or 0x10000
        return count & 0xFF or 0x100

    def _addressed_sector(self) -> int:
        """The sector that the address registers name; -1 for a CHS address without one."""
        low, mid, high, device = (self._registers[number] for number in (LBA_LOW, LBA_MID, LBA_HIGH, DEVICE))
        if self._access.is_extended:
            newer = low & 0xFF | (mid & 0xFF) << 8 | (high & 0xFF) << 16
            return newer | (low >> 8) << 24 | (mid >> 8) << 32 | (high >> 8) << 40
        if device & USES_LBA:
            return low & 0xFF | (mid & 0xFF) << 8 | (high & 0xFF) << 16 | (device & 0xF) << 24
        cylinder, head, sector = mid & 0xFF | (high & 0xFF) << 8, device & 0xF, low & 0xFF
        if head >= self._heads or not 1 <= sector <= self._sectors_a_track:
            return -1
        return (cylinder * self._heads + head) * self._sectors_a_track + sector - 1

    def _show_sector(self, sector: int) -> None:
        """Put a sector's number in the address registers, in the form that the command has."""
        if sector < 0:
            return
        device = self._registers[DEVICE] & 0xF0
        if self._access.is_extended:
            parts = [sector >> shift & 0xFF | (sector >> shift + 24 & 0xFF) << 8 for shift in (0, 8, 16)]
            device |= self._registers[DEVICE] & 0xF
        elif device & USES_LBA:
            parts = [sector >> shift & 0xFF for shift in (0, 8, 16)]
            device |= sector >> 24 & 0xF
        else:
            track, place = divmod(sector, self._sectors_a_track)
            cylinder, head = divmod(track, self._heads)
            parts = [place + 1 & 0xFF, cylinder & 0xFF, cylinder >> 8 & 0xFF]
            device |= head
        self._registers |= dict(zip((LBA_LOW, LBA_MID, LBA_HIGH), parts, strict=True)) | {DEVICE: device}

    def _block_sectors(self) -> int:
        return min(self._left, self._multiple if self._access.is_multiple else 1)

    def _fits(self, count: int) -> bool:
        return self._sector >= 0 and self._sector + count <= self.disk.sectors

    def _move(self, views: list[memoryview], count: int) -> bool:
        """Move `count` sectors between disk and views, and go on behind them; false after an error, which the guest has been told."""
        if not self._fits(count):
            self._fail(IDNF, min(self._sector, self.disk.sectors) if self._sector >= 0 else -1)
            return False
        if self.is_broken:
            self._fail(ABRT if self._access.is_write else UNC, self._sector)
            return False
        try:
            (self.disk.write if self._access.is_write else self.disk.read)(self._sector, views)
        except DiskError as error:
            self._fail(ABRT if self._access.is_write else UNC, error.sector)
            return False
        self._count(count * SECTOR_BYTES)
        self._sector += count
        self._left -= count
        self._show_sector(self._sector)
        self._registers[SECTOR_COUNT] = self._left & 0xFFFF
        return True

    def _count(self, size: int) -> None:
        if self._access.is_write:
            self.counts.writes += 1
            self.counts.written_bytes += size
        else:
            self.counts.reads += 1
            self.counts.read_bytes += size

    def _fetch_block(self) -> None:
        """PIO read: the medium has delivered a block."""
        count = self._block_sectors()
        self._buffer = bytearray(count * SECTOR_BYTES)
        if self._move([memoryview(self._buffer)], count):
            self._ask_for_data(State.DATA_IN, len(self._buffer))
            self._set_interrupt(True)

    def _block_is_read(self) -> None:
        """PIO read: the guest has taken the block."""
        if self._left:
            self._start(self._block_sectors() * SECTOR_BYTES, self._fetch_block, seeks=False)
        else:
            self._state = State.IDLE
            self._status = READY

    def _store_block(self) -> None:
        """PIO write: the medium has taken a block."""
        if not self._move([memoryview(self._buffer)], len(self._buffer) // SECTOR_BYTES):
            return
        if self._left:
            self._ask_for_data(State.DATA_OUT, self._block_sectors() * SECTOR_BYTES)
            self._set_interrupt(True)
        else:
            self._complete()

    def _verified(self) -> None:
        if self._fits(self._left):
            self._complete()
        else:
            self._fail(IDNF, min(self._sector, self.disk.sectors))

    # ---- DMA ----

    def start_dma(self) -> None:
        """The bus master is ready: the transfer begins if a command waits for it."""
        if self._state is State.DMA_READY:
            self._start(self._left * SECTOR_BYTES, self._transfer)

    def stop_dma(self) -> None:
        """The bus master was stopped: a transfer under way has not happened."""
        if self._state is State.BUSY and self._access.is_dma and self._then == self._transfer:
            self._due = NEVER
            self._state = State.DMA_READY
            self._status = READY | DRQ

    def _transfer(self) -> None:
        size = self._left * SECTOR_BYTES
        extents = self._host.dma_extents(size)
        if extents is None:  # QEMU, and PIIX3's table of status bits: neither active nor an interrupt
            self._status = READY
            self._host.dma_done(0)
            return
        if self._access.is_write:
            is_moved = self._move(self._memory.views_to_load(extents), self._left)
        else:
            landing = self._memory.views_to_store(extents)
            is_moved = self._move(landing.views, self._left)
            landing.settle()
        self._host.dma_done(size if is_moved else 0)
        if is_moved:
            self._complete()

    # ---- commands without sectors ----

    def _identify(self) -> None:
        self._access = READ
        self._left = 0
        self._buffer = bytearray(
            ata_identity.words(
                self.disk.sectors,
                serial=self._settings.serial,
                is_second=bool(self._number),
                geometry=(self._heads, self._sectors_a_track),
                multiple=self._multiple,
                max_multiple=MAX_MULTIPLE,
                mode=self._transfer_mode,
            )
        )
        self._ask_for_data(State.DATA_IN, len(self._buffer))
        self._set_interrupt(True)

    def _flush(self) -> None:
        self._access = WRITE
        self._start(0, self._flushed)

    def _flushed(self) -> None:
        self.counts.flushes += 1
        try:
            if not self.disk.is_readonly:
                self.disk.flush()
        except DiskError:
            self._fail(ABRT, -1)
        else:
            self._complete()

    def _set_multiple(self) -> None:
        count = self._registers[SECTOR_COUNT] & 0xFF
        if count > MAX_MULTIPLE or count & (count - 1):
            self._abort()
        else:
            self._multiple = count
            self._complete()

    def _set_features(self) -> None:
        feature = self._registers[FEATURES] & 0xFF
        mode = self._registers[SECTOR_COUNT] & 0xFF
        if feature == SET_TRANSFER_MODE and ata_identity.is_mode(mode):
            self._transfer_mode = mode
        elif feature not in FEATURES_WITHOUT_EFFECT:
            self._abort()
            return
        self._complete()

    def _set_geometry(self) -> None:
        sectors = self._registers[SECTOR_COUNT] & 0xFF
        if sectors:
            self._heads, self._sectors_a_track = (self._registers[DEVICE] & 0xF) + 1, sectors
            self._complete()
        else:
            self._abort()

    def _diagnose(self) -> None:
        """Both drives do it; drive 0 tells."""
        self._sign()
        self._set_interrupt(self._number == 0)

    def _recalibrate(self) -> None:
        self._start(0, self._complete)

    def _seek(self) -> None:
        self._access = READ
        self._sector = self._addressed_sector()
        if self._fits(1):
            self._start(0, self._complete)
        else:
            self._fail(IDNF, -1)

    def _check_power(self) -> None:
        self._registers[SECTOR_COUNT] = POWER_ACTIVE
        self._complete()

    def _native_max(self) -> None:
        """The last sector that a 28-bit address reaches."""
        self._access = READ
        self._registers[DEVICE] |= USES_LBA
        self._show_sector(min(self.disk.sectors, ata_identity.MAX_28_BIT) - 1)
        self._complete()

    def _native_max_extended(self) -> None:
        self._access = Access(is_extended=True)
        self._show_sector(self.disk.sectors - 1)
        self._complete()

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError naming the first that fails."""
        if (self._due != NEVER) != (self._state is State.BUSY):
            raise BrokenInvariantError(f"ATA invariant 1: {self._state} with a completion at {self._due}")
        is_moving = self._state in (State.DATA_IN, State.DATA_OUT)
        if is_moving and not (self._at < len(self._buffer) and self._status & DRQ):
            raise BrokenInvariantError(f"ATA invariant 2: {self._state} at {self._at} of {len(self._buffer)} bytes")
        if bool(self._status & BSY) != (self._state is State.BUSY):
            raise BrokenInvariantError(f"ATA invariant 3: {self._state} with status {self._status:02x}")
