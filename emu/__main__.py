"""`python -m emu` is the `emu` command."""

from emu.cli import run

run()
