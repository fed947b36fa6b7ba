"""The engine's own idea of what its processor has, by which it refuses instructions: made to be what CPUID shows.

Unicorn's CPU models are fixed, and the one with AMD-V has much that the guest's processor has not (POPCNT, SSE4, BMI, AES). While it translates,
the engine looks each instruction's feature up in an array of words that no interface names. CPUID shows the same words, so they are
found by them; `find` proves by experiment that clearing a bit takes the instruction away.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from emu.machine.engine import UC_HOOK_INTR, Engine, UcError, mismatch, x86_const
from emu.machine.memory import MachineMemory

CODE = 0x1000
CPUID_HLT, POPCNT_HLT = bytes.fromhex("0fa2 f4"), bytes.fromhex("f30fb8c0 f4")
OSXSAVE = 1 << 27  # in ECX of leaf 1, which CPUID makes of CR4
POPCNT = 1 << 23
NOT_MULTIPLE = 1 << 28  # in EDX of leaf 1
SVM = 1 << 2  # in ECX of leaf 8000_0001: the engine's own, which no guest sees
EDX_1, ECX_1, EBX_7, ECX_7, EDX_7, EAX_7_1, EDX_EXTENDED, ECX_EXTENDED = range(8)  # the words, in the engine's order
WORDS = 8
SEARCHED = 0x4000  # bytes behind the registers


def find(engine: Engine, memory: MachineMemory, state: int) -> int:
    """Where the words lie, from the engine's CPUX86State at a host address; raises EngineError for a library that has them elsewhere."""
    shown = _shown(engine, memory)
    words = np.frombuffer(ctypes.string_at(state, SEARCHED), np.uint64)
    hits = [at for at in range(len(words) - WORDS) if words[at : at + WORDS].tolist() == shown]
    if len(hits) != 1:
        raise mismatch(f"what its processor has: {len(hits)} found")
    place = hits[0] * 8
    word = _words(state, place)
    kept = word[ECX_1]
    word[ECX_1] = kept & ~POPCNT
    is_gone = not _runs(engine, memory, POPCNT_HLT)
    word[ECX_1] = kept
    engine.uc.ctl_flush_tb()
    if not is_gone or not _runs(engine, memory, POPCNT_HLT):
        raise mismatch("what its processor has")
    engine.uc.ctl_flush_tb()
    return place


def limit(state: int, place: int, shown: Sequence[int]) -> None:
    """Have the engine at a host address refuse what is not in `shown`, words of CPUID in the order above; before it translates anything."""
    words = _words(state, place)
    for number in range(WORDS):
        words[number] &= shown[number] | (SVM if number == ECX_EXTENDED else 0)


def _words(state: int, place: int) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * WORDS).from_address(state + place)


def _shown(engine: Engine, memory: MachineMemory) -> list[int]:
    """The words as CPUID shows them."""
    _, _, ecx, edx = _cpuid(engine, memory, 1)
    _, ebx7, ecx7, edx7 = _cpuid(engine, memory, 7)
    eax71, _, _, _ = _cpuid(engine, memory, 7, 1)
    _, _, ecx_extended, edx_extended = _cpuid(engine, memory, 0x8000_0001)
    return [edx & ~NOT_MULTIPLE, ecx & ~OSXSAVE, ebx7, ecx7, edx7, eax71, edx_extended, ecx_extended]


def _cpuid(engine: Engine, memory: MachineMemory, leaf: int, subleaf: int = 0) -> list[int]:
    engine.uc.reg_write(x86_const.UC_X86_REG_RAX, leaf)
    engine.uc.reg_write(x86_const.UC_X86_REG_RCX, subleaf)
    _runs(engine, memory, CPUID_HLT)
    names = (x86_const.UC_X86_REG_EAX, x86_const.UC_X86_REG_EBX, x86_const.UC_X86_REG_ECX, x86_const.UC_X86_REG_EDX)
    return [engine.uc.reg_read(name) for name in names]


def _runs(engine: Engine, memory: MachineMemory, program: bytes) -> bool:
    """Whether the engine, outside of any guest, gets to the HLT that a program ends with."""
    memory.bytes[CODE : CODE + len(program)] = list(program)
    engine.uc.ctl_flush_tb()
    hook = engine.uc.hook_add(UC_HOOK_INTR, lambda uc, *_: uc.emu_stop())
    try:
        engine.uc.emu_start(CODE, 0)
    except UcError:
        return False
    finally:
        engine.uc.hook_del(hook)
    return bool(engine.uc.reg_read(x86_const.UC_X86_REG_RIP) >= CODE + len(program))
