"""What the pytest fixture `emu_vm` asks of a worker process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emu.config import Mmu, parse_size
from emu.errors import EmuError, UsageError
from emu.events import GROUPS
from emu.suite.cases import DEFAULT_LIMIT
from emu.suite.run import Finished, Limits, run_guest
from emu.vm import launch


@dataclass(frozen=True)
class Request:
    """One run."""

    what: launch.Boot
    memory_bytes: int
    mmu: Mmu
    limit: int
    groups: frozenset[str]
    disks: tuple[Path | int, ...] = ()  # as `emu.suite.run.run_guest` takes them

    @classmethod
    def from_settings(
        cls,
        image: str | Path,
        *,
        append: str = "",
        modules: Iterable[str | Path] = (),
        memory: str = "32M",
        mmu: str = "shadow",
        limit: int = DEFAULT_LIMIT,
        events: Iterable[str] = (),
        disk: str | Path | Sequence[str | Path] | None = None,
    ) -> Request:
        """Check what a test asks for; raises UsageError."""
        groups = frozenset(events)
        if not groups <= set(GROUPS):
            raise UsageError(f"unknown event group '{min(groups - set(GROUPS))}': known are {', '.join(GROUPS)}")
        if mmu not in tuple(Mmu):
            raise UsageError(f"unknown MMU '{mmu}': known are {', '.join(Mmu)}")
        what = launch.Boot(launch.find_image(str(image)), append, tuple(Path(module) for module in modules))
        given = (disk,) if isinstance(disk, (str, Path)) else disk or ()
        attached = tuple(launch.disk_source(str(one)) for one in given)
        return cls(what, parse_size(memory), Mmu(mmu), limit, groups, attached)


def run_request(request: Request) -> Finished:
    """Run it; raises EmuError, also if it prints or does more than is kept."""
    finished = run_guest(
        request.what,
        memory_bytes=request.memory_bytes,
        mmu=request.mmu,
        limits=Limits(request.limit),
        groups=request.groups,
        disks=request.disks,
    )
    if finished.cut_off:
        raise EmuError(f"{request.what.image}: {finished.cut_off}")
    return finished
