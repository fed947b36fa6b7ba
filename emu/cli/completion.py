"""What a shell offers for the values of arguments and options."""

from __future__ import annotations

import contextlib

from emu.config import SHADOW_SWITCHES
from emu.errors import EmuError
from emu.events import GROUPS


def guests() -> list[str]:
    """Guests that come with emu, and boot disks."""
    from emu import images

    with contextlib.suppress(EmuError):  # not built: nothing to offer
        return [info.name for info in (*images.guests(), *images.disks())]
    return []


def boot_disks() -> list[str]:
    """Boot disks that come with emu."""
    from emu import images

    with contextlib.suppress(EmuError):
        return [info.name for info in images.disks()]
    return []


def scenarios() -> list[str]:
    """Scenarios that come with emu."""
    from emu.host import scenario

    return list(scenario.builtin())


def benchmarks() -> list[str]:
    """Benchmarks."""
    from emu.bench.names import NAMES

    return list(NAMES)


def event_groups(incomplete: str) -> list[str]:
    """The next group of a list with commas."""
    return _next_of(incomplete, GROUPS)


def shadow_switches(incomplete: str) -> list[str]:
    """The next switch of a list with commas."""
    return _next_of(incomplete, (*SHADOW_SWITCHES, "all"))


def _next_of(incomplete: str, known: tuple[str, ...]) -> list[str]:
    before, comma, _ = incomplete.rpartition(",")
    return [before + comma + name for name in known if name not in before.split(",")]
