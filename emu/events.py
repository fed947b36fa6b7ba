"""The catalogue of events: what a VM can tell of itself, one fixed-size record each.

Counters, the text trace and every later view are made from these records and from nothing else. A record is nine 64-bit
words (72 bytes); native code writes it as words, Python reads it as `RECORD`:

    word 0  virtual time, retired guest instructions
    word 1  kind (bits 0-15), VM number (16-31), info (32-63): error code, vector, port, size: see each kind
    word 2  VA or PA that the event is about
    word 3  PPN (bits 0-31) and MPN (32-63); `NO_PAGE` where there is none
    word 4  old value (guest entry, shadow entry, register)
    word 5  new value
    word 6  RIP of the guest instruction that caused it
    word 7  its bytes 0-7; word 8: bytes 8-14 and, in the top byte, how many were read (0: not recorded), bits 6 and 7: 64-bit, 32-bit code

This module imports nothing of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

RECORD_WORDS = 9
RECORD = np.dtype(
    [
        ("time", "<u8"),
        ("kind", "<u2"),
        ("vm", "<u2"),
        ("info", "<u4"),
        ("va", "<u8"),
        ("ppn", "<u4"),
        ("mpn", "<u4"),
        ("old", "<u8"),
        ("new", "<u8"),
        ("rip", "<u8"),
        ("insn", "u1", 15),
        ("insn_bytes", "u1"),
    ]
)
assert RECORD.itemsize == RECORD_WORDS * 8
NO_PAGE = 0xFFFF_FFFF
NESTED_FAULT = 1 << 8  # in the info of a hidden fault: of the nested table, and `va` is a PA


class Kind(IntEnum):
    """Kinds of event. The number is the bit in a selection mask, so at most 63 fit."""

    CR3_LOAD = 1  # old, new: guest CR3; mpn: the root now walked; info: 1 if the root was cached
    CR_WRITE = 2  # info: register number; old, new: guest value
    HIDDEN_FAULT = 3  # the shadow (or nested) table lacked it; va, ppn, mpn; info: error code, NESTED_FAULT; old, new: entry
    TRUE_FAULT = 4  # a page fault that the guest's own tables ask for; va; info: error code
    PTE_WRITE = 5  # guest page-table store; va: of the entry; ppn: table page; info: index; old, new: guest entry
    SHADOW_UPDATE = 6  # shadow entry changed by a guest table change; info: index; old, new: shadow entry
    UNSYNC = 7  # a guest table page goes out of sync; ppn
    SYNC = 8  # an out-of-sync page was read again; ppn; info: entries that differed
    SHADOW_PAGE = 9  # a shadow page was made; ppn: guest table; mpn: shadow frame; info: level
    ZAP = 10  # a shadow page was dropped; ppn, mpn; info: level
    INVLPG = 11  # va
    TLB_FLUSH = 12  # the engine's TLB was flushed
    CODE_FLUSH = 13  # translated code of a frame was dropped; ppn, mpn
    EXCEPTION = 14  # delivered to the guest; info: vector | error code << 8 (bit 31: has one)
    INTERRUPT = 15  # delivered to the guest; info: vector
    SOFTWARE_INT = 16  # INT n; info: vector
    PORT_READ = 17  # va: port; info: size; new: value
    PORT_WRITE = 18  # va: port; info: size; new: value
    HALT = 19
    CPUID = 20  # old: leaf; info: subleaf
    MSR_READ = 21  # va: number; new: value
    MSR_WRITE = 22  # va: number; new: value
    RDTSC = 23
    PAGE_ALLOCATED = 24  # pmap entry filled on first touch; ppn, mpn
    DISCARDED_WRITE = 25  # a store to ROM or to absent memory, without effect; va; ppn
    RESET = 26
    STOP = 27  # the VM stopped; info: place of its Outcome; va: value of the exit port
    DEVICE_READ = 28  # a load from a memory-mapped register; va: PA; new: value
    DEVICE_WRITE = 29  # a store to one; va: PA; new: value
    SYSTEM_CALL = 30  # SYSCALL; new: the entry point
    BALLOON_LOCK = 31  # a page goes into the balloon; ppn; mpn: the frame that it had, if it had one
    BALLOON_UNLOCK = 32  # a page comes back; ppn
    BALLOON_POP = 33  # the guest touched a page in the balloon; ppn
    BALLOON_TARGET = 34  # the host set the balloon's target; old, new: pages

    PAGE_SHARED = 35  # a page got a shared frame; ppn; mpn; old: the frame that it had
    COW_BREAK = 36  # a store to a shared page; ppn; mpn: its frame from now on; old: the shared frame
    SWAP_OUT = 37  # a page went to the swap area; ppn; mpn: the frame that it had
    SWAP_IN = 38  # it came back; ppn; mpn
    TASK_SWITCH = (
        39  # by hardware; info: 0 JMP, 1 CALL or an event, 2 IRET; va: base of the new segment; old, new: selectors of the tasks
    )


NUMBER_OF_KINDS = 40


class Outcome(StrEnum):
    """How a run ends."""

    EXITED = "exited"  # debug-exit port; `detail` is the value
    LIMIT = "limit reached"
    TRIPLE_FAULT = "triple fault"
    HALTED = "halted for ever"
    RESET = "reset"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"  # the run goes on
    FAILED = "failed"  # emu itself could not go on


@dataclass(frozen=True)
class KindInfo:
    """How a kind is selected (`group`), named in a trace line (`label`) and counted (`counter`, kvm_stat's name if any)."""

    group: str
    label: str
    counter: str


CATALOGUE: dict[Kind, KindInfo] = {
    Kind.CR3_LOAD: KindInfo("cr3", "cr3-load", "cr3_load"),
    Kind.CR_WRITE: KindInfo("cr", "cr-write", "cr_write"),
    Kind.HIDDEN_FAULT: KindInfo("fault", "hidden-fault", "pf_fixed"),
    Kind.TRUE_FAULT: KindInfo("fault", "true-fault", "pf_guest"),
    Kind.PTE_WRITE: KindInfo("shadow", "pte-write", "mmu_pte_write"),
    Kind.SHADOW_UPDATE: KindInfo("shadow", "shadow-update", "mmu_pte_updated"),
    Kind.UNSYNC: KindInfo("shadow", "unsync", "mmu_unsync"),
    Kind.SYNC: KindInfo("shadow", "sync", "mmu_sync"),
    Kind.SHADOW_PAGE: KindInfo("shadow", "shadow-page", "mmu_cache_miss"),
    Kind.ZAP: KindInfo("shadow", "zap", "mmu_shadow_zapped"),
    Kind.INVLPG: KindInfo("invlpg", "invlpg", "invlpg"),
    Kind.TLB_FLUSH: KindInfo("tlb", "tlb-flush", "tlb_flush"),
    Kind.CODE_FLUSH: KindInfo("code", "code-flush", "code_flush"),
    Kind.EXCEPTION: KindInfo("inject", "exception", "exceptions"),
    Kind.INTERRUPT: KindInfo("inject", "interrupt", "irq_injections"),
    Kind.SOFTWARE_INT: KindInfo("inject", "int-n", "software_interrupts"),
    Kind.PORT_READ: KindInfo("port", "port-read", "io_reads"),
    Kind.PORT_WRITE: KindInfo("port", "port-write", "io_writes"),
    Kind.HALT: KindInfo("halt", "halt", "halt_exits"),
    Kind.CPUID: KindInfo("cpuid", "cpuid", "cpuid_exits"),
    Kind.MSR_READ: KindInfo("msr", "rdmsr", "msr_reads"),
    Kind.MSR_WRITE: KindInfo("msr", "wrmsr", "msr_writes"),
    Kind.RDTSC: KindInfo("tsc", "rdtsc", "rdtsc_exits"),
    Kind.PAGE_ALLOCATED: KindInfo("memory", "page-allocated", "pages_allocated"),
    Kind.DISCARDED_WRITE: KindInfo("memory", "discarded-write", "discarded_writes"),
    Kind.RESET: KindInfo("stop", "reset", "resets"),
    Kind.STOP: KindInfo("stop", "stop", "stops"),
    Kind.DEVICE_READ: KindInfo("mmio", "device-read", "mmio_reads"),
    Kind.DEVICE_WRITE: KindInfo("mmio", "device-write", "mmio_writes"),
    Kind.SYSTEM_CALL: KindInfo("syscall", "syscall", "syscalls"),
    Kind.BALLOON_LOCK: KindInfo("balloon", "balloon-lock", "balloon_locks"),
    Kind.BALLOON_UNLOCK: KindInfo("balloon", "balloon-unlock", "balloon_unlocks"),
    Kind.BALLOON_POP: KindInfo("balloon", "balloon-pop", "balloon_pops"),
    Kind.BALLOON_TARGET: KindInfo("balloon", "balloon-target", "balloon_targets"),
    Kind.PAGE_SHARED: KindInfo("sharing", "page-shared", "pages_shared"),
    Kind.COW_BREAK: KindInfo("sharing", "cow-break", "cow_breaks"),
    Kind.SWAP_OUT: KindInfo("swap", "swap-out", "swap_outs"),
    Kind.SWAP_IN: KindInfo("swap", "swap-in", "swap_ins"),
    Kind.TASK_SWITCH: KindInfo("task", "task-switch", "task_switches"),
}
assert set(CATALOGUE) == set(Kind)
GROUPS = tuple(dict.fromkeys(info.group for info in CATALOGUE.values()))


def selection_mask(groups: tuple[str, ...]) -> int:
    """The bits of all kinds in `groups`; raises KeyError with the unknown name.

    An empty tuple selects everything.
    """
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise KeyError(unknown[0])
    return sum(1 << kind for kind, info in CATALOGUE.items() if not groups or info.group in groups)
