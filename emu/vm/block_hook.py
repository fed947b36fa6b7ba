"""The block hook, written in LLVM's own terms: the one function that every block of guest code pays for.

It does what a compiled function would do, which is to count a block that the block table knows (`emu.vm.clock`) while nothing else is
to be done, and hand the rest to ENTER_BLOCK_FN. Numba wraps a function for C in another that saves registers and looks for an
exception, which together cost more than the counting itself.
"""

from __future__ import annotations

import functools

import llvmlite.binding as llvm
from llvmlite import ir

from emu.machine import control as cbw
from emu.machine import env
from emu.machine import paging as pg
from emu.vm.clock import COUNT_MASK, ENTRY_BYTES, PC_MASK, SALT_SHIFT, SIZE_SHIFT, TABLE_ENTRIES

NAME = "emu_block_hook"
WORD, HALF = ir.IntType(64), ir.IntType(32)
POINTER = ir.IntType(8).as_pointer()
HASH_SHIFT = 12  # as in `clock.entry_of`


def _constant(value: int) -> ir.Constant:
    return ir.Constant(WORD, value)


def _module() -> ir.Module:
    """void hook(uc, i64 pc, i32 size, control block)."""
    module = ir.Module(name=NAME)
    kind = ir.FunctionType(ir.VoidType(), [POINTER, WORD, HALF, POINTER])
    function = ir.Function(module, kind, name=NAME)
    _, pc, size, data = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    block = builder.bitcast(data, WORD.as_pointer())

    def place(number: int) -> ir.Value:
        return builder.gep(block, [_constant(number)])

    def word(number: int) -> ir.Value:
        return builder.load(place(number))

    def at_address(address: ir.Value) -> ir.Value:
        return builder.load(builder.inttoptr(address, WORD.as_pointer()))

    tag = word(cbw.CODE_TAG)
    mixed = builder.xor(builder.xor(pc, builder.ashr(pc, _constant(HASH_SHIFT))), builder.ashr(tag, _constant(SALT_SHIFT)))
    number = builder.and_(mixed, _constant(TABLE_ENTRIES - 1))
    entry = builder.add(word(cbw.BLOCKS), builder.mul(number, _constant(ENTRY_BYTES)))
    key = builder.or_(builder.and_(pc, _constant(PC_MASK)), builder.shl(builder.zext(size, WORD), _constant(SIZE_SHIFT)))
    counted = at_address(builder.add(entry, _constant(8)))
    count = builder.and_(counted, _constant(COUNT_MASK))
    differences = [
        builder.xor(at_address(entry), key),
        builder.xor(builder.sub(counted, count), tag),
        builder.and_(at_address(builder.add(word(cbw.LIVE), _constant(env.EFLAGS))), _constant(pg.EFLAGS_NT)),
    ]
    time = word(cbw.INSNS)
    known = builder.icmp_unsigned("==", functools.reduce(builder.or_, differences), _constant(0))
    early = builder.icmp_signed("<", time, word(cbw.WAKE))
    fast, slow = function.append_basic_block("known"), function.append_basic_block("other")
    builder.cbranch(builder.and_(known, early), fast, slow)

    builder.position_at_end(fast)
    builder.store(builder.add(time, count), place(cbw.INSNS))
    builder.store(entry, place(cbw.BLOCK))
    builder.ret_void()

    builder.position_at_end(slow)
    other = ir.FunctionType(HALF, [WORD] * 4).as_pointer()
    target = builder.inttoptr(word(cbw.ENTER_BLOCK_FN), other)
    builder.call(target, [builder.ptrtoint(data, WORD), pc, builder.zext(size, WORD), _constant(0)], tail=True)
    builder.ret_void()
    return module


@functools.cache
def _compiled() -> tuple[llvm.ExecutionEngine, int]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(_module())), machine)
    engine.finalize_object()
    return engine, int(engine.get_function_address(NAME))


def address() -> int:
    """Address of the hook, for UC_HOOK_BLOCK; compiled at the first call in a process."""
    return _compiled()[1]
