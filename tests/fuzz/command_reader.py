# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines (`emu.cli.parse`), and what `emu boot` and `emu test` read before anything runs. An input is arguments, separated by RS."""

from __future__ import annotations

import contextlib
import io
import os
import random
import string
from pathlib import Path

from emu import events
from emu.bench.names import NAMES
from emu.cli import boot, parse, test
from emu.cli.boot_options import BootOptions
from emu.config import SHADOW_SWITCHES
from emu.errors import EmuError, UsageError
from emu.wording import one_line

RS = "\x1e"
COMMANDS = (
    "boot",
    "host",
    "guests",
    "test",
    "bench",
    "disk",
    "disk make",
    "disk check",
    "disk list",
    "disk copy",
    "help",
    "help boot",
    "",
)
OPTIONS = (
    "--memory", "--append", "--module", "--boot-disk", "--disk", "--disk-latency", "--disk-bandwidth", "--balloon", "--mmu", "--shadow",
    "--shadow-memory", "--cpu-limit", "--time-limit", "--trace", "--events", "--trace-firmware", "--trace-from", "--trace-until", "--tables",
    "--vga", "--json", "--raw-exit", "--no-reboot", "--quiet", "-q", "--threads", "--seconds", "--top", "--log", "--swap", "--save",
    "--save-every", "--resume", "--check", "--sharing-report", "--page", "--sharing-pages", "--list", "-k", "-j", "--junit", "--update",
    "--qemu", "--tap", "--size", "--from", "--force", "--version", "--help", "--", "-", "--show-completion",
)  # fmt: skip
VALUES = (
    "32M", "4M", "3072M", "0", "-1", "1", "5M", "2s", "500us", "8ms", "1.5s", "8M@10s,0@20s", "@", "9" * 19, "9" * 5000, "shadow", "nested",
    "shadow,nested", "all", *SHADOW_SWITCHES, ",".join(SHADOW_SWITCHES), "end", *events.GROUPS, "fault,,cr3", *NAMES[:5], "hello", "paging",
    "bootsector", "os-i386", "overcommit", "memory:16M", "memory:", "memory:9999999G", ",readonly", "file", "file,readonly", "folder", "link",
    "suite.toml", "/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", ".", "vm-1:0x3f2", "x:y", ":", "", " ", "٣٢M", "½", "\u202e",
    "\ud800", "\x1b[2J", "\x07", "\n", "\r", "\t", "\0", "é" * 300, "a" * 70_000, "%s%n", "{}", "[red]", "'", '"', "\\", "=", "--=", "*", "~", "$HOME",
)  # fmt: skip
LETTERS = string.printable + "éß🦊\u200b\u2028\x1b\x00\x7f\x9b"
TOKENS = tuple(token.encode("utf-8", "surrogatepass") for token in (RS, *COMMANDS, *OPTIONS, *VALUES[:60]) if token)


def seeds() -> list[bytes]:
    """Command lines of the README's kind."""
    lines = (
        "boot hello --append one --memory 64M --module file", "boot --boot-disk bootsector --vga --json",
        "boot paging --trace --events fault,cr3 --trace-from 1M --trace-until 2s --cpu-limit 5M",
        "boot os-i386 --disk memory:16M --balloon 16M@5s,0@15s --time-limit 30s --mmu nested", "boot hello --trace=out --tables=5M -q",
        "host overcommit --threads 2 --seconds 10s --log run.parquet --page vm-1:0x3f2", "test -k paging --mmu shadow -j 2 --list",
        "disk make work.img --size 64M --swap 32M --from folder", "disk copy file /x out --force", "bench boot --json", "--version",
    )  # fmt: skip
    return [RS.join(line.split()).encode() for line in lines]


def make(rng: random.Random) -> bytes:
    """A command with options that exist, and values that are meant for others."""
    arguments = rng.choice(COMMANDS).split()
    for _ in range(rng.randrange(9)):
        kind = rng.randrange(10)
        if kind < 5:
            option = rng.choice(OPTIONS)
            arguments += [f"{option}={_value(rng)}"] if rng.randrange(2) else [option, _value(rng)]
        elif kind < 7:
            arguments.append(rng.choice(OPTIONS))
        else:
            arguments.append(_value(rng))
    if not rng.randrange(10):
        rng.shuffle(arguments)
    return RS.join(arguments).encode("utf-8", "surrogatepass")


def _value(rng: random.Random) -> str:
    if rng.randrange(4):
        return rng.choice(VALUES)
    return "".join(rng.choice(LETTERS) for _ in range(rng.choice((1, 3, 10, 100))))


def try_one(data: bytes, folder: Path) -> None:
    """Everything that is done before a VM starts, in a folder with a file, a folder and a link."""
    os.environ["HOME"] = str(folder)  # where completions would be installed
    arguments = data.decode("utf-8", "surrogateescape").split(RS)
    _furnish(folder)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape")):
        try:
            _read(arguments)
        except SystemExit:  # as Typer ends when it has printed a completion script
            return
        except EmuError as error:
            raise UsageError(one_line(str(error))) from error  # as the command prints it
        except OSError as error:
            if (wrong := parse.about_a_name(error, arguments)) is None:
                raise
            raise UsageError(one_line(str(wrong))) from error


def _read(arguments: list[str]) -> None:
    request = parse.parse(arguments)
    options = None if request is None else request.options
    if isinstance(options, BootOptions):
        boot.what_to_boot(options)  # what is in images is for their own readers
    elif isinstance(options, test.TestOptions):
        test._chosen_jobs(options)


def _furnish(folder: Path) -> None:
    if not (folder / "folder").exists():
        (folder / "folder").mkdir()
        (folder / "file").write_bytes(b"\x02\xb0\xad\x1b" * 100)
        (folder / "suite.toml").write_text('[[case]]\nname = "k"\nimage = "hello"\n')
        (folder / "link").symlink_to("link")
