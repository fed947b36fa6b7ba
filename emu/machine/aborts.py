"""Back from an abort of the engine while it translates: the VM whose code it was stops, and nothing else is harmed.

Unicorn 2.1.4 calls abort() for a few encodings (LOCK before a bit test of a register: it uses an address that nobody worked out).
A signal handler may leave abort() by a long jump (POSIX, abort), and the engine has a place to jump to: whoever translates may meet a page
fault and leaves by `cpu_loop_exit_noexc`, which the library shows though it is no interface. So the handler finds the VM that runs on its
thread, asks its engine to stop, and leaves; the guest's state is that before the block. REASON says GAVE_UP.

An abort of anything else, in the middle of a port access (where Python runs on the same thread), or under a library that does not show the function, goes on to the handler that was there before.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import weakref

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from emu.machine import control as cbw
from emu.machine.engine import uclib

NAME = "emu_on_abort"
LEAVE = "cpu_loop_exit_noexc_x86_64"
MOST_VMS = 1024  # of one process; the others end it with their aborts
SA_NODEFER = 0x4000_0000  # the handler does not return, and the next abort must reach it too
WORD, HALF = ir.IntType(64), ir.IntType(32)
POINTER = ir.IntType(8).as_pointer()


class _Action(ctypes.Structure):
    """struct sigaction of glibc on x86-64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Guard:
    """What the handler must know: a row of (thread, control block) for each VM, the thread 0 while it does not run."""

    def __init__(self, reason: int) -> None:
        self._table = np.zeros((MOST_VMS, 2), np.int64)
        self._free = list(range(MOST_VMS))
        self._before = _Action()
        self._engine, handler = _compile(self._table, ctypes.addressof(self._before), reason)
        self._mine = _Action(handler=handler, flags=SA_NODEFER)

    def install(self) -> None:
        """Be the handler, before whoever is it now."""
        sigaction, now = ctypes.CDLL(None).sigaction, _Action()
        sigaction(signal.SIGABRT, None, ctypes.byref(now))
        if now.handler != self._mine.handler:
            ctypes.pointer(self._before)[0] = now
            sigaction(signal.SIGABRT, ctypes.byref(self._mine), None)

    def thread_word(self, owner: object, control: np.ndarray) -> ctypes.c_int64:
        """Where the VM with this control block says on which thread it runs (`threading.get_ident`), as long as `owner` lives."""
        if not self._free:
            return ctypes.c_int64()  # which nobody looks at
        row = self._free.pop()
        self._table[row] = 0, control.ctypes.data
        weakref.finalize(owner, self._give_back, row)
        return ctypes.c_int64.from_address(self._table.ctypes.data + row * self._table.strides[0])

    def _give_back(self, row: int) -> None:
        self._table[row] = 0
        self._free.append(row)


_lock = threading.Lock()
_guards: list[Guard | None] = []


def guard(reason: int) -> Guard | None:
    """The process's guard, which each call installs anew; None where the library cannot be left. `reason` is what REASON gets."""
    with _lock:
        if not _guards:
            _guards.append(Guard(reason) if getattr(uclib, LEAVE, None) else None)
        found = _guards[0]
        if found:
            found.install()
        return found


def _compile(table: np.ndarray, before: int, reason: int) -> tuple[llvm.ExecutionEngine, int]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(_module(table, before, reason))), machine)
    engine.finalize_object()
    return engine, int(engine.get_function_address(NAME))


def _address(name: str) -> int:
    return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0


def _module(table: np.ndarray, before: int, reason: int) -> ir.Module:
    """void handler(i32 signal): nothing in it that may not be done in a signal handler."""
    module = ir.Module(name=NAME)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [HALF]), name=NAME)
    own = ir.Function(module, ir.FunctionType(WORD, []), name="pthread_self")
    entry, look, following, found, leave, other, chain, done = (
        function.append_basic_block(name) for name in ("entry", "look", "following", "found", "leave", "other", "chain", "done")
    )
    builder = ir.IRBuilder(entry)
    thread = builder.call(own, [])
    builder.branch(look)

    def word_at(address: ir.Value) -> ir.Value:
        return builder.inttoptr(address, WORD.as_pointer())

    builder.position_at_end(look)
    number = builder.phi(WORD)
    number.add_incoming(WORD(0), entry)
    at = builder.add(builder.mul(number, WORD(table.strides[0])), WORD(table.ctypes.data))
    builder.cbranch(builder.icmp_unsigned("==", builder.load(word_at(at)), thread), found, following)

    builder.position_at_end(following)
    next_number = builder.add(number, WORD(1))
    number.add_incoming(next_number, following)
    builder.cbranch(builder.icmp_unsigned("<", next_number, WORD(len(table))), look, other)

    builder.position_at_end(found)
    control = builder.load(word_at(builder.add(at, WORD(8))))

    def word(place: int) -> ir.Value:
        return word_at(builder.add(control, WORD(8 * place)))

    def call(function_address: int, argument: ir.Value, kind: ir.Type) -> None:
        target = builder.inttoptr(WORD(function_address), ir.FunctionType(kind, [WORD]).as_pointer())
        builder.call(target, [argument])

    builder.cbranch(builder.icmp_signed("<", builder.load(word(cbw.IO_NOW)), WORD(0)), leave, other)

    builder.position_at_end(leave)
    builder.store(WORD(reason), word(cbw.REASON))
    call(_address("uc_emu_stop"), builder.load(word(cbw.ENGINE)), HALF)
    call(_address(LEAVE), builder.load(word(cbw.ENGINE_CPU)), ir.VoidType())
    builder.unreachable()

    builder.position_at_end(other)
    previous = builder.load(word_at(WORD(before)))
    builder.cbranch(builder.icmp_unsigned(">", previous, WORD(int(signal.SIG_IGN))), chain, done)

    builder.position_at_end(chain)
    builder.call(builder.inttoptr(previous, ir.FunctionType(ir.VoidType(), [HALF]).as_pointer()), [function.args[0]])
    builder.branch(done)

    builder.position_at_end(done)
    builder.ret_void()
    return module
