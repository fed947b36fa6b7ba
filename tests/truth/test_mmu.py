# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference MMU against cases worked out by hand from the tables of the manuals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.truth import mmu
from tests.truth.mmu import Access, Format, GeneralProtection, Kind, Mark, PageFault, Registers, Translation, bits

P, RW, US, A, D, PS, G, XD = mmu.P, mmu.RW, mmu.US, mmu.A, mmu.D, mmu.PS, mmu.G, mmu.XD
ALL = P | RW | US
WP_ON = mmu.CR0_PE | mmu.CR0_PG | mmu.CR0_WP
REGISTERS = {
    Format.BITS32: Registers(WP_ON, 0x1000, mmu.CR4_PSE),
    Format.PAE: Registers(WP_ON, 0x1000, mmu.CR4_PAE, mmu.EFER_NXE),
    Format.LONG: Registers(WP_ON, 0x1000, mmu.CR4_PAE, mmu.EFER_LME | mmu.EFER_LMA | mmu.EFER_NXE),
}
LINEAR = {Format.BITS32: 0x0040_2345, Format.PAE: 0x4020_2345, Format.LONG: 0x80_4020_2345}
PAGED = [Format.BITS32, Format.PAE, Format.LONG]


class Tables:
    """Tables that map LINEAR to frame 0x9000: entry 1 of a table at 0x1000, 0x2000, ...; entry 2 of the last one."""

    def __init__(self, fmt: Format) -> None:
        self.fmt = fmt
        self.registers = REGISTERS[fmt]
        self.places: dict[str, int] = {}
        self.memory: dict[int, int] = {}
        for number, level in enumerate(mmu.LEVELS[fmt], 1):
            index = 2 if level.name == "PTE" else 1
            self.places[level.name] = 0x1000 * number + index * level.entry_bytes
            rights = ALL if level.has_rights else P
            self.memory[self.places[level.name]] = (0x9000 if level.name == "PTE" else 0x1000 * (number + 1)) | rights

    def change(self, level: str, *, add: int = 0, remove: int = 0) -> None:
        at = self.places[level]
        self.memory[at] = self.memory[at] & ~remove | add

    def access(self, kind: Kind = Kind.READ, *, user: bool = False, implicit: bool = False, **changes: int | bool) -> mmu.Result:
        registers = replace(self.registers, cpl=3 if user else 0, **changes)
        return mmu.translate(lambda at, _size: self.memory.get(at, 0), registers, Access(LINEAR[self.fmt], kind, implicit))

    def error(self, kind: Kind = Kind.READ, **how: int | bool) -> int | None:
        """The error code, None if the access is permitted."""
        outcome = self.access(kind, **how).outcome
        assert not isinstance(outcome, PageFault) or outcome.cr2 == LINEAR[self.fmt]
        return outcome.error_code if isinstance(outcome, PageFault) else None


@pytest.mark.parametrize(("cr0", "cr4", "efer", "expected"), [
    (mmu.CR0_PE, mmu.CR4_PAE, mmu.EFER_LME, Format.NONE),
    (WP_ON, 0, 0, Format.BITS32),
    (WP_ON, mmu.CR4_PAE, mmu.EFER_LME, Format.PAE),
    (WP_ON, mmu.CR4_PAE, mmu.EFER_LMA, Format.LONG),
])  # fmt: skip
def test_control_registers_choose_the_format(cr0, cr4, efer, expected):
    assert mmu.paging_format(Registers(cr0, 0, cr4, efer)) is expected


def test_without_paging_an_address_is_physical():
    result = mmu.translate(lambda *_: 0, Registers(mmu.CR0_PE, 0, 0), Access(0x1234, Kind.WRITE))
    assert result.outcome.physical == 0x1234
    assert not result.marks


@pytest.mark.parametrize("fmt", PAGED)
def test_a_translation_marks_every_entry_but_pdptes_of_pae(fmt):
    tables = Tables(fmt)
    result = tables.access(Kind.WRITE, user=True)
    assert result.outcome == Translation(0x9345, 4096, writable=True, user=True, executable=True, is_global=False)
    size = 4 if fmt is Format.BITS32 else 8
    upper = [name for name in tables.places if name != "PTE" and (fmt, name) != (Format.PAE, "PDPTE")]
    assert result.marks == (*(Mark(tables.places[name], size, A) for name in upper), Mark(tables.places["PTE"], size, A | D))


@pytest.mark.parametrize("fmt", PAGED)
def test_an_entry_that_is_not_present_ends_the_walk(fmt):
    for level in mmu.LEVELS[fmt]:
        tables = Tables(fmt)
        tables.change(level.name, remove=P, add=bits(8, 1))
        assert tables.error() == 0
        assert tables.error(Kind.WRITE) == 2
        assert tables.error(user=True) == 4
        assert tables.error(Kind.WRITE, user=True) == 6
        assert tables.error(Kind.FETCH, user=True) == (4 if fmt is Format.BITS32 else 0x14)


@pytest.mark.parametrize("fmt", PAGED)
def test_a_fault_leaves_the_entry_that_refused_alone_and_may_mark_those_above(fmt):
    tables = Tables(fmt)
    tables.change("PTE", remove=RW)
    result = tables.access(Kind.WRITE)
    assert isinstance(result.outcome, PageFault)
    assert not result.marks
    assert tables.places["PTE"] not in {mark.physical for mark in result.may_mark}
    assert tables.places["PDE"] in {mark.physical for mark in result.may_mark}


@pytest.mark.parametrize("fmt", PAGED)
def test_rights_are_those_that_all_levels_grant(fmt):
    for level in mmu.LEVELS[fmt]:
        if not level.has_rights:
            continue
        tables = Tables(fmt)
        tables.change(level.name, remove=RW)
        assert tables.error(Kind.WRITE, user=True) == 7
        assert tables.error(Kind.WRITE) == 3
        assert tables.error(Kind.WRITE, cr0=WP_ON & ~mmu.CR0_WP) is None
        assert tables.error(Kind.WRITE, user=True, cr0=WP_ON & ~mmu.CR0_WP) == 7
        tables.change(level.name, add=RW, remove=US)
        assert tables.error(user=True) == 5
        assert tables.error() is None
        if fmt is not Format.BITS32:
            tables.change(level.name, add=US | XD)
            assert tables.error(Kind.FETCH) == 0x11
            assert tables.error(Kind.FETCH, user=True) == 0x15
            assert tables.error(Kind.WRITE) is None


@pytest.mark.parametrize("fmt", PAGED)
def test_smep_forbids_the_supervisor_to_execute_user_pages(fmt):
    tables = Tables(fmt)
    cr4 = tables.registers.cr4 | mmu.CR4_SMEP
    assert tables.error(Kind.FETCH, cr4=cr4) == 0x11
    assert tables.error(Kind.FETCH, cr4=cr4, user=True) is None
    assert tables.error(Kind.READ, cr4=cr4) is None
    tables.change("PTE", remove=US)
    assert tables.error(Kind.FETCH, cr4=cr4) is None
    tables.change("PTE", remove=P)
    assert tables.error(Kind.FETCH, cr4=cr4, efer=tables.registers.efer & ~mmu.EFER_NXE) == 0x10


@pytest.mark.parametrize("fmt", PAGED)
def test_smap_keeps_the_supervisor_off_user_pages_unless_ac_is_set(fmt):
    tables = Tables(fmt)
    cr4 = tables.registers.cr4 | mmu.CR4_SMAP
    assert tables.error(cr4=cr4) == 1
    assert tables.error(Kind.WRITE, cr4=cr4) == 3
    assert tables.error(Kind.WRITE, cr4=cr4, cr0=WP_ON & ~mmu.CR0_WP) == 3
    assert tables.error(cr4=cr4, ac=True) is None
    assert tables.error(cr4=cr4, ac=True, implicit=True) == 1
    assert tables.error(cr4=cr4, ac=True, implicit=True, user=True) == 1
    assert tables.error(cr4=cr4, user=True) is None
    assert tables.error(Kind.FETCH, cr4=cr4) is None


@pytest.mark.parametrize("fmt", PAGED)
def test_an_implicit_access_is_the_supervisor_s(fmt):
    tables = Tables(fmt)
    tables.change("PTE", remove=US)
    assert tables.error(user=True, implicit=True) is None


@pytest.mark.parametrize(("fmt", "level", "reserved"), [
    (Format.BITS32, "PDE", 0), (Format.BITS32, "PTE", 0),
    (Format.PAE, "PDPTE", bits(2, 1) | bits(8, 5) | bits(63, 40)),
    (Format.PAE, "PDE", bits(62, 40)), (Format.PAE, "PTE", bits(62, 40)),
    (Format.LONG, "PML4E", bits(51, 40) | PS), (Format.LONG, "PDPTE", bits(51, 40)),
    (Format.LONG, "PDE", bits(51, 40)), (Format.LONG, "PTE", bits(51, 40)),
])  # fmt: skip
def test_reserved_bits_of_each_entry(fmt, level, reserved):
    makes_leaf = (fmt, level) in ((Format.PAE, "PDE"), (Format.LONG, "PDE"), (Format.LONG, "PDPTE"))
    for bit in (1 << number for number in range(32 if fmt is Format.BITS32 else 64)):
        if bit == PS and makes_leaf:
            continue  # other bits are reserved then: see the tests of large pages
        tables = Tables(fmt)
        tables.change(level, add=bit)
        faults = tables.error(Kind.WRITE) == mmu.ERROR_P | mmu.ERROR_WR | mmu.ERROR_RSVD
        assert faults == bool(bit & reserved), f"{bit:#x}"


@pytest.mark.parametrize("fmt", [Format.PAE, Format.LONG])
def test_xd_is_reserved_without_nxe_and_fetches_are_not_told_apart(fmt):
    tables = Tables(fmt)
    tables.change("PTE", add=XD)
    efer = tables.registers.efer & ~mmu.EFER_NXE
    assert tables.error(efer=efer) == 9
    assert tables.error(Kind.FETCH, user=True, efer=efer) == 0xD


def test_xd_does_not_exist_in_32_bit_paging():
    tables = Tables(Format.BITS32)
    tables.change("PTE", remove=P)
    assert tables.error(Kind.FETCH, efer=mmu.EFER_NXE) == 0


def test_a_4_mb_page_has_address_bits_39_to_32_in_bits_20_to_13():
    tables = Tables(Format.BITS32)
    tables.memory[tables.places["PDE"]] = 0x0080_0000 | 0xA5 << 13 | ALL | PS | G
    result = tables.access(Kind.WRITE, cr4=mmu.CR4_PSE | mmu.CR4_PGE)
    assert result.outcome == Translation(0xA5_0080_2345, 4 << 20, writable=True, user=True, executable=True, is_global=True)
    assert result.marks == (Mark(tables.places["PDE"], 4, A | D),)
    tables.change("PDE", add=bits(21, 21))
    assert tables.error() == 9


def test_ps_is_ignored_without_pse():
    tables = Tables(Format.BITS32)
    tables.change("PDE", add=PS | bits(21, 21))
    tables.memory[0x20_2008] = 0x9000 | P
    assert tables.access(cr4=0).outcome.physical == 0x9345


@pytest.mark.parametrize("fmt", [Format.PAE, Format.LONG])
def test_a_2_mb_page(fmt):
    tables = Tables(fmt)
    tables.memory[tables.places["PDE"]] = 0x12_3460_0000 | ALL | PS | bits(12, 12)  # bit 12 is PAT
    result = tables.access()
    assert (result.outcome.physical, result.outcome.page_bytes) == (0x12_3460_2345, 2 << 20)
    for bit in range(13, 21):
        tables.change("PDE", add=1 << bit)
        assert tables.error(user=True) == 0xD
        tables.change("PDE", remove=1 << bit)


def test_a_1_gb_page_and_its_reserved_bits():
    tables = Tables(Format.LONG)
    tables.memory[tables.places["PDPTE"]] = 0x12_4000_0000 | ALL | PS | XD
    result = tables.access(Kind.WRITE)
    assert (result.outcome.physical, result.outcome.page_bytes) == (0x12_4000_0000 | LINEAR[Format.LONG] & bits(29, 0), 1 << 30)
    assert result.marks == (Mark(tables.places["PML4E"], 8, A), Mark(tables.places["PDPTE"], 8, A | D))
    assert tables.error(Kind.FETCH) == 0x11
    for bit in range(13, 30):
        tables.change("PDPTE", add=1 << bit)
        assert tables.error() == 9
        tables.change("PDPTE", remove=1 << bit)


def test_a_reserved_bit_goes_before_missing_rights():
    tables = Tables(Format.LONG)
    tables.change("PTE", add=bits(40, 40), remove=US | RW)
    assert tables.error(Kind.WRITE, user=True) == 0xF


def test_pae_finds_its_pointers_at_any_multiple_of_32_bytes():
    tables = Tables(Format.PAE)
    tables.memory[0x1FE0 + 8] = tables.memory.pop(0x1008)
    assert tables.access(cr3=0x1FE0).outcome.physical == 0x9345


@pytest.mark.parametrize(("linear", "is_canonical"), [
    (0x0000_7FFF_FFFF_FFFF, True), (0x0000_8000_0000_0000, False), (0xFFFF_7FFF_FFFF_FFFF, False),
    (0xFFFF_8000_0000_0000, True), (0x8000_0000_0000_0000, False),
])  # fmt: skip
def test_addresses_that_are_not_canonical_have_no_page_fault(linear, is_canonical):
    result = mmu.translate(lambda *_: 0, REGISTERS[Format.LONG], Access(linear, Kind.READ))
    assert isinstance(result.outcome, PageFault if is_canonical else GeneralProtection)


def test_global_needs_pge():
    tables = Tables(Format.LONG)
    tables.change("PTE", add=G)
    assert not tables.access().outcome.is_global
    assert tables.access(cr4=mmu.CR4_PAE | mmu.CR4_PGE).outcome.is_global
