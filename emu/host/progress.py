"""How far a run is, and how long the rest will take at the pace so far."""

from __future__ import annotations

import time

from emu.host.host import Host


class Progress:
    """Measures the run's pace in real time from where it began; nothing in a run depends on it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._began = time.monotonic()
        self._from = host.now

    @property
    def elapsed(self) -> float:
        """Real seconds since the beginning."""
        return time.monotonic() - self._began

    def left(self) -> float | None:
        """Real seconds until the end; None while that cannot be told."""
        done = self._host.now - self._from
        if self._host.ends_at is None or done <= 0:
            return None
        return self.elapsed / done * max(0, self._host.ends_at - self._host.now)

    def line(self) -> str:
        """Virtual time of how much, and an estimate of what is left."""
        rate = self._host.scenario.insns_per_second
        end = "" if self._host.ends_at is None else f" of {self._host.ends_at / rate:.0f}"
        left = self.left()
        rest = "" if left is None else f", about {clock(left)} left"
        return f"{self._host.now / rate:.0f}{end} virtual seconds in {clock(self.elapsed)}{rest}"


def clock(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
