"""How memory is divided: each VM's min, and of the rest a part by its shares, up to its max. The rule is simple on purpose, and replaceable.

Pure functions of numbers of pages: no VM is touched here. In which order memory is taken back is the paper's: balloon first, paging where that does not do
(Waldspurger 2002, sections 3 and 6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class VmNumbers:
    """What is known of a VM, in pages."""

    least: int  # min
    most: int  # max: its memory
    shares: int
    used: int  # frames that it has for itself, and its part of nothing shared
    ballooned: int
    balloon_most: int  # what its driver is asked for at the most; 0 if it has none


class Policy(Protocol):
    """Whoever divides the machine."""

    def allocations(self, pages: int, vms: Sequence[VmNumbers]) -> list[int]:
        """Pages of machine memory that each VM may have, `pages` together at the most (or the sum of all mins, if that is more)."""


class Proportional:
    """Min, then by shares, up to max."""

    def allocations(self, pages: int, vms: Sequence[VmNumbers]) -> list[int]:
        """Water-filling in whole pages; what a rounding leaves goes to the first in order."""
        given = [vm.least for vm in vms]
        left = max(0, pages - sum(given))
        while left:
            open_vms = [n for n, vm in enumerate(vms) if given[n] < vm.most and vm.shares]
            total = sum(vms[n].shares for n in open_vms)
            if not open_vms:
                break
            before = left
            budget = left
            for n in open_vms:
                part = min(budget * vms[n].shares // total, vms[n].most - given[n])
                given[n] += part
                left -= part
            if left == before:  # less than a page for each
                for n in open_vms[:left]:
                    given[n] += 1
                    left -= 1
        return given


def divide(pages: int, excess: Sequence[int]) -> list[int]:
    """Take `pages` from those that have an excess, in proportion to it, none more than it has; the sum is exact if there is enough."""
    total = sum(excess)
    if pages >= total:
        return list(excess)
    taken = [pages * part // total for part in excess]
    left = pages - sum(taken)
    for n, part in enumerate(excess):
        if left and taken[n] < part:
            taken[n] += 1
            left -= 1
    return taken
