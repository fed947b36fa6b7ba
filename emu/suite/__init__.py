"""Regression suites of guest binaries: read, run, judged, reported. Nothing here prints: see `emu.cli.test`."""
