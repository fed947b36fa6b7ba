"""The control block: the words through which native code and Python share the state of one VM.

One int64 array per VM. Addresses are of this process ("host address"); those of machine memory are offsets (MA) from
`MEMORY`. Who may write a word stands beside it: P Python while the VM is stopped, N native code while it runs.
"""

from __future__ import annotations

WORDS = 192

# The engine. Written once, by `emu.machine.cpu`.
ENGINE = 0  # P: uc_engine *
FN_COPY = 1  # P: memmove
HOST_CONTEXT = 2  # P: uc_context * of the engine before VMRUN (paging off: addresses are machine addresses)
ENV = 3  # P: host address of CONTEXT, a CPUX86State: the guest's registers at each exit (`emu.vm.context`)
ERROR_CODE = 4  # P: host address of its error_code (a field of CONTEXT found by calibration)
FN_SAVE = 5  # P: uc_context_save
FN_RESTORE = 6  # P: uc_context_restore
FN_STOP = 7  # P: uc_emu_stop
FN_REG_READ = 8  # P: uc_reg_read
FN_REG_WRITE = 9  # P: uc_reg_write
FN_CTL = 10  # P: uc_ctl
SCRATCH = 11  # P: host address of 64 spare bytes for register values
VMCB = 12  # P: host address of the VMCB
CC_OP_EFLAGS = 13  # P: the engine's code for "the flags are in cc_src"
MODIFIED = 14  # N, P: CONTEXT differs from the engine; it is restored before the guest goes on

SELF = 15  # P: host address of this block

# Machine memory and the pmap.
MEMORY = 16  # P: host address of machine memory
SLOTS = 17  # P: pages in the pmap, the absent page included
ABSENT = 18  # P: slot that stands for every page outside RAM and ROM
RAM_PAGES = 19  # P
PMAP = 20  # P: host address of int64[SLOTS]
RMAP = 21  # P: host address of int32[SLOTS]: first link + 1 of the shadow entries that map the page
TABLES = 22  # P: host address of int32[SLOTS]: first shadow page + 1 that shadows the page as a guest table
RESERVE = 23  # P: host address of int64[]: frames ready for use, zeroed
RESERVE_COUNT = 24  # N takes from the end, P refills
NESTED_ROOT = 25  # P: MA of the nested PML4
NESTED_PAGES = 26  # N: frames in nested tables
VM_ID = 27  # P
ROM_FIRST = 28  # P: PPN of the ROM's low copy
ROM_PAGES = 29  # P
FRAMES = 30  # P: host address of the frame table

# Guest registers that differ from the engine's.
GUEST_CR0 = 32  # N, P
GUEST_CR3 = 33
GUEST_CR4 = 34
SHADOWING = 35  # N, P: 1 while the engine walks shadow tables, 0 while nested ones
USE_SHADOW = 36  # P: 1 with --mmu shadow
NESTED_PLAIN = 37  # N: 1 while nested entries tell nothing of code (`emu.vm.nested`)
GUEST_EFER = 38  # N, P
GUEST_LEVELS = 39  # N, P: form of the guest's paging (`emu.machine.paging`): 0 unpaged, 2, 3 or 4 levels
GUEST_RESERVED = 54  # N, P: bits that no 64-bit entry of the guest's tables may have

# Shadow pages (`emu.vm.rows`).
SHADOW_ROWS = 40  # P: host address of int32[SHADOW_MAX][16]
LINKS = 41  # P: host address of int32[SHADOW_MAX * 512][2]: next + 1, previous + 1 (negative: head of list)
SHADOW_MAX = 42  # P
SHADOW_FREE = 43  # N: first free row + 1
SHADOW_USED = 44  # N: rows in use
ROOT = 45  # N: row of the root that the engine walks, -1 none
NEEDS_TLB_FLUSH = 46  # N: an entry became stricter
UNSYNC_ROWS = 47  # P: host address of int32[UNSYNC_MAX]: slots of out-of-sync guest tables, -1 free
UNSYNC_COPIES = 48  # P: host address of UNSYNC_MAX * 4096 bytes: the tables as last read
UNSYNC_COUNT = 49  # N
UNSYNC_MAX = 52  # P
SHADOW_FULL = 53  # N: 1 when a shadow page was asked for and none could be had
LRU_CLOCK = 50  # N: counts root loads; a row keeps the value of its last use

SHADOW_OPTIONS = 55  # P: bits of the optimizations in force (`emu.vm.shadow`)

# Virtual time.
INSNS = 56  # N: retired guest instructions
DEADLINE = 57  # P: virtual time at which the next block stops the VM
BLOCKS = 58  # P: host address of the block table
BLOCK = 59  # N: host address of the block table's entry for the block that runs, 0 none
ENTER_BLOCK_FN = 60  # P: C function (control block, address, size, 0) for what the block hook does not do itself
CODE_EPOCH = 62  # N: changes when linear addresses may have got other code
CODE_PAGES = 157  # P: host address of the table of pages that code was fetched from (`emu.vm.access`)
CODE_TAG = 65  # N: epoch and address space, as entries of the block table carry them
CODE_COPY = 66  # P: host address of 8192 bytes: a block of code that crosses pages
IRQ_WAITING = 63  # P: 1 while the PIC asks and the guest could not take it yet
NMI_WAITING = 67  # P: 1 while an NMI was sent and the guest could not take it yet
WAKE = 64  # N, P: min(DEADLINE, now) while something waits: what the block hook compares with

# Exits.
REASON = 72  # N: why the engine stopped (`emu.vm.exits`), 0 while running
EXIT_CODE = 73  # N: the number that UC_HOOK_INTR gave
STEPPING = 74  # N: pages opened for the one guest instruction that runs under the trap flag (0: none does)
STEP_ROWS = 75  # P: host address of the records of those pages (`emu.vm.step`)
STEP_COPIES = 76  # P: host address of one page for each of them: its contents before
STEP_TRAP = 77  # N: the guest's own trap flag
STEP_TIME = 78  # N: virtual time before the instruction
STEP_START = 119  # N: EIP of the instruction
STEP_REPEATS = 120  # N: 1 if it is a repeated store
SINKS = 79  # P: host address of int64[2]: MPNs of the frames that take stores without effect
IO_TIME = 95  # N: virtual time of the port instruction that poisoned
IO_NOW = 80  # N: virtual time of the port access under way, -1 otherwise
PENDING_FAULT = 81  # N: vector + 1 of a fault found inside a port instruction
PENDING_ERROR = 82  # N: its error code
PORT_READ_FN = 83  # P: C function (port, size) -> value
PORT_WRITE_FN = 84  # P: C function (port, size, value)
IO_CONTEXT = 85  # P: uc_context * saved when a port instruction must be undone
STOPPED = 86  # P: no further port access has effect
MEMORY_EXIT_FN = 109  # P: C functions (control block, exit code) of `emu.vm.handler`
REGISTER_EXIT_FN = 110
DELIVER_FN = 111
EXIT_INFO = 87  # N: second datum of an exit (faulting address)
EMPTY_ROOT = 88  # P: MA of an empty table
IO_POISONED = 89  # N: 1 while no guest address translates, so that the port instruction's block cannot go on

# Events.
EVENTS = 96  # P: host address of the ring
EVENTS_MASK = 97  # P: rows - 1
EVENT_COUNT = 98  # N: records written since the start
EVENT_LIMIT = 99  # P: stop for draining when EVENT_COUNT comes near
EVENT_SELECTION = 100  # P: bit per kind that is recorded
EVENT_INSNS = 101  # P: 1 to record the instruction's bytes
COUNTERS = 102  # P: host address of int64[32]
EXITS = 103  # N: all VM exits
HIDDEN_NESTED = 104  # N: nested faults served
PF_TAKEN = 105  # N: #PF exits
INSN_AT = 106  # P: host address of 64 bytes: the guest instruction that events are about; from byte 32 the one that is stepped
EVENT_RIP = 116  # N: of the guest instruction that events are about
INSN_BYTES = 107  # N: how many of them are valid
INSN_LENGTH = 108  # N: of the instruction, at an exit that Python serves
FAULT_CODE = 90  # N: error code of the true fault at EXIT_INFO
SAME_FAULT = 91  # N: faults since the last instruction that retired, or event that was delivered (`emu.vm.fault_runs`)
FAULT_TIME = 92  # N: virtual time of the last fault
FAULT_RUN = 186  # N: instructions in a row that faulted
IN_RUN = 187  # N: 1 while the instruction at RIP runs under a trap flag for being in such a row
POISONED_ENTRY = 93  # N: the nested entry taken away while IO_POISONED
TSC_OFFSET = 94  # P: what the time-stamp counter shows beyond virtual time

# The event that the exit under way gives the guest: found anywhere, delivered in one place (`emu.vm.handler`).
DUE = 112  # N, P: vector + 1, 0 none
DUE_SOURCE = 113
DUE_ERROR = 114  # error code
DUE_ADDRESS = 115  # of a page fault
DELIVERED_AT = 188  # N: virtual time of the last event that was delivered
IN_VAIN = 189  # N: events delivered since the last instruction that retired, but for the first

# Long mode and system calls (`emu.vm.registers`): what the engine keeps beyond the fields of `emu.machine.env`.
EFER_AT = 128  # P: host addresses within CONTEXT, found by calibration
STAR_AT = 129
KERNEL_GS_BASE_AT = 130
SYSENTER_CS_AT = 131
SYSENTER_ESP_AT = 132
SYSENTER_EIP_AT = 133
GUEST_LSTAR = 136  # P
GUEST_CSTAR = 137
GUEST_SFMASK = 138

# Hardware task switches (`emu.vm.task_switch`), which the engine must not make.
TASK_GATE_FN = 163  # P: C function (control block, gate and event, IP, error code) for an event that meets a task gate
TASK_EXIT_FN = 164  # P: C function (control block, exit code) for what may be a task switch
INTERCEPTS_AT = 148  # P: host address of the engine's own word of intercepts, as the VMCB has it

ENGINE_CR3 = 149  # N: what the VMM put into the engine's CR3

# Where the engine's own state is, and what of it goes to and from CONTEXT (`emu.vm.context`).
LIVE = 150  # P: host address of the engine's CPUX86State
LOW_BYTES = 151  # P: bytes from its beginning up to the FPU's registers
HIGH_AT = 152  # P: where the part behind the vector registers begins
HIGH_BYTES = 153  # P: and its bytes
ASIDE_CONTEXT = 154  # P: uc_context * for the guest's state while the engine is in HOST_CONTEXT
ENGINE_CPU = 155  # P: the engine's CPUState *
# The balloon (`emu.vm.balloon`).
BALLOON_PAGES = 158  # N: pages in it
BALLOON_POPPED = 159  # N: 1 once the guest touched one of them
IS_LOOKING = 162  # P: 1 while the VMM reads guest memory for a user's eyes: the guest must not be able to tell
FREED = 160  # P: host address of int64[512]: MPNs taken from the VM
FREED_COUNT = 161  # N, P

DROPPED = 171  # P: host address of int64[SLOTS]: MPNs of shared frames that pages of the VM do not use any more
DROPPED_COUNT = 172  # N, P
SWAP_IN_FN = 173  # P: C function (slot, MPN) that puts a page's contents into a frame, 0 if it did
SWAP_FAILED = 174  # N: 1 once it did not
STALL = 175  # N, P: virtual time that must pass before the guest goes on: the disk's, for pages that came from it
HISTORY = 176  # P: host address of int64[SLOTS][4], what sharing did to each page (`emu.vm.cow`); 0: not kept
WATCHED = 177  # P: host address of uint8[SLOTS]: pages whose next access is waited for (`emu.vm.watching`)
FN_FLUSH_PAGE = 156  # P: its tlb_flush_page(CPUState *, address); 0 if this library does not show it

# Memory-mapped devices (`emu.vm.step`).
DEVICE_READ_FN = 140  # P: C function (slot's number, offset) -> 32-bit value
DEVICE_WRITE_FN = 141  # P: C function (slot's number, offset, value)

# Counters of the shadow MMU beyond those of events.
CACHE_HITS = 144  # N: shadow pages found again
PREFETCHED = 145  # N: entries filled before a fault asked for them
RECYCLED = 146  # N: shadow pages dropped to make room
FLOODED = 147  # N: tables given up because they were written as data

# Words that hold addresses of this process, or handles: another process that goes on with a VM has its own (`emu.vm.state`).
HOST_ADDRESSES = (
    ENGINE,
    FN_COPY,
    HOST_CONTEXT,
    ENV,
    ERROR_CODE,
    FN_SAVE,
    FN_RESTORE,
    FN_STOP,
    FN_REG_READ,
    FN_REG_WRITE,
    FN_CTL,
    SCRATCH,
    VMCB,
    SELF,
    MEMORY,
    PMAP,
    RMAP,
    TABLES,
    RESERVE,
    FRAMES,
    SHADOW_ROWS,
    LINKS,
    UNSYNC_ROWS,
    UNSYNC_COPIES,
    BLOCKS,
    BLOCK,
    ENTER_BLOCK_FN,
    CODE_PAGES,
    CODE_COPY,
    STEP_ROWS,
    STEP_COPIES,
    SINKS,
    PORT_READ_FN,
    PORT_WRITE_FN,
    IO_CONTEXT,
    MEMORY_EXIT_FN,
    REGISTER_EXIT_FN,
    DELIVER_FN,
    EVENTS,
    COUNTERS,
    INSN_AT,
    EFER_AT,
    STAR_AT,
    KERNEL_GS_BASE_AT,
    SYSENTER_CS_AT,
    SYSENTER_ESP_AT,
    SYSENTER_EIP_AT,
    INTERCEPTS_AT,
    TASK_GATE_FN,
    TASK_EXIT_FN,
    LIVE,
    ASIDE_CONTEXT,
    ENGINE_CPU,
    FREED,
    DROPPED,
    HISTORY,
    WATCHED,
    SWAP_IN_FN,
    FN_FLUSH_PAGE,
    DEVICE_READ_FN,
    DEVICE_WRITE_FN,
)
