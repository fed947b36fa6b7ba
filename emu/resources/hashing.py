"""The hash of a page's contents: XXH3, 64 bits, by xxHash's own C code, which the `xxhash` package brings along."""

from __future__ import annotations

import ctypes
import functools
from importlib.util import find_spec

import xxhash

from emu.errors import EngineError

FOR_PAGES = ("XXH3_64bits_dispatch", "XXH3_64bits")  # the first uses what vectors the processor has
FOR_LINES = ("XXH3_64bits",)  # no vectors are worth it


@functools.cache
def hash_function(names: tuple[str, ...] = FOR_PAGES, path: str | None = None) -> int:
    """Address of the C function (address, bytes) -> 64-bit hash, of the package or a library; raises EngineError if it does not show it."""
    try:
        library = ctypes.CDLL(path or find_spec("xxhash._xxhash").origin)  # type: ignore[union-attr]  # the extension itself, for its C functions
    except OSError as error:
        raise EngineError(f"xxhash {xxhash.VERSION} cannot be loaded ({error})") from error
    function = next((getattr(library, name) for name in names if hasattr(library, name)), None)
    if function is None:
        raise EngineError(
            f"xxhash {xxhash.VERSION} shows none of its C functions {', '.join(names)}: install another build of it"
        )
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def compare_function() -> int:
    """Address of memcmp."""
    return ctypes.cast(ctypes.CDLL(None).memcmp, ctypes.c_void_p).value or 0
