# SPDX-License-Identifier: GPL-2.0-or-later
"""How the memory services and whole hosts grow, measured and plotted: `scripts/growth FOLDER` writes `growth.json` and two SVGs there, some five minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emu.bench.content_rows import distinct_frames, scan_seconds, share_and_break
from emu.bench.harness import median
from emu.bench.host_rows import host_figures
from emu.units import KIB, PAGE_BYTES

PAGES = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB)
SHARED_PAGES = PAGES[:-1]
VMS = (10, 30, 100, 300)


def measure() -> dict[str, Any]:
    """All points. Each host is a process of its own, so that its memory is its own too."""
    scans = []
    for pages in PAGES:
        memory, frames = distinct_frames(pages * PAGE_BYTES)
        scan_seconds(memory, frames)
        scans.append({"pages": pages, "pages_a_second": median(lambda m=memory, f=frames: len(f) / scan_seconds(m, f))})
    shares = []
    for pages in SHARED_PAGES:
        share_and_break(pages)
        shares.append(
            {
                "pages": pages,
                "share_us": median(lambda n=pages: share_and_break(n)[0]),
                "cow_break_us": median(lambda n=pages: share_and_break(n)[1]),
            }
        )
    hosts = []
    for count in VMS:
        done = subprocess.run([sys.executable, "-m", "tests.host.growth", str(count)], check=True, capture_output=True, text=True)
        hosts.append(json.loads(done.stdout))
        sys.stderr.write(f"growth: {count} VMs: {hosts[-1]['seconds']:.1f} s\n")
    return {"scan": scans, "share": shares, "hosts": hosts}


def plot(points: dict[str, Any], folder: Path) -> None:
    """`growth-pages.svg` and `growth-vms.svg`."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "emu", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    from matplotlib import pyplot as plt

    def panel(axes: Any, rows: list[dict[str, Any]], x: str, lines: dict[str, str], title: str, *, is_wide: bool = False) -> None:
        for key, label in lines.items():
            axes.plot([row[x] for row in rows], [row[key] for row in rows], "o-", label=label)
        axes.set_xscale("log")
        axes.set_xticks([row[x] for row in rows], [f"{row[x]:,}" for row in rows])
        axes.minorticks_off()
        if is_wide:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("VMs" if x == "vms" else "pages")
        if len(lines) > 1:
            axes.legend()

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    scans = [row | {"millions": row["pages_a_second"] / 1e6} for row in points["scan"]]
    panel(left, scans, "pages", {"millions": "scan"}, "millions of pages a second that are hashed and looked up")
    panel(right, points["share"], "pages", {"share_us": "share", "cow_break_us": "COW break"}, "microseconds a page")
    figure.savefig(folder / "growth-pages.svg", metadata={"Date": None})
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    hosts = [
        row
        | {
            "a_vm": row["seconds"] / row["vms"],
            "percent": 100 * row["overhead"],
            "possible_mb": row["possible"] / 256,
            "saved_mb": row["saved"] / 256,
        }
        for row in points["hosts"]
    ]
    panel(axes[0], hosts, "vms", {"a_vm": ""}, "real seconds a VM, for 20 virtual ones")
    panel(axes[1], hosts, "vms", {"percent": ""}, "% of the time that is not the VMs' own")
    panel(axes[2], hosts, "vms", {"process_mb": ""}, "MB of the process", is_wide=True)
    panel(
        axes[3],
        hosts,
        "vms",
        {"saved_mb": "saved", "possible_mb": "that contents allow"},
        "MB of frames saved by sharing",
        is_wide=True,
    )
    figure.savefig(folder / "growth-vms.svg", metadata={"Date": None})


def main() -> None:
    """`FOLDER`: measure and plot; a number: one host, as JSON."""
    if len(sys.argv) != 2:
        sys.exit("usage: growth FOLDER")
    if sys.argv[1].isdigit():
        sys.stdout.write(json.dumps(asdict(host_figures(int(sys.argv[1])))) + "\n")
        return
    folder = Path(sys.argv[1])
    if not folder.is_dir():
        sys.exit(f"growth: {folder}: not a folder")
    points = measure()
    (folder / "growth.json").write_text(json.dumps(points, indent=1) + "\n")
    plot(points, folder)


if __name__ == "__main__":
    main()
