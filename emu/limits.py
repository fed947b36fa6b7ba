"""What the host lets this process have: the limit of its address space (`ulimit -v`)."""

from __future__ import annotations

import resource

from emu.units import MIB

# Python with its libraries takes 400 MiB of address space, and a VM with the default memory 130.
LEAST_ADDRESS_SPACE = 576 * MIB
COMPILING_ADDRESS_SPACE = 1200 * MIB  # the compiler


def address_space() -> int | None:
    """The limit in bytes; None if there is none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def is_address_space_short(needed: int = LEAST_ADDRESS_SPACE) -> bool:
    """Whether it is so little that libraries end the process, each in a way of its own."""
    limit = address_space()
    return limit is not None and limit < needed


def limit_in_words() -> str:
    """The limit in words, to stand behind what went wrong; empty if there is none."""
    limit = address_space()
    return "" if limit is None else f": the limit is {limit // MIB} MiB of address space (ulimit -v)"
