# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzz guest in Python, on the reference MMU with a defect: shows that the comparison notices."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tests.truth import layout, mmu
from tests.truth.cases import Board, Model, Operation, RefusedError
from tests.truth.layout import REPORT_ACCESS, REPORT_CASE, REPORT_DONE, REPORT_END

Defect = Callable[[mmu.ReadEntry, mmu.Registers, mmu.Access], mmu.Result]
OPERANDS = {"cr0": 1, "cr3": 1, "cr4": 1, "efer": 1, "mode": 5}
NAMES = {getattr(layout, name.upper()): name for name in OPERANDS}


def _without_write_protection(read: mmu.ReadEntry, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
    return mmu.translate(read, replace(registers, cr0=registers.cr0 & ~mmu.CR0_WP), access)


def _without_smap(read: mmu.ReadEntry, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
    return mmu.translate(read, replace(registers, cr4=registers.cr4 & ~mmu.CR4_SMAP), access)


def _without_dirty(read: mmu.ReadEntry, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
    result = mmu.translate(read, registers, access)
    return replace(result, marks=tuple(replace(mark, bits=mark.bits & ~mmu.D) for mark in result.marks))


def _marks_on_a_fault(read: mmu.ReadEntry, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
    result = mmu.translate(read, registers, access)
    if not isinstance(result.outcome, mmu.PageFault) or not result.ended_at or not result.outcome.error_code & mmu.ERROR_P:
        return result
    level, at = result.ended_at
    return replace(result, may_mark=(*result.may_mark, mmu.Mark(at, level.entry_bytes, mmu.A)))


DEFECTS: dict[str, Defect] = {
    "no write protection": _without_write_protection,
    "no SMAP": _without_smap,
    "no D": _without_dirty,
    "A on a fault": _marks_on_a_fault,
}


class Defective(Model):
    """The model with another MMU; an A bit that may be set is set."""

    def __init__(self, defect: Defect) -> None:
        super().__init__(Board())
        self.defect = defect

    def translate(self, registers: mmu.Registers, access: mmu.Access) -> mmu.Result:
        """What the defective MMU makes of an access."""
        return self.defect(self.read, registers, access)

    def _may_mark(self, mark: mmu.Mark) -> None:
        self._mark(mark)


class Script:
    """A script's words, read in order."""

    def __init__(self, data: bytes) -> None:
        self.words = iter(struct.unpack(f"<{len(data) // 4}I", data))

    def take(self, count: int) -> list[int]:
        """The next words."""
        return [next(self.words) for _ in range(count)]

    def quad(self) -> int:
        """The next 64 bits."""
        low, high = self.take(2)
        return low | high << 32

    def operation(self, code: int) -> Operation:
        """The operation that `code` begins."""
        if code == layout.POKE32:
            address, value = self.take(2)
            return ["poke", address, 4, value, code]
        if code in (layout.POKE64, layout.POKE64_LOCKED, layout.POKE64_STRING):
            return ["poke", next(self.words), 8, self.quad(), code]
        if code == layout.INVLPG:
            return ["invlpg", self.quad()]
        if code == layout.ACCESS:
            return ["access", next(self.words), self.quad(), next(self.words)]
        return [NAMES[code], *self.take(OPERANDS[NAMES[code]])]


def run(script: bytes, defect: Defect | None) -> tuple[bytes, str]:
    """The report that a guest on such an MMU makes."""
    words, report = Script(script), bytearray()
    model, watched, last = Model(), [], {}
    while code := next(words.words):
        if code == layout.CASE:
            number, count = words.take(2)
            watched, last = words.take(count), {}
            model = Defective(defect) if defect else Model()
            report += struct.pack("<BI", REPORT_CASE, number)
        elif code == layout.END:
            report += struct.pack("<BI", REPORT_END, 0)
        else:
            try:
                report += _carry_out(model, words.operation(code), watched, last)
            except RefusedError as error:
                return bytes(report), f"the guest is lost: {error}"
    report.append(REPORT_DONE)
    return bytes(report), ""


def _carry_out(model: Model, operation: Operation, watched: list[int], last: dict[int, int]) -> bytes:
    expected = model.apply(operation)
    if expected is None:
        return b""
    changes = []
    for number, address in enumerate(watched):
        word = model.word(address) | model.word(address + 4) << 32
        if word != last.get(address, layout.pattern(address) | layout.pattern(address + 4) << 32):
            changes.append(struct.pack("<BQ", number, word))
            last[address] = word
    head = struct.pack("<BBHQI", REPORT_ACCESS, expected.vector, expected.error, expected.cr2, expected.value or 0)
    return head + bytes([len(changes)]) + b"".join(changes)
