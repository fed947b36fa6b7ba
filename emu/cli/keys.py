"""Keys that are emu's own at a terminal: those after Ctrl-A, as in QEMU. All others are the guest's."""

from __future__ import annotations

from collections.abc import Callable

PREFIX = 0x01  # Ctrl-A
SENT = {ord("c"): b"\x03", ord("z"): b"\x1a", ord("\\"): b"\x1c", ord("a"): b"\x01", PREFIX: b"\x01"}
END = ord("x")
HELP = "keys after Ctrl-A: c sends Ctrl-C to the guest, z Ctrl-Z, \\ Ctrl-\\, a Ctrl-A; x ends the run; h shows this"


class Keys:
    """What is typed, in pieces as they come; `on_end` and `on_help` are called for the keys that ask for it."""

    def __init__(self, on_end: Callable[[], None], on_help: Callable[[], None]) -> None:
        self._on_end, self._on_help = on_end, on_help
        self._is_after_prefix = False

    def take(self, typed: bytes) -> bytes:
        """What of it is for the guest."""
        for_guest = bytearray()
        for key in typed:
            if self._is_after_prefix:
                self._is_after_prefix = False
                for_guest += self._command(key)
            elif key == PREFIX:
                self._is_after_prefix = True
            else:
                for_guest.append(key)
        return bytes(for_guest)

    def _command(self, key: int) -> bytes:
        if key == END:
            self._on_end()
        elif key not in SENT:
            self._on_help()
        return SENT.get(key, b"")
