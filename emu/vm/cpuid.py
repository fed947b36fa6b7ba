"""The processor that a guest sees: CPUID and model-specific registers, the same on every host.

A 32-bit AMD-compatible processor with what the VMM virtualizes and nothing else: no SVM, APIC, PAE, NX or long mode. The
engine can execute more than is shown here, as any hypervisor's host can.
"""

from __future__ import annotations

import functools

VENDOR = b"AuthenticAMD"
BRAND = b"emu virtual processor".ljust(48, b"\0")
SIGNATURE = 6 << 8 | 8 << 4 | 1  # family 6, model 8, stepping 1
MAX_STANDARD = 1
MAX_EXTENDED = 0x8000_0004
BRAND_FIRST, BRAND_LAST = 0x8000_0002, 0x8000_0004

# EDX of leaf 1 (AMD64 APM vol. 3, appendix E).
FEATURES = {
    "fpu": 1 << 0,
    "de": 1 << 2,
    "pse": 1 << 3,
    "tsc": 1 << 4,
    "msr": 1 << 5,
    "cx8": 1 << 8,
    "pge": 1 << 13,
    "cmov": 1 << 15,
    "pse36": 1 << 17,
    "mmx": 1 << 23,
    "fxsr": 1 << 24,
    "sse": 1 << 25,
    "sse2": 1 << 26,
}
FEATURE_BITS = sum(FEATURES.values())
EXTENDED_BITS = FEATURE_BITS & 0x0183_F3FF  # leaf 8000_0001 repeats what AMD defined before SSE
MSR_TSC = 0x10

Leaf = tuple[int, int, int, int]


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


@functools.lru_cache(maxsize=64)  # a guest may ask for any of four billion
def cpuid(leaf: int) -> Leaf:
    """(EAX, EBX, ECX, EDX) of a leaf; those that do not exist are zero, as AMD's processors answer."""
    ebx, edx, ecx = _words(VENDOR)
    if leaf == 0:
        return MAX_STANDARD, ebx, ecx, edx
    if leaf == 1:
        return SIGNATURE, 0, 0, FEATURE_BITS
    if leaf == 0x8000_0000:
        return MAX_EXTENDED, ebx, ecx, edx
    if leaf == 0x8000_0001:
        return SIGNATURE, 0, 0, EXTENDED_BITS
    if BRAND_FIRST <= leaf <= BRAND_LAST:
        a, b, c, d = _words(BRAND)[4 * (leaf - BRAND_FIRST) :][:4]
        return a, b, c, d
    return 0, 0, 0, 0
