# SPDX-License-Identifier: GPL-2.0-or-later
"""Suite files (`emu.suite.reading`), as `emu test --update` reads them."""

from __future__ import annotations

import random
from pathlib import Path

from emu.events import CATALOGUE
from emu.suite.cases import counter_names
from emu.suite.goldens import check_can_update
from emu.suite.reading import CASE_KEYS, EXPECTATION_KEYS, read_suite
from tests.fuzz import toml_words

ROOT = Path(__file__).resolve().parents[2]
HEADERS = (
    "[[case]]",
    "[[case]]\nname = 'n'\nimage = 'k.elf'",
    "[defaults]",
    "[case.expect.shadow]",
    "[case.expect.nested]\nreason = 'x'",
    "[case.events]",
)
KEYS = (*CASE_KEYS, *EXPECTATION_KEYS, *list(counter_names())[: len(CATALOGUE)], "events.hidden_faults", "expect.nested.exit")
TOKENS = tuple(word.encode() for word in (*HEADERS, *KEYS, "=", '"', "'''", '"""', "[", "{", "#", "\n"))
EVERY_KEY = """
[defaults]
memory = "8M"
reason = "why"
[[case]]
name = "a"
image = "k.elf"
append = "x"
modules = ["m", "n"]
disk = ["2M", "d.img"]
balloon = "1M@1s"
mmu = ["shadow"]
limit = "5M"
cpu_limit = 7
timeout = "5s"
output_limit = "64K"
skip_exit = 38
cases_from_serial = "kvm-unit-tests"
qemu_differs = "y"
qemu_checks = ["c*"]
qemu_ignores = ["t*"]
qemu_options = ["-d", "int"]
serial = ["x"]
serial_regex = "^a.*b$"
serial_exact = "q"
screen = "s"
screen_regex = "s"
golden = "g"
trace = "t.{mmu}"
trace_events = ["fault"]
known_failures = ["k"]
events = { hidden_faults = { min = 1, max = 2 }, exits = { equal = 3 } }
[case.expect.shadow]
exit = 1
reason = "z"
[[case]]
name = "b"
boot_disk = "bootsector"
outcome = "triple fault"
skip = "s"
"""


def seeds() -> list[bytes]:
    """The suites that come with emu, and one with every key."""
    return [*(path.read_bytes() for path in sorted((ROOT / "guests").rglob("suite.toml"))), EVERY_KEY.encode()]


SEEDS = seeds()


def make(rng: random.Random) -> bytes:
    """A suite by the grammar of TOML."""
    return toml_words.make(rng, SEEDS, HEADERS, KEYS)


def try_one(data: bytes, folder: Path) -> None:
    """Read it as a user's file is read."""
    path = folder / "suite.toml"
    path.write_bytes(data)
    check_can_update(read_suite(path))
