"""What comes of a job, in plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from emu.config import Mmu
from emu.suite.cases import Case
from emu.suite.protocol import Check

QEMU = "qemu"
PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"


@dataclass(frozen=True)
class Job:
    """One case under one MMU, or beside QEMU."""

    case: Case
    mmu: Mmu
    beside_qemu: bool = False
    update: bool = False

    @property
    def where(self) -> str:
        """The MMU's name, or QEMU's."""
        return QEMU if self.beside_qemu else str(self.mmu)

    @property
    def title(self) -> str:
        """The case and where it ran."""
        return f"{self.case.name} [{self.where}]"


@dataclass
class Result:
    """What a job came to."""

    job: Job
    status: str = PASS
    reasons: list[str] = field(default_factory=list)  # of a failure or a skip: one thing each, may be of several lines
    checks: list[Check] = field(default_factory=list)  # of the guest's own
    note: str = ""  # a known difference, or what was updated
    instructions: int = 0  # retired
    serial: str = ""
    trace_tail: list[str] = field(default_factory=list)  # the last lines of a failed run's trace
    goldens: dict[Path, str] = field(default_factory=dict)  # new text of golden files, under --update

    @property
    def counted(self) -> list[str]:
        """The statuses that the closing line counts: the guest's checks, or else the case."""
        own = [check.status for check in self.checks]
        if not own:
            return [self.status]
        return [*own, FAIL] if self.status == FAIL and FAIL not in own else own


def jobs_of(cases: list[Case], mmus: tuple[Mmu, ...], *, beside_qemu: bool = False, update: bool = False) -> list[Job]:
    """The jobs of these cases, in order: each MMU that is both asked for and the case's, then QEMU."""
    jobs = []
    for case in cases:
        chosen = [mmu for mmu in case.mmus if mmu in mmus]
        jobs += [Job(case, mmu, update=update) for mmu in chosen]
        if beside_qemu and chosen:
            jobs.append(Job(case, chosen[0], beside_qemu=True))
    return jobs
