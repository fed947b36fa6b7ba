# SPDX-License-Identifier: GPL-2.0-or-later
"""Instruction lengths and memory operands: against Capstone, the engine itself and a plain twin.

Code under test lies at the end of a page before one that cannot be read, so that a read too far ends the tests with a
segmentation fault.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import random
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu.machine import decode
from emu.units import PAGE_BYTES

capstone = pytest.importorskip("capstone")  # so, because these have no types
unicorn = pytest.importorskip("unicorn")
x86_const = pytest.importorskip("unicorn.x86_const")

ROOT = Path(__file__).resolve().parent.parent.parent
MODES = (16, 32, 64)
CAPSTONE_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
UNICORN_MODES = {16: unicorn.UC_MODE_16, 32: unicorn.UC_MODE_32, 64: unicorn.UC_MODE_64}
PREFIX_BYTES = bytes([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3])
TAIL = bytes([0x25, *range(0x41, 0x54)])  # a SIB without base register, then displacement and immediate
CODE_AT = 0x1000  # guest address in the engine
ENGINE_BYTES = 0x20_0000
UNKNOWN_SIZE = 0xF1F1F1F1  # what the engine's hook gets for an instruction that it refuses
REGISTERS = tuple(getattr(x86_const, f"UC_X86_REG_{name}") for name in ("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"))


class GuardedPage:
    """Room for code whose end is the end of what can be read."""

    def __init__(self) -> None:
        self._mapping = mmap.mmap(-1, 2 * PAGE_BYTES)
        self._end = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping)) + PAGE_BYTES
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self._end), ctypes.c_size_t(PAGE_BYTES), 0) == 0

    def put(self, code: bytes) -> int:
        """Host address of the bytes, put at the end."""
        ctypes.memmove(self._end - len(code), code, len(code))
        return self._end - len(code)

    def length(self, code: bytes, mode: int) -> int:
        return int(decode.insn_length(self.put(code), len(code), mode))

    def count(self, code: bytes, mode: int) -> int:
        return int(decode.count_insns(self.put(code), len(code), mode))


@pytest.fixture(scope="module")
def page() -> GuardedPage:
    return GuardedPage()


def capstone_decodes(disassembler: Any, code: bytes) -> tuple[int, str]:
    """(length, mnemonic) of the first instruction; length 0 if there is none."""
    for _address, length, mnemonic, _operands in disassembler.disasm_lite(code, 0, 1):
        return length, mnemonic
    return 0, ""


def capstone_errs(code: bytes, mode: int, mnemonic: str) -> bool:
    """Whether Capstone 5 reads these bytes otherwise than a processor."""
    opcode = code.lstrip(PREFIX_BYTES)
    prefixes = set(code[: len(code) - len(opcode)])
    if mode == 64:
        rex_free = opcode.lstrip(bytes(range(0x40, 0x50)) + PREFIX_BYTES)
        near_branch = rex_free[0] in (0xE8, 0xE9) or (rex_free[0] == 0x0F and rex_free[1] >> 4 == 8)
        if rex_free[0] == 0x62 or (near_branch and 0x66 in prefixes):
            return True  # Intel's processors ignore 66 before a near branch; AMD's and the engine do not
        if rex_free[0] == 0xC2 and 0x66 in prefixes:
            return True
        opcode = rex_free
    if opcode[:1] == b"\x0f":
        return (
            mnemonic in ("ud0", "ud1")  # it leaves out the ModRM that Intel gives them; they fault all the same
            or opcode[1] in (0xA6, 0xA7)  # VIA's PadLock, which neither AMD nor Intel has
            or (opcode[1] == 0x78 and mnemonic == "vmread" and 0x66 in prefixes)  # 66 0F 78 is EXTRQ, in any mode
        )
    if opcode[0] in (0xC4, 0xC5):  # VEX, which neither real mode nor 66 F2 F3 F0 before it allows
        return opcode[1] >= 0xC0 and (mode == 16 or bool(prefixes & {0x66, 0xF0, 0xF2, 0xF3}))
    if opcode[0] == 0x8F:  # XOP, which today's processors lack: the engine pops
        return opcode[1] & 0x1F >= 8
    return opcode[0] == 0x62 and opcode[1] >= 0xC0  # EVEX: the engine has no AVX-512


def disagreements(page: GuardedPage, mode: int, codes: Iterator[bytes]) -> list[str]:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, CAPSTONE_MODES[mode])
    found = []
    for code in codes:
        expected, mnemonic = capstone_decodes(disassembler, code)
        length = page.length(code, mode)
        if expected and length != expected and not capstone_errs(code, mode, mnemonic):
            found.append(f"{code.hex()}: {length}, Capstone: {expected} {mnemonic}")
    return found


def opcodes(escape: bytes) -> Iterator[bytes]:
    """The opcodes of a map, without prefixes and escapes to others."""
    for opcode in range(0x100):
        is_other = {b"": opcode == 0x0F or opcode in PREFIX_BYTES, b"\x0f": opcode in (0x38, 0x3A)}
        if not is_other.get(escape, False):
            yield escape + bytes([opcode])


def map_codes(escape: bytes, prefix: bytes = b"", step: int = 1) -> Iterator[bytes]:
    """Every opcode of a map with every `step`th ModRM."""
    for opcode, modrm in product(opcodes(escape), range(0, 0x100, step)):
        yield (prefix + opcode + bytes([modrm]) + TAIL)[: decode.MAX_LENGTH]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("escape", [b"", b"\x0f"], ids=["one-byte", "0F"])
def test_every_opcode_with_every_modrm_is_as_long_as_capstone_says(page: GuardedPage, mode: int, escape: bytes) -> None:
    assert disagreements(page, mode, map_codes(escape)) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prefix", [b"\x66", b"\x67", b"\xf2", b"\xf3", b"\x66\x67"], ids=bytes.hex)
def test_prefixed_opcodes_of_all_maps_are_as_long_as_capstone_says(page: GuardedPage, mode: int, prefix: bytes) -> None:
    for escape in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"):
        assert disagreements(page, mode, map_codes(escape, prefix, 11)) == []


def test_vex_encoded_opcodes_are_as_long_as_capstone_says(page: GuardedPage) -> None:
    for escape in (b"\xc5\xf9", b"\xc5\xfc", b"\xc4\xe1\x79", b"\xc4\xe2\x70", b"\xc4\xe2\x79", b"\xc4\xe3\x7d"):
        assert disagreements(page, 32, map_codes(escape, b"", 11)) == []


@pytest.mark.parametrize("mode", MODES)
def test_random_bytes_are_as_long_as_capstone_says(page: GuardedPage, mode: int) -> None:
    rng = random.Random(mode)
    codes = (
        bytes(rng.choices(PREFIX_BYTES, k=rng.choice((0, 0, 1, 3)))) + rng.randbytes(rng.randrange(12, 20)) for _ in range(20_000)
    )
    assert disagreements(page, mode, codes) == []


@pytest.mark.parametrize("mode", MODES)
def test_missing_bytes_are_said_to_be_missing(page: GuardedPage, mode: int) -> None:
    rng = random.Random(mode)
    for _ in range(2_000):
        code = bytes(rng.choices(PREFIX_BYTES, k=rng.choice((0, 0, 1, 2)))) + rng.randbytes(decode.MAX_LENGTH)
        length = page.length(code, mode)
        assert page.length(code[: max(length, 0)], mode) == (length or decode.INCOMPLETE)
        for available in range(length):
            assert page.length(code[:available], mode) == decode.INCOMPLETE


def test_nothing_is_longer_than_15_bytes(page: GuardedPage) -> None:
    prefix = b"\x2e"
    assert page.length(prefix * 14 + b"\x90", 32) == 15
    assert page.length(prefix * 14, 32) == decode.INCOMPLETE
    assert page.length(prefix * 15 + b"\x90", 32) == 0
    assert page.length(prefix * 13 + b"\xb0\x01", 32) == 15
    assert page.length(prefix * 14 + b"\xb0\x01", 32) == 0
    assert page.length(prefix * 14 + b"\x0f\xa2", 32) == 0


@pytest.mark.parametrize(
    ("code", "mode", "length"),
    [
        ("c5f877", 32, 3),  # VZEROUPPER
        ("c4e270f2c1", 32, 5),  # ANDN, which the engine has
        ("66c4e270f2c1", 32, 0),  # no operand-size prefix before VEX
        ("c4e070f2c1", 32, 0),  # no VEX map 0
        ("c4e270f2c1", 16, 0),  # LES of a register
        ("c48034120000", 32, 6),  # LES eax, [eax + 0x1234]
        ("62f17c48", 32, 0),  # EVEX
        ("8fe97c90", 32, 2),  # XOP would be longer
        ("0f0fc19e", 32, 4),  # PFADD: 3DNow! has its opcode last
        ("0f20042500", 32, 3),  # MOV from CR0 ignores the mod field
        ("660f78c00102", 32, 6),  # EXTRQ
        ("0f78c0", 32, 3),  # VMREAD
        ("0f04", 32, 0),
        ("c8341201", 32, 4),  # ENTER
        ("9a123456789abc", 32, 7),
        ("9a123456789abc", 16, 5),
        ("669a123456789abc", 16, 8),
        ("67a11234", 32, 4),
        ("4889c0", 64, 3),
        ("4889c0", 32, 1),
        ("48b80102030405060708", 64, 10),  # MOV RAX, imm64
        ("4866b80102", 64, 5),  # REX counts only if it comes last
        ("66b80102", 64, 4),
        ("a10102030405060708", 64, 9),  # MOV EAX, moffs64
        ("67a101020304", 64, 6),
        ("488b0501020304", 64, 7),  # MOV RAX, [RIP + disp32]
        ("c5f877", 64, 3),
        ("41c5f877", 64, 0),  # no REX before VEX
        ("6090", 64, 0),  # PUSHA
        ("9a123456789abc", 64, 0),
        ("62f17c48", 64, 0),
    ],
)
def test_special_encodings(page: GuardedPage, code: str, mode: int, length: int) -> None:
    assert page.length(bytes.fromhex(code), mode) == length


class Engine:
    """The engine on flat memory, with the sizes that it announces: of the last block, and of each instruction run."""

    def __init__(self, mode: int, *, run: bool) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, UNICORN_MODES[mode])
        self.uc.mem_map(0, ENGINE_BYTES)
        self.run = run
        self.blocks: list[tuple[int, int, list[int]]] = []  # address, size, sizes of its instructions
        self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        self.uc.hook_add(unicorn.UC_HOOK_CODE, self._on_instruction)

    def _on_block(self, _uc: object, address: int, size: int, _data: object) -> None:
        self.blocks.append((address, size, []))

    def _on_instruction(self, _uc: object, _address: int, size: int, _data: object) -> None:
        self.blocks[-1][2].append(size)
        if not self.run:
            self.uc.emu_stop()

    def first_size(self, at: int) -> int | None:
        """Bytes of the instruction at an address by the engine; None if it ends its block, as those it refuses do."""
        self.blocks.clear()
        self.uc.emu_start(at, ENGINE_BYTES)
        _address, block_size, (size, *_) = self.blocks[0]
        return None if size in (UNKNOWN_SIZE, block_size) else size


def ignores_mod(code: bytes) -> bool:
    """MOVMSKPS and the shifts by an immediate: a memory operand is invalid, but the engine takes it for a register."""
    return code[0] == 0x0F and code[1] in (0x50, 0x71, 0x72, 0x73) and code[2] < 0xC0


@pytest.mark.parametrize("mode", MODES)
def test_the_engine_goes_on_where_the_length_says(page: GuardedPage, mode: int) -> None:
    engine = Engine(mode, run=False)
    compared = 0
    for escape in (b"", b"\x0f"):
        for opcode in opcodes(escape):
            codes = [(opcode + bytes([modrm]) + TAIL)[:15] for modrm in (0x00, 0x04, 0x06, 0x45, 0x84, 0xC1, 0xF8)]
            engine.uc.ctl_flush_tb()
            engine.uc.mem_write(CODE_AT, b"".join(code + b"\xf4" for code in codes))
            for number, code in enumerate(codes):
                size = engine.first_size(CODE_AT + 16 * number)
                if size is not None and not ignores_mod(code):
                    assert page.length(code, mode) == size, code.hex()
                    compared += 1
    assert compared > 1_500


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The guest kernels' ELF files."""
    pytest.importorskip("ziglang")
    spec = importlib.util.spec_from_file_location("guests_build", ROOT / "guests" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [path.read_bytes() for path in module.build(tmp_path_factory.mktemp("guests"))]


def segments(elf: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(physical address, bytes, whether it is code) of each loaded segment of a 32-bit ELF file."""
    start, size, count = struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42)
    for at in range(start, start + size * count, size):
        kind, offset, _va, pa, file_bytes, _bytes, flags = struct.unpack_from("<7I", elf, at)
        if kind == 1 and file_bytes:
            yield pa, elf[offset : offset + file_bytes], flags & 1 != 0


def test_guest_kernels_have_as_many_instructions_as_capstone_counts(guests: list[bytes]) -> None:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    counted = 0
    for code in (data for elf in guests for _pa, data, is_code in segments(elf) if is_code):
        array = np.frombuffer(code, np.uint8)
        done = 0
        while done < len(code):  # from one byte that is no code to the next
            lengths = [insn[1] for insn in disassembler.disasm_lite(code[done:], 0)]
            assert decode.count_insns(int(array.ctypes.data) + done, sum(lengths), 32) == len(lengths)
            counted += len(lengths)
            done += sum(lengths) + 1
    assert counted > 5_000


def test_blocks_of_guest_kernels_have_as_many_instructions_as_the_engine_runs(guests: list[bytes], page: GuardedPage) -> None:
    compared = 0
    for elf in guests:
        engine = Engine(32, run=True)
        for pa, data, _is_code in segments(elf):
            engine.uc.mem_write(pa, data)
        engine.uc.reg_write(x86_const.UC_X86_REG_ESP, ENGINE_BYTES - 0x1000)
        try:
            engine.uc.emu_start(struct.unpack_from("<I", elf, 24)[0], ENGINE_BYTES, count=20_000)
        except unicorn.UcError:
            pass  # there is no PC around it: what ran until here is enough
        for address, size, sizes in engine.blocks:
            if sum(sizes) == size:  # neither left in the middle nor a repeated instruction under way
                assert page.count(bytes(engine.uc.mem_read(address, size)), 32) == len(sizes)
                compared += 1
    assert compared > 1_000


@pytest.mark.parametrize("mode", MODES)
def test_a_straight_line_has_as_many_instructions_as_the_engine_runs(page: GuardedPage, mode: int) -> None:
    rng = random.Random(mode)
    pool = [bytes.fromhex(code) for code in ("90", "f8", "01d8", "6601d8", "b001", "f6c301", "f7c3", "f7db", "0fb6c3", "0fafc3")]
    usual, other = {16: (2, 4), 32: (4, 2), 64: (4, 2)}[mode]  # bytes of an operand, without and with prefix 66
    pool[6] += bytes(usual)
    pool += [b"\x05" + bytes(usual), b"\x66\x05" + bytes(other), b"\x8d\x40\x01", b"\x0f\xba\xe0\x03"]
    if mode == 64:
        pool += [bytes.fromhex(code) for code in ("4801d8", "4d89c7", "49b80807060504030201", "488d0510000000")]
    engine = Engine(mode, run=True)
    for _ in range(200):
        line = b"".join(rng.choices(pool, k=rng.randrange(1, 60)))
        engine.uc.ctl_flush_tb()
        engine.blocks.clear()
        engine.uc.mem_write(CODE_AT, line + b"\xeb\xfe")
        engine.uc.emu_start(CODE_AT, CODE_AT + len(line))
        assert page.count(line, mode) == sum(len(sizes) for _at, _size, sizes in engine.blocks)


def test_what_cannot_be_decoded_counts_once_and_ends_the_count(page: GuardedPage) -> None:
    assert page.count(b"", 32) == 0
    assert page.count(b"\x90\x90\x0f\x04\x90\x90", 32) == 3
    assert page.count(b"\x90\x90\xb8\x01", 32) == 3  # the last one's bytes are beyond the end
    assert page.count(b"\x90" * 3 + b"\x66" * 20, 32) == 4


BASES_16 = ("BX+SI", "BX+DI", "BP+SI", "BP+DI", "SI", "DI", "BP", "BX")  # Intel SDM vol. 2, table 2-1
NAMES = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
SEGMENT_PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)


def signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def plain_operand(code: bytes, wide: bool, regs: list[int]) -> tuple[str, int]:
    """(base register, offset) of a memory operand, from its ModRM on."""
    mod, rm = code[0] >> 6, code[0] & 7
    if not wide:
        if (mod, rm) == (0, 6):
            return "", int.from_bytes(code[1:3], "little")
        total = sum(regs[NAMES.index(name)] for name in BASES_16[rm].split("+"))
        return BASES_16[rm], (total + signed(code[1 : 1 + mod])) % 0x1_0000
    after, index = 1, 0
    if rm == 4:
        after, rm = 2, code[1] & 7
        number = code[1] >> 3 & 7
        index = 0 if number == 4 else regs[number] * 2 ** (code[1] >> 6)
    if (mod, rm) == (0, 5):
        return "", (index + signed(code[after : after + 4])) % 2**32
    size = (0, 1, 4)[mod]
    return NAMES[rm], (regs[rm] + index + signed(code[after : after + size])) % 2**32


REGISTERS_64 = tuple(
    getattr(x86_const, f"UC_X86_REG_{name}") for name in "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15".split()
)


def test_memory_operands_of_64_bit_code_are_where_lea_finds_them() -> None:
    rng = random.Random(64)
    engine = Engine(64, run=True)
    buffer = np.zeros(64, np.uint8)
    words = np.zeros(16, np.uint64)
    for number in range(1_000):
        regs = [rng.choice((rng.getrandbits(64), rng.getrandbits(4), 2**64 - 1, 2**31)) for _ in range(16)]
        words[:] = regs
        prefixes = b"\x67" * (rng.random() < 0.3) + rng.choice((b"", b"", b"\x2e", b"\x64", b"\x65"))
        rex = bytes([0x48 | rng.getrandbits(3)])
        operand = bytes([rng.randrange(0xC0)]) + rng.randbytes(6)
        code = prefixes + rex + b"\x0f\x01" + operand
        at = CODE_AT + number % 0x800 * 16
        buffer[: len(code)] = np.frombuffer(code, np.uint8)
        segment, offset, field, length = decode.operand_of(int(buffer.ctypes.data), 64, int(words.ctypes.data), at - 1)
        assert field == operand[0] >> 3 & 7 | (8 if rex[0] & 4 else 0)
        if prefixes[-1:] in (b"\x64", b"\x65"):
            assert segment == (4 if prefixes[-1:] == b"\x64" else 5)
        else:
            base = operand[1] & 7 if operand[0] & 7 == 4 else operand[0] & 7
            no_base = operand[0] >> 6 == 0 and base == 5
            assert segment == (2 if base in (4, 5) and not no_base and not rex[0] & 1 else 3), code.hex()
        lea = prefixes + rex + b"\x8d" + operand  # one byte shorter: RIP-relative offsets agree if it lies one byte higher
        engine.uc.mem_write(at, lea)
        for register, value in zip(REGISTERS_64, regs, strict=True):
            engine.uc.reg_write(register, value)
        engine.blocks.clear()
        engine.uc.emu_start(at, ENGINE_BYTES, count=1)
        assert engine.uc.reg_read(REGISTERS_64[field]) == offset % 2**64, lea.hex()
        assert engine.blocks[0][2][0] == length - 1


@pytest.mark.parametrize("mode", [16, 32])
def test_memory_operands_are_where_a_plain_twin_and_lea_find_them(mode: int) -> None:
    rng = random.Random(mode)
    engine = Engine(mode, run=True)
    buffer = np.zeros(64, np.uint8)
    words = np.zeros(16, np.int64)
    for number in range(600):
        regs = [rng.choice((rng.getrandbits(32), rng.getrandbits(4), 0xFFFF_FFFF)) for _ in range(8)]
        words[:8] = [reg | rng.getrandbits(8) << 32 for reg in regs]
        other_size, segment = rng.random() < 0.5, rng.choice((None, None, 0, 1, 2, 3, 4, 5))
        prefixes = b"\x67" * other_size + (b"" if segment is None else bytes([SEGMENT_PREFIXES[segment]]))
        operand = bytes([rng.randrange(0xC0)]) + rng.randbytes(6)
        code = prefixes + b"\x0f\x01" + operand
        buffer[: len(code)] = np.frombuffer(code, np.uint8)
        found = decode.operand_of(int(buffer.ctypes.data), mode, int(words.ctypes.data), 0)

        base, offset = plain_operand(operand, (mode == 32) != other_size, regs)
        default = 2 if base in ("BP", "SP", "BP+SI", "BP+DI") else 3
        field = operand[0] >> 3 & 7
        assert found[:3] == (default if segment is None else segment, offset, field), code.hex()

        lea = b"\x66" * (mode == 16) + prefixes + b"\x8d" + operand
        at = CODE_AT + number % 0x800 * 16
        engine.uc.mem_write(at, lea)
        for register, value in zip(REGISTERS, regs, strict=True):
            engine.uc.reg_write(register, value)
        engine.blocks.clear()
        engine.uc.emu_start(at, ENGINE_BYTES, count=1)
        assert engine.uc.reg_read(REGISTERS[field]) == offset, lea.hex()
        assert engine.blocks[0][2][0] == found[3] - 1 + (mode == 16)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0f22d8", (decode.REGISTER_OPERAND, 0, 3, 3)),  # mov cr3, eax
        ("0f2243", (decode.REGISTER_OPERAND, 3, 0, 3)),  # mov cr0, ebx, with a mod field that says memory
        ("660f01f1", (decode.REGISTER_OPERAND, 1, 6, 4)),  # lmsw cx
        ("2e650f0138", (5, 0x1111, 7, 5)),  # invlpg gs:[eax]: the last segment prefix counts
    ],
)
def test_register_operands_and_prefixes(code: str, expected: tuple[int, int, int, int]) -> None:
    buffer, words = np.zeros(64, np.uint8), np.full(16, 0x1111, np.int64)
    data = bytes.fromhex(code)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    assert decode.operand_of(int(buffer.ctypes.data), 32, int(words.ctypes.data), 0) == expected
