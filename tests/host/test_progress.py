# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a run is, and about how long the rest takes."""

from __future__ import annotations

import pytest

from emu.host import progress, scenario
from emu.host.host import Host
from emu.host.progress import Progress, clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_times(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("has_end", [True, False])
def test_the_rest_is_estimated_from_the_pace_so_far(monkeypatch: pytest.MonkeyPatch, has_end: bool) -> None:
    """From where the run, or what is left of it, began: a machine that was resumed did not come so far in this time."""
    end = 'seconds = "30s"\n' if has_end else ""
    host = Host(scenario.parse(f'memory = "16M"\n{end}[[vm]]\nmemory = "8M"\nappend = "x"\n', "test", "test"))
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    host.now = 5 * host.scenario.insns_per_second
    seen = Progress(host)
    assert seen.left() is None
    now[0] += 20
    host.now += 10 * host.scenario.insns_per_second
    assert seen.left() == (30 if has_end else None)
    assert seen.line() == ("15 of 30 virtual seconds in 20 s, about 30 s left" if has_end else "15 virtual seconds in 20 s")
    host.close()
