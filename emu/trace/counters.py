"""The closing summary: what happened, counted under kvm_stat's names where it has one."""

from __future__ import annotations

import numpy as np

from emu.events import CATALOGUE
from emu.machine import control as cbw


def counters(control: np.ndarray, counts: np.ndarray) -> dict[str, int]:
    """Counts by name, from a VM's control block and its counter array (`emu.vm.state`), in a fixed order."""
    totals = {"exits": int(control[cbw.EXITS]), "pf_taken": int(control[cbw.PF_TAKEN])}
    totals |= {info.counter: int(counts[kind]) for kind, info in CATALOGUE.items()}
    totals["nested_faults"] = int(control[cbw.HIDDEN_NESTED])
    totals["shadow_pages"] = int(control[cbw.SHADOW_USED])
    totals["nested_pages"] = int(control[cbw.NESTED_PAGES])
    return totals
