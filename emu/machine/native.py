"""Numba as emu uses it: the compile cache, raw loads and stores, calls of C functions by address.

Compiled functions ("native code" in these pages) take the *control block* of a VM, an int64 array of words
(`emu.machine.control`), and reach everything else through machine addresses kept in it. All integers in native code are
int64: Numba turns a mix of signed and unsigned words into floating point, so bit 63 (NX) appears as the sign.

The cache (`emu.machine.code_cache`) is named after a digest of the package's own sources, because Numba only looks at the file
of the outermost function: without the digest, an edit (or an upgrade) of an inlined helper would leave stale machine code.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba import carray, extending, njit, types
from numba.core import cgutils, config, sigutils
from numba.core.ccallback import CFunc

from emu.machine.code_cache import CodeCache, KeptFunction

__all__ = [
    "CACHE",
    "address_of",
    "as_bytes",
    "as_words",
    "call2",
    "call2_wide",
    "call3",
    "call4",
    "carray",
    "cfunc",
    "compiled",
    "load8",
    "load16",
    "load32",
    "load64",
    "prefetch",
    "sources_digest",
    "store8",
    "store16",
    "store32",
    "store64",
    "types",
]

PACKAGE = Path(__file__).resolve().parent.parent
# Modules that no native code is built from, so that a change of theirs costs no compilation (a test checks the list).
PYTHON_ONLY = frozenset(
    """
    __init__.py
    aborts.py
    balloon_store.py
    block_hook.py
    calibration.py
    callbacks.py
    check.py
    code_buffer.py
    code_cache.py
    config.py
    content_table.py
    cpu.py
    cpuid.py
    crash.py
    dma.py
    engine.py
    errors.py
    exit_checks.py
    exits.py
    features.py
    hashing.py
    hostfile.py
    images.py
    launch.py
    limits.py
    loader.py
    msr.py
    outputs.py
    outside.py
    reclaim.py
    regfile.py
    regular.py
    replacing.py
    sampling.py
    saving.py
    sharing.py
    state.py
    states.py
    swap_area.py
    swap_disk.py
    swap_space.py
    tables.py
    targets.py
    tomlfile.py
    tomlvalues.py
    vm.py
    wording.py
    """.split()
)


def sources_digest() -> str:
    """A digest of every file that native code may be built from, and of the compiler's version."""
    digest = hashlib.blake2b(digest_size=10)
    digest.update(f"{numba.__version__} {sys.version_info[:2]}".encode())
    sources = [path for folder in ("", "machine/", "vm/", "resources/") for path in PACKAGE.glob(f"{folder}*.py")]
    for source in sorted(sources):
        if source.name not in PYTHON_ONLY:
            digest.update(source.name.encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _cache_version() -> str:
    """A digest of the sources, of the processor that code is compiled for, and of what the environment says of how."""
    processor = config.CPU_NAME or llvm.get_host_cpu_name()
    settings = f"{processor} {config.CPU_FEATURES} {config.OPT} {config.BOUNDSCHECK} {config.DEBUGINFO_DEFAULT}"
    how = f"{sources_digest()} {llvmlite.__version__} {settings}"
    return hashlib.blake2b(how.encode(), digest_size=10).hexdigest()


CACHE = CodeCache(_cache_version())


def _kept(function: Any) -> KeptFunction:
    """The cache of a function of one of the digested files."""
    file = Path(inspect.getfile(function)).resolve().relative_to(PACKAGE)
    return KeptFunction(function, CACHE, f"{'.'.join(file.with_suffix('').parts)}.{function.__name__}")


def cfunc(signature: Any, *, cache: bool = True) -> Callable[[Any], Any]:
    """The decorator of functions that C calls: compiled at once, or taken from the cache."""

    def decorate(function: Any) -> Any:
        made: Any = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={})
        if cache:
            made._cache = _kept(function)
        made.compile()
        return made

    return decorate


def compiled(function: Any) -> Any:
    """The decorator of all native code: compiled on first use, kept on disk, callable from Python and from cfuncs.

    Numba would compile a copy of a function for every constant that a caller passes; here constants count as integers,
    which halves the time of the first run. LLVM inlines and folds them all the same.
    """
    dispatcher = njit(error_model="numpy", no_cfunc_wrapper=True)(function)
    dispatcher._cache = _kept(function)
    resolve = dispatcher.get_call_template

    def resolve_without_literals(args: Any, kws: Any) -> Any:
        return resolve(tuple(types.unliteral(arg) for arg in args), {name: types.unliteral(kws[name]) for name in kws})

    dispatcher.get_call_template = resolve_without_literals
    return dispatcher


def _intrinsic_load(bits: int) -> Any:
    @extending.intrinsic
    def load(_: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(types.Integer.from_bitwidth(bits, signed=False))
            pointer = builder.inttoptr(args[0], kind.as_pointer())
            value = builder.load(pointer, align=1)
            return value if bits == 64 else builder.zext(value, context.get_value_type(types.int64))

        return types.int64(types.int64), codegen

    return load


def _intrinsic_store(bits: int) -> Any:
    @extending.intrinsic
    def store(_: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(types.Integer.from_bitwidth(bits, signed=False))
            pointer = builder.inttoptr(args[0], kind.as_pointer())
            value = args[1] if bits == 64 else builder.trunc(args[1], kind)
            builder.store(value, pointer, align=1)
            return context.get_dummy_value()

        return types.none(types.int64, types.int64), codegen

    return store


load8, load16, load32, load64 = (_intrinsic_load(bits) for bits in (8, 16, 32, 64))
store8, store16, store32, store64 = (_intrinsic_store(bits) for bits in (8, 16, 32, 64))


def _intrinsic_call(count: int) -> Any:
    """A call of the C function at an address with `count` pointer-sized arguments, returning a C int."""
    from llvmlite import ir

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word] * count)
        function = builder.inttoptr(args[0], kind.as_pointer())
        return builder.sext(builder.call(function, args[1:]), word)

    if count == 2:

        @extending.intrinsic
        def call(_: Any, function: Any, a: Any, b: Any) -> Any:
            return types.int64(types.int64, types.int64, types.int64), codegen

    elif count == 3:

        @extending.intrinsic
        def call(_: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
            return types.int64(*(types.int64,) * 4), codegen

    else:

        @extending.intrinsic
        def call(_: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
            return types.int64(*(types.int64,) * 5), codegen

    return call


call2, call3, call4 = (_intrinsic_call(count) for count in (2, 3, 4))


@extending.intrinsic
def call2_wide(_: Any, function: Any, a: Any, b: Any) -> Any:
    """A call of the C function at an address with two pointer-sized arguments, returning a 64-bit integer."""
    from llvmlite import ir

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * 2)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


@extending.intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Have the processor fetch the line at an address, which will be read and written soon."""
    from llvmlite import ir

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(args[0], pointer), word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@extending.intrinsic
def address_of(_: Any, pointer: Any) -> Any:
    """The integer value of a void pointer that a C hook was given."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], context.get_value_type(types.int64))

    return types.int64(types.voidptr), codegen


@extending.intrinsic
def _as_voidptr(_: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@compiled
def as_words(address: int, count: int) -> Any:
    """The `count` 64-bit words at `address` as an int64 array (no copy)."""
    return carray(_as_voidptr(address), (count,), types.int64)


@compiled
def as_bytes(address: int, count: int) -> Any:
    """The `count` bytes at `address` as a uint8 array (no copy)."""
    return carray(_as_voidptr(address), (count,), types.uint8)
