"""How much of its memory a VM uses, estimated from a few pages (Waldspurger 2002, section 5.3).

In each period of a VM's time some of its pages are watched, drawn at random from those that are not in its balloon; the share that was touched stands for all.
Two averages over periods, a slow and a fast one, and the fast one brought up to date with the period under way, are kept; the largest is the estimate, so that it
follows growth at once and decline slowly. The gains are those that figure 6 of the paper shows.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from emu.machine import control as cbw
from emu.vm import pmap, watching
from emu.vm.state import VmState

PAGES = 100  # watched in a period (the paper's n)
SLOW, FAST = 0.25, 0.75  # weight of the newest period


class WorkingSet:
    """The sampler of one VM; `period` in instructions of its virtual time."""

    WIRING: ClassVar = frozenset({"_state", "_period"})
    RESIZED: ClassVar = ("_slots",)

    def __init__(self, state: VmState, period: int, seed: int) -> None:
        self._state = state
        self._period = period
        self._random = np.random.Generator(np.random.PCG64([seed, 3, state.number]))
        self._slots = np.zeros(0, np.int64)  # that are watched
        self._ends = 0  # virtual time of the VM
        self._slow = self._fast = 0.0  # shares
        self.periods = 0  # that have ended

    def advance(self) -> None:
        """Between two slices: end the period if it is over, and begin the next."""
        control = self._state.control
        if int(control[cbw.INSNS]) < self._ends or control[cbw.STEPPING]:
            return
        if len(self._slots):
            share = self._share_touched()
            self._slow = share if not self.periods else SLOW * share + (1 - SLOW) * self._slow
            self._fast = share if not self.periods else FAST * share + (1 - FAST) * self._fast
            self.periods += 1
        self._state.watched[:] = pmap.NOT_WATCHED
        kinds = self._state.pmap[: self._state.ram_pages] >> pmap.STATE_SHIFT & pmap.STATE_MASK
        candidates = np.flatnonzero((kinds != pmap.BALLOONED) & (kinds != pmap.ABSENT) & (kinds != pmap.ROM))
        self._slots = np.sort(self._random.choice(candidates, min(PAGES, len(candidates)), replace=False))
        for slot in self._slots.tolist():
            watching.watch(control, slot)
        self._ends = int(control[cbw.INSNS]) + self._period

    def _share_touched(self) -> float:
        return float(np.mean(self._state.watched[self._slots] == pmap.TOUCHED)) if len(self._slots) else 0.0

    @property
    def population(self) -> int:
        """Pages that the shares are of: all but those in the balloon."""
        return self._state.ram_pages - int(self._state.control[cbw.BALLOON_PAGES])

    @property
    def slow(self) -> int:
        """The slow average, in pages."""
        return round(self._slow * self.population)

    @property
    def fast(self) -> int:
        """The fast average, in pages."""
        return round(self._fast * self.population)

    @property
    def current(self) -> int:
        """The fast average with what the period under way has shown so far, in pages."""
        now = self._share_touched()
        return round((now if not self.periods else FAST * now + (1 - FAST) * self._fast) * self.population)

    @property
    def estimate(self) -> int:
        """The VM's working set, in pages: the largest of the three."""
        return max(self.slow, self.fast, self.current)
