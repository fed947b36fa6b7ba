"""The processor that a guest sees through CPUID, the same on every host.

An AMD-compatible 64-bit processor with what the VMM virtualizes and nothing else: no SVM, no XSAVE. The engine executes what
is shown here and no more (`emu.machine.features`). Leaves are those of AMD64 APM vol. 3, appendix E.
"""

from __future__ import annotations

import functools

from emu.machine import paging as pg

VENDOR = b"AuthenticAMD"
BRAND = b"emu virtual processor".ljust(48, b"\0")
SIGNATURE = 15 << 8 | 6 << 4 | 1  # family 15, model 6, stepping 1
MAX_STANDARD = 7
MAX_EXTENDED = 0x8000_0008
BRAND_FIRST, BRAND_LAST = 0x8000_0002, 0x8000_0004
CACHE_LINE_QUADS = 64 // 8  # CLFLUSH
VIRTUAL_BITS = 48

# EDX of leaf 1.
FEATURES = {
    "fpu": 1 << 0,
    "de": 1 << 2,
    "pse": 1 << 3,
    "tsc": 1 << 4,
    "msr": 1 << 5,
    "pae": 1 << 6,
    "cx8": 1 << 8,
    "apic": 1 << 9,
    "sep": 1 << 11,
    "mtrr": 1 << 12,
    "pge": 1 << 13,
    "cmov": 1 << 15,
    "pat": 1 << 16,
    "pse36": 1 << 17,
    "clflush": 1 << 19,
    "mmx": 1 << 23,
    "fxsr": 1 << 24,
    "sse": 1 << 25,
    "sse2": 1 << 26,
}
FEATURE_BITS = sum(FEATURES.values())
MORE_FEATURES = {"sse3": 1 << 0, "cx16": 1 << 13}  # ECX of leaf 1
STRUCTURED_FEATURES = {"fsgsbase": 1 << 0, "smep": 1 << 7, "smap": 1 << 20}  # EBX of leaf 7
# EDX of leaf 8000_0001, which also repeats what AMD defined before SSE.
EXTENDED_FEATURES = {"syscall": 1 << 11, "nx": 1 << 20, "page1gb": 1 << 26, "lm": 1 << 29}
EXTENDED_BITS = FEATURE_BITS & 0x0183_F3FF | sum(EXTENDED_FEATURES.values())
LAHF_IN_LONG_MODE = 1 << 0  # ECX of leaf 8000_0001

Leaf = tuple[int, int, int, int]


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


@functools.lru_cache(maxsize=64)  # a guest may ask for any of four billion
def cpuid(leaf: int, subleaf: int = 0, *, apic: bool = True) -> Leaf:
    """(EAX, EBX, ECX, EDX) of a leaf; those that do not exist are zero, as AMD's processors answer.

    `apic` is whether the local APIC is switched on, which leaf 1 shows.
    """
    ebx, edx, ecx = _words(VENDOR)
    if leaf == 0:
        return MAX_STANDARD, ebx, ecx, edx
    if leaf == 1:
        shown = FEATURE_BITS if apic else FEATURE_BITS & ~FEATURES["apic"]
        return SIGNATURE, CACHE_LINE_QUADS << 8 | 1 << 16, sum(MORE_FEATURES.values()), shown
    if leaf == 7 and subleaf == 0:
        return 0, sum(STRUCTURED_FEATURES.values()), 0, 0
    if leaf == 0x8000_0000:
        return MAX_EXTENDED, ebx, ecx, edx
    if leaf == 0x8000_0001:
        return SIGNATURE, 0, LAHF_IN_LONG_MODE, EXTENDED_BITS
    if BRAND_FIRST <= leaf <= BRAND_LAST:
        a, b, c, d = _words(BRAND)[4 * (leaf - BRAND_FIRST) :][:4]
        return a, b, c, d
    if leaf == 0x8000_0008:
        return pg.PHYSICAL_BITS | VIRTUAL_BITS << 8, 0, 0, 0
    return 0, 0, 0, 0


def feature_words() -> tuple[int, ...]:
    """The words that say what instructions there are, in the order of `emu.machine.features`.

    EDX and ECX of leaf 1; EBX, ECX and EDX of leaf 7, and EAX of its subleaf 1; EDX and ECX of leaf 8000_0001.
    """
    _, _, ecx, edx = cpuid(1)
    _, ebx7, ecx7, edx7 = cpuid(7)
    _, _, ecx_extended, edx_extended = cpuid(0x8000_0001)
    return edx, ecx, ebx7, ecx7, edx7, cpuid(7, 1)[0], edx_extended, ecx_extended
