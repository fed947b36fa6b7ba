"""The hash of a page's contents: XXH3, 64 bits, by xxHash's own C code, which the `xxhash` package brings along."""

from __future__ import annotations

import ctypes
import functools
from importlib.util import find_spec

import xxhash

from emu.errors import EngineError

SYMBOL = "XXH3_64bits"


@functools.cache
def hash_function() -> int:
    """Address of the C function (address, bytes) -> 64-bit hash; raises EngineError if the package does not show it."""
    library = ctypes.CDLL(find_spec("xxhash._xxhash").origin)  # type: ignore[union-attr]  # the extension itself, for its C functions
    function = getattr(library, SYMBOL, None)
    if function is None:
        raise EngineError(f"xxhash {xxhash.VERSION} does not show its C function {SYMBOL}: install another build of it")
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def compare_function() -> int:
    """Address of memcmp."""
    return ctypes.cast(ctypes.CDLL(None).memcmp, ctypes.c_void_p).value or 0
