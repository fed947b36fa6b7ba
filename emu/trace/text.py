"""The text trace: one line an event, in the field's words.

    virtual time, RIP, event, what it is about, `;` and the guest's instruction

Page-table entries are shown as frame and flags XGDACTWUP (NX, global, dirty, accessed, cache disable, write-through,
writable, user, present), `-` where a flag is clear.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import capstone
import numpy as np

from emu.events import CATALOGUE, NESTED_FAULT, NO_PAGE, Kind, Outcome
from emu.machine.paging import FRAME_MASK, fault_name

FLAG_LETTERS = ((63, "X"), (8, "G"), (6, "D"), (5, "A"), (4, "C"), (3, "T"), (1, "W"), (2, "U"), (0, "P"))
WIDE_CODE, LONG_CODE = 0x80, 0x40  # in insn_bytes: 32-bit, 64-bit code
LENGTH_MASK = 0x0F
OUTCOMES = tuple(Outcome)
ERROR_CODE_VALID = 1 << 31
TASK_SWITCHES = ("jumped to", "nested", "returned to")
EXCEPTION_NAMES = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM",
}  # fmt: skip


def entry_flags(entry: int) -> str:
    """The flags of a page-table entry, nine characters."""
    return "".join(letter if entry >> bit & 1 else "-" for bit, letter in FLAG_LETTERS)


def entry_text(entry: int) -> str:
    """A shadow or nested entry: frame and flags, or `none`."""
    return f"{(entry & FRAME_MASK) >> 12:05x} {entry_flags(entry)}" if entry & 1 else "none"


def guest_entry_text(entry: int) -> str:
    """A guest's entry: its value and, if present, its flags."""
    return f"{entry:08x} {entry_flags(entry)}" if entry & 1 else f"{entry:08x}"


@functools.lru_cache(maxsize=4096)
def disassemble(insn: bytes, bits: int, address: int) -> str:
    """The first instruction of `insn`; its bytes where Capstone knows none."""
    for _at, _size, mnemonic, operands in _disassembler(bits).disasm_lite(insn, address, 1):
        return f"{mnemonic} {operands}".rstrip()
    return "(" + insn[:4].hex(" ") + ")"


@functools.cache
def _disassembler(bits: int) -> capstone.Cs:
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])


def _page(record: np.void) -> str:
    parts = []
    if record["ppn"] != NO_PAGE:
        parts.append(f"PPN {record['ppn']:05x}")
    if record["mpn"] != NO_PAGE:
        parts.append(f"MPN {record['mpn']:05x}")
    return " ".join(parts)


def _hidden_fault(r: np.void) -> str:
    space = "PA" if int(r["info"]) & NESTED_FAULT else "VA"
    change = f"{entry_text(int(r['old']))} -> {entry_text(int(r['new']))}"
    return f"{space} {r['va']:08x} {fault_name(int(r['info']) & 0x1F)} {_page(r)} {change}"


def _exception(r: np.void) -> str:
    info = int(r["info"])
    name = EXCEPTION_NAMES.get(info & 0xFF, f"vector {info & 0xFF:02x}")
    if not info & ERROR_CODE_VALID:
        return name
    code = info >> 8 & 0xFFFF
    return f"{name} {fault_name(code)}" if info & 0xFF == 14 else f"{name} error {code:04x}"


def _pte_write(r: np.void) -> str:
    change = f"{guest_entry_text(int(r['old']))} -> {guest_entry_text(int(r['new']))}"
    return f"PPN {r['ppn']:05x}[{r['info']}] {change}"


def _shadow_update(r: np.void) -> str:
    return f"PPN {r['ppn']:05x}[{r['info']}] {entry_text(int(r['old']))} -> {entry_text(int(r['new']))}"


def _cr3(r: np.void) -> str:
    root = "" if r["mpn"] == NO_PAGE else f" root MPN {r['mpn']:05x} {'found again' if r['info'] else 'new'}"
    return f"{r['old']:08x} -> {r['new']:08x}{root}"


def _stop(r: np.void) -> str:
    outcome = OUTCOMES[int(r["info"])]
    return f"{outcome} with value {r['va']}" if outcome is Outcome.EXITED else str(outcome)


DETAILS: dict[Kind, Callable[[np.void], str]] = {
    Kind.CR3_LOAD: _cr3,
    Kind.CR_WRITE: lambda r: f"CR{r['info']} {r['old']:08x} -> {r['new']:08x}",
    Kind.HIDDEN_FAULT: _hidden_fault,
    Kind.TRUE_FAULT: lambda r: f"VA {r['va']:08x} {fault_name(int(r['info']))}",
    Kind.PTE_WRITE: _pte_write,
    Kind.SHADOW_UPDATE: _shadow_update,
    Kind.UNSYNC: _page,
    Kind.SYNC: lambda r: f"{_page(r)} {r['info']} entries differ",
    Kind.SHADOW_PAGE: lambda r: f"{_page(r)} level {r['info']}",
    Kind.ZAP: lambda r: f"{_page(r)} level {r['info']}",
    Kind.INVLPG: lambda r: f"VA {r['va']:08x}",
    Kind.TLB_FLUSH: lambda _: "",
    Kind.CODE_FLUSH: _page,
    Kind.EXCEPTION: _exception,
    Kind.INTERRUPT: lambda r: f"vector {r['info']:02x}",
    Kind.SOFTWARE_INT: lambda r: f"vector {r['info']:02x}",
    Kind.PORT_READ: lambda r: f"port {r['va']:04x} size {r['info']} -> {r['new']:x}",
    Kind.PORT_WRITE: lambda r: f"port {r['va']:04x} size {r['info']} <- {r['new']:x}",
    Kind.HALT: lambda _: "",
    Kind.CPUID: lambda r: f"leaf {r['old']:08x} subleaf {r['info']:x}",
    Kind.MSR_READ: lambda r: f"MSR {r['va']:08x} -> {r['new']:x}",
    Kind.MSR_WRITE: lambda r: f"MSR {r['va']:08x} <- {r['new']:x}",
    Kind.RDTSC: lambda r: f"{r['new']}",
    Kind.PAGE_ALLOCATED: _page,
    Kind.DISCARDED_WRITE: lambda r: f"address {r['va']:08x} PPN {r['ppn']:05x}",
    Kind.RESET: lambda _: "",
    Kind.DEVICE_READ: lambda r: f"PA {r['va']:08x} -> {r['new']:08x}",
    Kind.DEVICE_WRITE: lambda r: f"PA {r['va']:08x} <- {r['new']:08x}",
    Kind.SYSTEM_CALL: lambda r: f"to {r['new']:08x}",
    Kind.BALLOON_LOCK: lambda r: f"PPN {r['ppn']:05x}" + ("" if r["mpn"] == NO_PAGE else f", MPN {r['mpn']:05x} to the machine"),
    Kind.BALLOON_UNLOCK: lambda r: f"PPN {r['ppn']:05x}",
    Kind.BALLOON_POP: lambda r: f"PPN {r['ppn']:05x}",
    Kind.BALLOON_TARGET: lambda r: f"{r['old']} -> {r['new']} pages",
    Kind.PAGE_SHARED: lambda r: f"PPN {r['ppn']:05x} MPN {r['old']:05x} -> {r['mpn']:05x}",
    Kind.COW_BREAK: lambda r: f"PPN {r['ppn']:05x} MPN {r['old']:05x} -> {r['mpn']:05x}",
    Kind.SWAP_OUT: _page,
    Kind.SWAP_IN: _page,
    Kind.TASK_SWITCH: lambda r: f"{r['old']:04x} -> {r['new']:04x} {TASK_SWITCHES[int(r['info'])]}, segment at VA {r['va']:08x}",
    Kind.STOP: _stop,
}
assert set(DETAILS) == set(Kind)


def line(record: np.void) -> str:
    """The trace line of one record (dtype `emu.events.RECORD`)."""
    kind = Kind(int(record["kind"]))
    head = f"{record['time']:>12} {record['rip']:08x} {CATALOGUE[kind].label:<15} {DETAILS[kind](record)}"
    length = int(record["insn_bytes"]) & LENGTH_MASK
    if not length:
        return head.rstrip()
    bits = 64 if int(record["insn_bytes"]) & LONG_CODE else 32 if int(record["insn_bytes"]) & WIDE_CODE else 16
    insn = record["insn"].tobytes().ljust(15, b"\0")[:length]
    return f"{head:<100} ; {disassemble(insn, bits, int(record['rip']))}"


def lines(records: np.ndarray) -> Iterator[str]:
    """The lines of a `RECORD` array."""
    return (line(record) for record in records)
