"""`pytest my-suite/`: the cases of each `suite.toml` as pytest items, and a fixture that boots an image.

Loaded by every pytest where emu is installed: what is heavy is imported when there is a suite or a use of the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emu.suite.pool import Pool
    from emu.suite.results import Job, Result
    from emu.suite.run import Finished

SUITE_FILE = "suite.toml"
_POOL = pytest.StashKey["Pool"]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite file is a collector of its cases."""
    return SuiteFile.from_parent(parent, path=file_path) if file_path.name == SUITE_FILE else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker process, if there is one."""
    if _POOL in config.stash:
        config.stash[_POOL].__exit__()
        del config.stash[_POOL]


def pool_of(config: pytest.Config) -> Pool:
    """The session's worker process: the engine may abort it, so guests run outside of pytest's."""
    if _POOL not in config.stash:
        from emu.suite.pool import Pool

        config.stash[_POOL] = Pool(1)
    return config.stash[_POOL]


class SuiteFile(pytest.File):
    """A `suite.toml`."""

    def collect(self) -> Iterator[pytest.Item]:
        """An item a case and MMU."""
        from emu.config import Mmu
        from emu.errors import EmuError
        from emu.suite.reading import read_suite
        from emu.suite.results import jobs_of

        try:
            cases = read_suite(self.path)
        except EmuError as error:
            raise self.CollectError(str(error)) from error
        for job in jobs_of(cases, tuple(Mmu)):
            yield CaseItem.from_parent(self, name=f"{job.case.name}[{job.where}]", job=job)


class CaseItem(pytest.Item):
    """A case under one MMU."""

    def __init__(self, *, job: Job, **rest: Any) -> None:
        super().__init__(**rest)
        self.job = job

    def runtest(self) -> None:
        """Run the guest; raises CaseFailed with the result, or skips."""
        from emu.suite.results import FAIL, SKIP
        from emu.suite.runner import run_jobs

        (result,) = run_jobs(pool_of(self.config), [self.job])
        if result.status == SKIP:
            pytest.skip(result.reasons[0])
        if result.status == FAIL:
            raise CaseFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The explanation that `emu test` gives."""
        from emu.suite.report import explanation

        if isinstance(excinfo.value, CaseFailed):
            return explanation(excinfo.value.result)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the case stands."""
        return self.path, None, self.name


class CaseFailed(Exception):  # noqa: N818  (an outcome, as pytest names it)
    """A case failed; `result` says how."""

    def __init__(self, result: Result) -> None:
        super().__init__("\n".join(result.reasons))
        self.result = result


@pytest.fixture
def emu_vm(request: pytest.FixtureRequest) -> Callable[..., Finished]:
    """A function that boots an image and returns the finished run.

    `emu_vm(image, append="", modules=(), memory="32M", mmu="shadow", limit=..., events=(), disk=None)` gives an
    `emu.suite.run.Finished`: outcome, value, serial, instructions, virtual_time, counters, events (of the groups named).
    """
    from emu.suite.fixture import Request, run_request

    def boot(image: str | Path, **settings: Any) -> Finished:
        finished: Finished = pool_of(request.config).call(run_request, Request.from_settings(image, **settings))
        return finished

    return boot
