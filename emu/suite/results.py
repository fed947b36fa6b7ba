"""What comes of a job, in plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emu.config import Mmu
from emu.suite.cases import Case
from emu.suite.protocol import Check

if TYPE_CHECKING:
    from emu.suite.run import Finished

QEMU = "qemu"
PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
HEAD = TAIL = 1 << 15  # characters of a longer serial text


@dataclass(frozen=True)
class Job:
    """One case under one MMU, or beside QEMU."""

    case: Case
    mmu: Mmu
    beside_qemu: bool = False
    update: bool = False
    switches: frozenset[str] = frozenset()  # of the shadow MMU (`emu.config.SHADOW_SWITCHES`)
    timeout_us: int | None = None  # of the host's time, for any case
    output_limit: int | None = None  # bytes, likewise
    allows_qemu_options: bool = False

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
    seconds: float = 0.0  # of the host's clock
    serial: str = ""  # all of it, or its beginning and its end
    left_out: int = 0  # characters between them
    trace_tail: list[str] = field(default_factory=list)  # the last lines of a failed run's trace
    goldens: dict[Path, str] = field(default_factory=dict)  # new text of golden files, under --update

    @classmethod
    def of_run(cls, job: Job, run: Finished) -> Result:
        """A pass, so far."""
        serial, left_out = _shortened(run.serial)
        return cls(job, instructions=run.instructions, serial=serial, left_out=left_out)

    @property
    def counted(self) -> list[str]:
        """The statuses that the closing line counts: the guest's checks, or else the case."""
        own = [check.status for check in self.checks]
        if not own:
            return [self.status]
        return [*own, FAIL] if self.status == FAIL and FAIL not in own else own


def _shortened(text: str) -> tuple[str, int]:
    """The beginning and the end of a text with a line between them, and how many characters are left out there."""
    left_out = len(text) - HEAD - TAIL
    if left_out <= 0:
        return text, 0
    return f"{text[:HEAD]}\n{left_out_line(left_out)}\n{text[-TAIL:]}", left_out


def left_out_line(characters: int) -> str:
    """What stands in place of the middle of a long text."""
    return f"[{characters:,} characters left out]"


def jobs_of(cases: list[Case], mmus: tuple[Mmu, ...], *, beside_qemu: bool = False, **settings: Any) -> list[Job]:
    """The jobs of these cases, in order: each MMU that is both asked for and the case's, then QEMU. `settings` are those of a `Job`."""
    jobs = []
    for case in cases:
        chosen = [mmu for mmu in case.mmus if mmu in mmus]
        jobs += [Job(case, mmu, **settings) for mmu in chosen]
        if beside_qemu and chosen:
            jobs.append(replace(Job(case, chosen[0], **settings), beside_qemu=True, update=False))
    return jobs
