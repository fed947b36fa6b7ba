"""The closing summary: what happened, counted under kvm_stat's names where it has one."""

from __future__ import annotations

import numpy as np

from emu.events import CATALOGUE
from emu.machine import control as cbw

# What the optimizations of the shadow MMU did (`emu.vm.shadow`).
SHADOW_COUNTERS = {
    "mmu_cache_hit": cbw.CACHE_HITS,
    "mmu_prefetch": cbw.PREFETCHED,
    "mmu_recycled": cbw.RECYCLED,
    "mmu_flooded": cbw.FLOODED,
}


def counters(control: np.ndarray, counts: np.ndarray) -> dict[str, int]:
    """Counts by name, from a VM's control block and its counter array (`emu.vm.state`), in a fixed order."""
    totals = {"exits": int(control[cbw.EXITS]), "pf_taken": int(control[cbw.PF_TAKEN])}
    totals |= {info.counter: int(counts[kind]) for kind, info in CATALOGUE.items()}
    totals["nested_faults"] = int(control[cbw.HIDDEN_NESTED])
    for name, word in SHADOW_COUNTERS.items():
        totals[name] = int(control[word])
    totals["shadow_pages"] = int(control[cbw.SHADOW_USED])
    totals["nested_pages"] = int(control[cbw.NESTED_PAGES])
    return totals
