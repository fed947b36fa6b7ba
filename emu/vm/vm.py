"""One virtual machine: memory, processor and board, and the loop that runs them.

    new --reset()--> ready --run()--> running --exit, time, interrupt--> running ... --> stopped (a `Stop`)

Virtual time is the count of retired guest instructions; over a HLT it jumps to the next event of the board. Nothing here
reads the host's clock.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from emu.config import MICROSECONDS, VmConfig
from emu.devices import balloon, vga
from emu.devices.ata import DriveSettings
from emu.devices.board import NEVER, Board, BoardSettings
from emu.devices.disk import Disk
from emu.devices.guest_memory import Extent, Landing
from emu.errors import BrokenInvariantError, MachineMemoryError
from emu.events import Kind, Outcome
from emu.machine import control as cbw
from emu.machine import paging, vmcb
from emu.machine.cpu import RESET_STATE, Cpu
from emu.machine.memory import MachineMemory
from emu.machine.regfile import RegisterFile
from emu.units import PAGE_BYTES
from emu.vm import (
    access,
    block_hook,
    callbacks,
    clock,
    code,
    cpuid,
    deliver,
    dma,
    exits,
    handler,
    nested,
    pmap,
    port_access,
    reasons,
    reclaim,
    record,
    registers,
    shadow,
)
from emu.vm.balloon_store import BalloonPages
from emu.vm.exits import ExitContext, Stop
from emu.vm.msr import MsrFile
from emu.vm.outside import Console, HostSide
from emu.vm.state import NO_ROW, TEXT_PPNS, VmState

SLICE_INSNS = 1_000_000  # of virtual time between two looks at the outside world: some 10 ms
SETTLE_INSNS = 16_000_000  # of virtual time in which a page's changes between code and data are counted: some 30 ms
NO_FAULT = -1
CLEARED_AT_RESET = (
    *(cbw.SHADOWING, cbw.STOPPED, cbw.STEPPING, cbw.PENDING_FAULT, cbw.DUE, cbw.IRQ_WAITING, cbw.MODIFIED, cbw.IN_RUN),
    *(cbw.FAULT_RUN, cbw.IN_VAIN, cbw.NMI_WAITING),
)
MOVED_BYTES = 64  # by a device in the time of an instruction: what a host copies in some ten nanoseconds
INPUT_INSNS = 1000  # between two bytes of serial input: about 100,000 baud


class VirtualMachine:
    """A guest and what it runs on. `memory` is the machine's; `number` tells VMs apart in it; `close` closes the disks.

    A VM with a `host` takes frames between slices only: when its reserve runs short `run_until` returns early, and `is_starved` is true
    until the host has filled it.
    """

    WIRING: ClassVar = frozenset(
        {"config", "control", "registers", "console", "no_reboot", "firmware_files", "disks"}
        | {"_host", "_words", "_on_events", "_failure", "_dma", "_called_back", "_context"}
    )

    def __init__(
        self,
        memory: MachineMemory,
        config: VmConfig,
        *,
        rom: bytes,
        firmware_files: dict[str, bytes],
        console: Console,
        on_events: Callable[[np.ndarray], None] | None = None,
        disks: Sequence[Disk] = (),
        number: int = 1,
        host: HostSide | None = None,
    ) -> None:
        self.config = config
        self._host = host
        self.is_alone = False  # a hosted VM runs while no other does: it may take frames from the machine by itself
        self.is_starved = False
        self.state = VmState(memory, config, rom, number, is_hosted=host is not None)
        self.control = self.state.control
        self._words = self.control.data  # the same words, which Python reads and writes several times as fast
        self.cpu = Cpu(
            memory,
            self.control,
            number,
            config.code_buffer_bytes,
            shown=cpuid.feature_words(),
            gave_up=reasons.GAVE_UP,
        )
        self.registers = RegisterFile(self.cpu.registers, self.control)
        self.console = console
        self._on_events = on_events
        self._limit = NEVER  # of retired instructions
        self._time_limit = NEVER  # of virtual time
        self._pause = NEVER  # virtual time at which `run` returns
        self._idle_insns = 0  # virtual time that passed in HLT, or waiting for the swap area
        self._busy_insns = 0  # of STALL: what an instruction took that a device carried out
        self._device_insns = 0  # virtual time that passed so
        self._input = bytearray()
        self._input_due = 0  # virtual time at which the next byte may arrive
        self._failure: BaseException | None = None
        self._stop: Stop | None = None
        self._wants_reset = False
        self._fault_due = NO_FAULT  # vector of an exception that somebody injects
        self._is_halted = False  # HLT waits for an interrupt
        self._poll_due = 0  # virtual time of the next look for input
        self._settle_due = SETTLE_INSNS  # virtual time of the next `code.settle`
        self._look_due = True  # the outside world or the board may want something before the guest goes on
        self._look_at = 0  # virtual time of the next look that no device asks for
        self.no_reboot = False
        settings = BoardSettings(
            insns_per_second=config.insns_per_second,
            memory_bytes=config.memory_bytes,
            start_time=config.start_time,
            firmware_files=firmware_files,
            drives=tuple(drive_settings(disk, number, config) for number, disk in enumerate(disks, 1)),
        )
        self.firmware_files = firmware_files
        self.disks = tuple(disks)
        self._dma = dma.DmaMemory(memory, self.control, self.write_physical, self._refill_now)
        self.board = Board(settings, clock=self, memory=self, signals=self)
        pages = BalloonPages(self.state.give_back, self.control, self.read_physical, self.write_physical)
        self.balloon = balloon.Balloon(self, config.insns_per_second, self.registers, pages, self._took)
        self.board.ports.register(range(balloon.PORT, balloon.PORT + 1), self.balloon, sizes=(4,))
        self._balloon_plan = list(config.balloon_plan)
        self._msrs = MsrFile(self.control, self.registers, self.cpu.word_at, self.board.apic)
        self._context = ExitContext(self.control, self.registers, self.state.insn, self._msrs, self.board.apic)
        self._install_hooks()
        self.state.refill()
        self._needs_entry = True

    # ---- what the board asks of the VM ----

    def now(self) -> int:
        """Virtual time: exact inside a port access, else that of the last exit."""
        exact = self._words[cbw.IO_NOW]
        return exact if exact >= 0 else self._words[cbw.INSNS]

    def read_physical(self, pa: int, size: int) -> bytes:
        """Guest-physical memory as a device reads it."""
        buffer = np.empty(size, np.uint8)
        done = 0
        while done < size:
            done += access.load_block(self.control, pa + done, buffer.ctypes.data + done, size - done)
            if done < size:
                self._refill_now()
        return buffer.tobytes()

    def write_physical(self, pa: int, data: bytes) -> None:
        """Store to guest-physical memory as a device does; ROM and absent memory take nothing."""
        buffer = np.frombuffer(data, np.uint8)
        done = 0
        while done < len(data):
            done += access.store_block(self.control, pa + done, buffer.ctypes.data + done, len(data) - done)
            if done < len(data):
                self._refill_now()

    def views_to_load(self, extents: Sequence[Extent]) -> list[memoryview]:
        """Guest-physical memory as a device that transfers much reads it."""
        return self._dma.views_to_load(extents)

    def views_to_store(self, extents: Sequence[Extent]) -> Landing:
        """Where such a device stores."""
        return self._dma.views_to_store(extents)

    def serial_output(self, data: bytes) -> None:
        """COM1 sent bytes."""
        self.flush_events()
        self.console.write(data)

    def debug_output(self, data: bytes) -> None:
        """Port 0xE9 was written."""
        self.console.write_debug(data)

    def exit(self, value: int) -> None:
        """The debug-exit port was written: nothing after it has effect."""
        self._request_stop(Stop(Outcome.EXITED, value))

    def reset(self) -> None:
        """A device pulled the reset line."""
        if self.no_reboot:
            self._request_stop(Stop(Outcome.RESET))
            return
        self._wants_reset = True
        self._words[cbw.STOPPED] = 1
        self._words[cbw.WAKE] = 0

    def moved(self, size: int) -> None:
        """A device moved so many bytes while the guest waited."""
        self._took(size // MOVED_BYTES)

    def _took(self, insns: int) -> None:
        """The instruction under way takes as long as so many, which a limit of instructions counts too: they are the host's work."""
        if insns:
            self._busy_insns += insns
            self._words[cbw.STALL] += insns
            self._words[cbw.WAKE] = 0

    def _request_stop(self, stop: Stop) -> None:
        if self._stop is None:
            self._stop = stop
        self._words[cbw.STOPPED] = 1
        self._words[cbw.WAKE] = 0

    # ---- hooks ----

    def _install_hooks(self) -> None:
        self._called_back = callbacks.install(
            self.control,
            self.board,
            before=self._make_room_for_events,
            after=self._set_deadline,
            fail=self._fail,
            swap_in=self._swap_in,
        )
        self.cpu.add_hooks(
            on_exit=handler.on_exit.address,
            on_invalid=handler.on_invalid.address,
            on_block=block_hook.address(),
            on_translated=handler.on_translated.address,
            on_port_read=handler.on_port_read.address,
            on_port_write=handler.on_port_write.address,
            on_syscall=handler.on_syscall.address,
            on_sysenter=handler.on_sysenter.address,
        )

    def _swap_in(self, slot: int, mpn: int) -> None:
        assert self._host is not None  # nothing is swapped without one
        self._words[cbw.STALL] += self._host.swap_in(slot, mpn)
        self._words[cbw.WAKE] = 0

    def _fail(self, error: BaseException) -> int:
        if self._failure is None:
            self._failure = error
        self._words[cbw.STOPPED] = 1
        self._words[cbw.WAKE] = 0
        return -1

    # ---- running ----

    def run(self, *, limit: int | None = None, time_limit: int | None = None) -> Stop:
        """Run until the guest stops, `limit` guest instructions retired (more than that by a block at the most), or virtual `time_limit`.

        Raises BrokenInvariantError for a bug of emu, MachineMemoryError when the machine has no frame left, and what the
        console raised (KeyboardInterrupt, BrokenPipeError). Events up to there have been handed on.
        """
        self._limit = NEVER if limit is None else limit
        self._time_limit = NEVER if time_limit is None else time_limit
        self._look_due = True
        try:
            while self._stop is None:
                self._go_on()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error counts, and it may be that of a trace that takes no more
                self.flush_events()
            raise
        self.flush_events()
        return self._stop

    def _go_on(self) -> None:
        """One turn of the loop: into the guest and out again, or a step of a sleep, or a reset."""
        if self._wants_reset or self._needs_entry:
            self._reset()
            return
        if self._look_due:
            self._look_outside()
            self._set_deadline()
        if self._is_halted:
            self._sleep()
        elif self._stop is None:
            self._enter_guest()
        if self._failure is not None:
            raise self._failure

    def run_until(self, virtual_time: int, *, limit: int | None = None, time_limit: int | None = None) -> None:
        """Run until `virtual_time`, or until the guest stops or is starved if that is sooner; `run` goes on from there."""
        self._pause = virtual_time
        self.is_starved = False
        if self.virtual_time < virtual_time:
            self.run(limit=limit, time_limit=time_limit)
        self._pause = NEVER
        if self._stop is not None and self._stop.outcome is Outcome.PAUSED:
            self._stop = None

    def inject_fault(self, vector: int) -> None:
        """Let the guest take an exception that it did not cause, when it goes on. Between two slices only."""
        self._fault_due = vector
        self._look_due = True

    def set_balloon_target(self, pages: int) -> None:
        """What the guest's balloon driver shall give, from its next poll on. Between two slices only."""
        before = self.balloon.target
        self.balloon.set_target(pages)
        where = ctypes.c_int64(self.registers.rip).value
        self._words[cbw.EVENT_RIP], self._words[cbw.INSN_BYTES] = where, 0  # where the guest is; no deed of an instruction
        self._context.emit(Kind.BALLOON_TARGET, old=before, new=self.balloon.target)

    def interrupt(self) -> None:
        """Stop the guest soon; safe to call from a signal handler."""
        self._request_stop(Stop(Outcome.INTERRUPTED))

    @property
    def last_stop(self) -> Stop | None:
        """How the guest ended; None while it can go on."""
        return self._stop

    @property
    def virtual_time(self) -> int:
        """Virtual time: retired instructions, and what HLT skipped."""
        return self._words[cbw.INSNS]

    @property
    def virtual_seconds(self) -> float:
        """Virtual time in seconds."""
        return self.virtual_time / self.config.insns_per_second

    @property
    def retired_insns(self) -> int:
        """Guest instructions that retired."""
        return self.virtual_time - self._idle_insns - self._device_insns

    @property
    def guest_cr3(self) -> int:
        """The guest's CR3."""
        return self._words[cbw.GUEST_CR3]

    def screen(self) -> list[str] | None:
        """The lines of text on the screen; None if no page of its memory was ever touched."""
        if not (self.state.pmap[TEXT_PPNS] >> pmap.STATE_SHIFT & pmap.STATE_MASK != pmap.UNALLOCATED).any():
            return None
        return vga.screen_text(self.read_physical, self.board.vga.start_address)

    def _enter_guest(self) -> None:
        if self._words[cbw.DUE]:  # an event that waits for frames
            self._refill()
            if self._stop is None:
                self._stop = self._context.deliver_due()
            if self._stop is not None:
                return
        if (self._words[cbw.IRQ_WAITING] or self._words[cbw.NMI_WAITING]) and clock.takes_interrupt(self.control):
            stop = self._interrupt()
            self._set_deadline()
            if stop is not None:
                self._stop = stop
                return
        handler.finish(self.control)
        self.cpu.run()
        self._serve()

    def _reset(self) -> None:
        control = self.control
        self._wants_reset = self._needs_entry = self._is_halted = False
        self.board.reset()
        self.balloon.reset()
        self.cpu.engine.drop_code()
        self._show_apic()
        reclaim.drop_ram(self.state)
        nested.set_plain(control, 0)
        for word in CLEARED_AT_RESET:
            control[word] = 0
        for word, value in (
            (cbw.GUEST_CR0, RESET_STATE.cr0),
            (cbw.GUEST_CR3, 0),
            (cbw.ENGINE_CR3, 0),
            (cbw.GUEST_CR4, 0),
            (cbw.BLOCK, 0),
            (cbw.ROOT, NO_ROW),
            (cbw.REASON, reasons.RUNNING),
        ):
            control[word] = value
        control[cbw.CODE_EPOCH] += 1
        clock.refresh_tag(control)
        self._msrs.reset()
        registers.derive_paging(control)
        self._set_deadline()
        self._context.emit(Kind.RESET)
        self.cpu.enter(RESET_STATE, int(control[cbw.NESTED_ROOT]))
        self._serve()

    def _serve(self) -> None:
        """After the engine stopped: do what its reason asks."""
        if self._words[cbw.IO_POISONED] and not self._words[cbw.PENDING_FAULT]:
            port_access.end_at_port_instruction(self.control)
        reason = self._words[cbw.REASON]
        self._words[cbw.REASON] = reasons.RUNNING
        self._look_due = reason != reasons.EXIT
        if self._stop is not None or self._wants_reset or self._failure is not None:
            return
        stop: Stop | None = None
        if reason == reasons.EXIT:
            number = self._words[cbw.EXIT_CODE]
            if number == vmcb.EXIT_HLT and exits.is_halt(self._context):
                self._look_due = True
                stop = self._halt()
            elif number == vmcb.EXIT_HLT:
                stop = exits.end_of_code(self._context, self.cpu.engine)
            else:
                stop = exits.serve(self._context, number)
                if number in exits.APIC_EXITS:
                    self._follow_apic()
                    self._set_deadline()
        elif reason == reasons.WINDOW:
            stop = self._interrupt()
        elif reason == reasons.REFILL:
            self._refill()
        elif reason == reasons.SHUTDOWN:
            stop = exits.shutdown(self._context)
        elif reason == reasons.DEVICE_FETCH:
            stop = exits.device_fetch(self._context)
        elif reason == reasons.REFUSED:
            stop = exits.refuse(self._context, self.cpu.engine, always_here=True)
        elif reason == reasons.GAVE_UP:
            stop = exits.after_abort(self._context, self.cpu.engine)
        elif reason == reasons.NO_PROGRESS:
            stop = exits.no_progress(self._context)
        elif reason == reasons.PORT_FAULT:
            port_access.undo_port_instruction(self.control)
            stop = self._context.deliver_due()
        elif reason != reasons.TIME:
            msg = f"the engine stopped at {self.registers.rip:08x} without a reason ({reason})"
            raise BrokenInvariantError(msg)
        if stop is not None:
            self._stop = stop

    def _show_apic(self) -> bool:
        """Say in the pmap whether the local APIC's page is there, by MSR 1B; true if that changed."""
        slot = self.state.ram_pages + 1
        word = int(self.state.pmap[slot])
        wanted = pmap.DEVICE if self.board.apic.is_enabled else pmap.ABSENT
        self.state.pmap[slot] = word & ~(pmap.STATE_MASK << pmap.STATE_SHIFT) | wanted << pmap.STATE_SHIFT
        return word >> pmap.STATE_SHIFT & pmap.STATE_MASK != wanted

    def _follow_apic(self) -> None:
        """MSR 1B may have been written: nothing may map what lay at the local APIC's address."""
        if self._show_apic():
            shadow.zap_all(self.control)
            reclaim.drop_all(self.state)
            self._refill()
            registers.set_paging(self.control)

    def _refill(self) -> None:
        self.flush_events()
        if self._words[cbw.NESTED_PAGES] > self.config.nested_tables:
            reclaim.drop_all(self.state)
        if self._host is None or self.is_alone:
            self._refill_now()
        elif self._words[cbw.RESERVE_COUNT] < reasons.HOSTED_LOW:
            self._starve()

    def _refill_now(self) -> None:
        """Frames at once: in the middle of a transfer there is no pause."""
        if self._host is None:
            self.state.refill()
        else:
            self._host.allocate()
        if self._words[cbw.RESERVE_COUNT] < reasons.RESERVE_LOW:
            msg = "the machine has no free frame left for this VM's tables: give the machine more memory"
            raise MachineMemoryError(msg)

    def _starve(self) -> None:
        self.is_starved = True
        if self._stop is None:
            self._stop = Stop(Outcome.PAUSED)

    def _look_outside(self) -> None:
        """Between two slices: limit, timers, input."""
        if self._words[cbw.STALL]:
            self._idle_insns += self._words[cbw.STALL] - self._busy_insns
            self._device_insns += self._busy_insns
            self._busy_insns = 0
            self._words[cbw.INSNS] += self._words[cbw.STALL]
            self._words[cbw.STALL] = 0
        if self._host is not None and self._words[cbw.RESERVE_COUNT] < reasons.HOSTED_LOW:
            self._refill()
        now = self._words[cbw.INSNS]
        self.board.advance()
        if now >= self._poll_due:  # at times of the run's own, so that a pause does not move input
            self._poll_due = now + SLICE_INSNS - now % SLICE_INSNS
            self.flush_events()
            if now >= self._settle_due:
                self._settle_due = now + SETTLE_INSNS - now % SETTLE_INSNS
                self._settle_code()
            if not self._input:
                self._take_input(self.console.poll())
        if self._input and now >= self._input_due and self.board.serial_room():
            self.board.receive(bytes([self._input.pop(0)]))
            self._input_due = now + INPUT_INSNS
        while self._balloon_plan and now >= self._balloon_plan[0][0]:
            self.set_balloon_target(self._balloon_plan.pop(0)[1] // PAGE_BYTES)
        if self._stop is None and now - self._idle_insns >= self._limit:
            self._stop = Stop(Outcome.LIMIT)
        if self._stop is None and now >= self._time_limit:
            self._stop = Stop(Outcome.LIMIT, why="of virtual time")
        if self._stop is None and now >= self._pause:
            self._stop = Stop(Outcome.PAUSED)
        if self._fault_due != NO_FAULT and self._stop is None and not self._words[cbw.STEPPING]:
            vector, self._fault_due = self._fault_due, NO_FAULT
            self._is_halted = False
            if self._words[cbw.EVENT_INSNS]:
                access.fetch_instruction(self.control)
            self._stop = self._context.inject(vector, deliver.EXCEPTION)
        planned = self._balloon_plan[0][0] if self._balloon_plan else NEVER
        self._look_at = min(self._poll_due, self._limit + self._idle_insns, self._time_limit, self._pause, planned)

    def _settle_code(self) -> None:
        slot = 0
        while slot < self.state.slots:
            slot = code.settle(self.control, slot)
            self.flush_events()

    def _take_input(self, data: bytes) -> None:
        if data:
            self._input += data
            self._input_due = max(self._input_due, self._words[cbw.INSNS])

    def _set_deadline(self) -> None:
        """Say when the block hook shall stop the guest next."""
        words = self._words
        deadline = min(self._look_at, self.board.next_event())
        if self._input and self.board.serial_room():
            deadline = min(deadline, max(self._input_due, words[cbw.INSNS] + 1))
        words[cbw.DEADLINE] = deadline
        waiting, has_nmi = self.board.has_interrupt(), self.board.has_nmi()
        words[cbw.IRQ_WAITING], words[cbw.NMI_WAITING] = waiting, has_nmi
        words[cbw.WAKE] = 0 if waiting or has_nmi or words[cbw.STOPPED] or words[cbw.STALL] else deadline

    def _interrupt(self) -> Stop | None:
        if self._words[cbw.EVENT_INSNS]:
            access.fetch_instruction(self.control)
        if self._takes_nmi:
            self.board.take_nmi()
            self.registers.block_nmi()
            return self._context.inject(deliver.NMI, deliver.HARDWARE)
        return self._context.inject(self.board.acknowledge(), deliver.HARDWARE)

    @property
    def _takes_nmi(self) -> bool:
        return self.board.has_nmi() and not self.registers.is_nmi_blocked

    @property
    def _is_woken(self) -> bool:
        """Whether what waits ends a HLT."""
        return self._takes_nmi or (self.board.has_interrupt() and bool(self.registers.flags & paging.EFLAGS_IF))

    def _halt(self) -> Stop | None:
        """HLT: the guest sleeps until an interrupt or an NMI."""
        self._context.emit(Kind.HALT)
        self._context.retire()
        can_come = self.board.may_send_nmi() and not self.registers.is_nmi_blocked
        if not self.registers.flags & paging.EFLAGS_IF and not can_come:
            return Stop(Outcome.HALTED, why=f"interrupts off at {self.registers.rip:08x}")
        self._is_halted = not self.control[cbw.DUE]  # the trap of a guest that traces itself ends the HLT at once
        return self._context.deliver_due()

    def _sleep(self) -> None:
        """One step of a HLT: virtual time jumps to the next thing that may end it."""
        if self._is_woken or self._stop is not None:
            self._is_halted = not self._is_woken
            return
        self.flush_events()
        now, event = self._words[cbw.INSNS], self._next_wake()
        has_input = self.console.idle(None if event == NEVER else (event - now) / self.config.insns_per_second)
        if has_input:
            self._take_input(self.console.poll())
        elif event == NEVER:
            self._stop = Stop(Outcome.HALTED, why=f"no interrupt can come at {self.registers.rip:08x}")
        else:
            # No further than a pause, but then on from there: the guest cannot tell.
            until = max(now, min(event, self._pause, self._time_limit))
            self._words[cbw.INSNS] = until
            self._idle_insns += until - now

    def _next_wake(self) -> int:
        """Virtual time of the next thing that may end a HLT: a device's event, or input that waits for its turn."""
        event = self.board.next_event()
        if self._balloon_plan:
            event = min(event, self._balloon_plan[0][0])
        if self._input and self.board.serial_room():
            event = min(event, self._input_due)
        return event

    # ---- events ----

    def flush_events(self) -> None:
        """Hand the records written so far to whoever listens."""
        records = self.state.drain_events()
        if self._on_events is not None and len(records):
            self._on_events(records)

    def _make_room_for_events(self) -> None:
        """A port access is no exit, and a batch of the balloon writes hundreds of records: none may be overwritten unread."""
        if self.config.events and self._words[cbw.EVENT_COUNT] + record.HEADROOM > self._words[cbw.EVENT_LIMIT]:
            self.flush_events()

    def stop_event(self, stop: Stop) -> None:
        """Record how the run ended."""
        record.emit(self.control, int(Kind.STOP), list(Outcome).index(stop.outcome), stop.value, -1, -1, 0, 0)
        self.flush_events()

    def close(self) -> None:
        """Give all frames back to the machine, and the engine's memory and the disks to the host."""
        self.state.release()
        self.cpu.engine.drop_code()
        for disk in self.disks:
            disk.close()


def drive_settings(disk: Disk, number: int, config: VmConfig) -> DriveSettings:
    """A drive as the configuration has it; `number` tells it from the VM's others."""
    latency_insns = config.disk_latency_us * config.insns_per_second // MICROSECONDS
    return DriveSettings(disk, latency_insns, config.disk_bytes_per_second, f"EM{number:05}")
