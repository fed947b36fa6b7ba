"""The engine's buffer of translated code: how large it may grow, how much of it is in use, and giving it back.

The engine maps the whole buffer when it is set up and fills it from its beginning; when it is full everything goes and translation begins
anew. No interface tells where the buffer is, so it is found as the executable mapping that came with the engine. Where it is not found,
it counts as in use, and memory comes back only with the engine's end.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from emu.units import KIB, PAGE_BYTES, pages_of

KEPT_BYTES = 64 * KIB  # at the beginning is what the engine jumps through into translated code
GUARD_BYTES = PAGE_BYTES  # at the end, which cannot be accessed

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def executable_mappings() -> set[tuple[int, int]]:
    """(address, bytes) of this process's mappings that can be both written and executed."""
    found = set()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights = line.split()[:2]
        if rights.startswith("rwx"):
            low, high = (int(end, 16) for end in span.split("-"))
            found.add((low, high - low))
    return found


class CodeBuffer:
    """The buffer of one engine. `before` are the mappings from before it was set up, with a buffer of `size_bytes`."""

    def __init__(self, size_bytes: int, before: set[tuple[int, int]]) -> None:
        self.size_bytes = size_bytes
        wanted = size_bytes - GUARD_BYTES
        places = [address for address, size in executable_mappings() - before if size == wanted]
        self.address = places[0] if len(places) == 1 else 0
        self._pages = ctypes.create_string_buffer(pages_of(wanted))

    def used_bytes(self) -> int:
        """What of it the host has given memory for."""
        size = len(self._pages) * PAGE_BYTES
        if not self.address or _libc.mincore(self.address, size, self._pages):
            return self.size_bytes
        return PAGE_BYTES * sum(byte & 1 for byte in self._pages.raw)

    def give_back(self) -> None:
        """Let the host have the memory again; nothing translated may be left. A host that refuses keeps it until it is used again."""
        if self.address:
            _libc.madvise(self.address + KEPT_BYTES, len(self._pages) * PAGE_BYTES - KEPT_BYTES, mmap.MADV_DONTNEED)
