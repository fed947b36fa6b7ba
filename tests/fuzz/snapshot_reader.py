# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots of `emu host` (`emu.host.snapshot`): files that are damaged, and files that are made up, with right checksums.

Those that `make` gives are of three kinds: archives with members that are not what they should be, an index in which something is replaced,
arrays in which numbers are. Most are of a machine whose VM has ended, which is read fast; some of one that runs.
"""

from __future__ import annotations

import copy
import gc
import io
import json
import random
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emu.host import scenario, snapshot
from emu.host.host import Host

ENDED = 'memory = "5M"\nseconds = "9s"\n[[vm]]\nname = "a"\nguest = "hello"\nmemory = "4M"\nappend = "x"\n'
RUNNING = """
memory = "12M"
seconds = "9s"
[services]
scan_rate = 40000
compress = true
sample_period = "100ms"
[[vm]]
name = "a"
memory = "8M"
append = 'run="toucher schedule=1m@0,3m@1 seconds=30 seed=1"'
"""
SLICES = {ENDED: 3, RUNNING: 12}
RESERVED = 16 << 30  # a gigabyte by each engine, for code; Arrow's memory pool
ENGINE_BYTES = 100_000  # of a file with a VM that runs
RARE = 64  # one of so many inputs is of the machine that runs, which takes fifty times as long
WORDS = (0, 1, -1, 2, 7, 255, 4095, 4096, 65535, 1 << 20, (1 << 31) - 1, -(1 << 31), (1 << 62), -(1 << 63), (1 << 63) - 1)
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1 << 70,
    0.5,
    1e308,
    "",
    "x",
    "\x1b[2J",
    [],
    {},
    {"as": "object"},
    {"as": "method", "name": "close"},
)
TAGS = (
    "array",
    "object",
    "method",
    "random",
    "bytes",
    "list",
    "tuple",
    "set",
    "dict",
    "deque",
    "Counter",
    "Phase",
    "Stop",
    "Exception",
    "eval",
)
TEXTS = ("memory", "4096M", "5M", "1T", "vm", "name", "disk", "64M", "mmu", "nested", "seconds", "os-i386", "../../x")


@cache
def _saved(text: str) -> bytes:
    host = Host(scenario.parse(text, "fuzz", "fuzz"), threads=1)
    with tempfile.TemporaryDirectory(prefix="emu-fuzz-") as folder:
        for _ in range(SLICES[text]):
            host.step()
        snapshot.save(host, Path(folder) / "a")
        host.close()
        return (Path(folder) / "a").read_bytes()


@cache
def _members(text: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_saved(text))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def seeds() -> list[bytes]:
    """One of each machine."""
    return [_saved(ENDED), _saved(RUNNING)]


def try_one(data: bytes, folder: Path) -> None:
    """Read it, as `--resume` does, and let it go again."""
    path = folder / "a.snap"
    path.write_bytes(data)
    try:
        snapshot.load(path, snapshot.Options(threads=1)).close()
    finally:
        if len(data) > ENGINE_BYTES:
            gc.collect()  # what was half made goes with its engine


def make(rng: random.Random) -> bytes:
    """A snapshot that is made up."""
    members = dict(_members(RUNNING if rng.randrange(RARE) == 0 else ENDED))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        rng.choice((_change_index, _change_index, _change_array, _change_array, _change_member))(rng, members)
    return _packed(rng, members)


def _packed(rng: random.Random, members: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    kind = rng.choice((*[zipfile.ZIP_STORED] * 60, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(whole, "w", kind) as archive:
        for name, contents in members.items():
            archive.writestr(zipfile.ZipInfo(name) if kind == zipfile.ZIP_STORED else name, contents)
    return whole.getvalue()


# ---- members ---------------------------------------------------------------------------------------------------------


def _change_member(rng: random.Random, members: dict[str, bytes]) -> None:
    name = rng.choice(list(members))
    what = rng.randrange(6)
    if what == 0:
        del members[name]
    elif what == 1:
        members[rng.choice(("arrays/999.npy.zst", "../../x", "snapshot.json/", "a" * 300))] = b"x"
    elif what == 2:
        members[name] = members[rng.choice(list(members))]
    elif what == 3:
        members[name] = members[name][: rng.randrange(len(members[name]) + 1)]
    elif what == 4:
        members[name] = rng.randbytes(rng.choice((0, 1, 8, 100)))
    elif name != snapshot.INDEX:
        members[name] += _compressed(rng.randbytes(9))  # a second frame


# ---- the index -------------------------------------------------------------------------------------------------------


def _change_index(rng: random.Random, members: dict[str, bytes]) -> None:
    try:
        document = json.loads(members[snapshot.INDEX])
    except (KeyError, ValueError, RecursionError):  # changed before
        return
    if rng.randrange(40) == 0:
        members[snapshot.INDEX] = rng.choice((b"[" * 100_000, b'{"a":' * 50_000, b"[]", b"3", b'{"format": 2}', b"\xff"))
        return
    document = _changed(rng, document)
    members[snapshot.INDEX] = json.dumps(document).encode()


def _changed(rng: random.Random, thing: Any) -> Any:
    """A copy with one thing in it replaced, moved, dropped or doubled, anywhere."""
    thing = copy.copy(thing)
    keys: list[Any] = list(thing) if isinstance(thing, dict) else list(range(len(thing))) if isinstance(thing, list) else []
    if keys and rng.randrange(12):
        key = rng.choice(keys)
        if key in ("form", "format") and rng.randrange(8):
            return thing
        thing[key] = _changed(rng, thing[key])
        return thing
    return _replaced(rng, thing, keys)


def _replaced(rng: random.Random, thing: Any, keys: list[Any]) -> Any:
    what = rng.randrange(4)
    if isinstance(thing, dict) and "as" in thing and what < 2:
        thing["as"] = rng.choice(TAGS)
    elif isinstance(thing, str) and what < 3:
        return _other_text(rng, thing)
    elif isinstance(thing, int) and what < 3:
        return rng.choice((*WORDS, thing + 1, thing - 1, thing ^ 1 << rng.randrange(64)))
    elif keys and what == 2:
        del thing[rng.choice(keys)]
    elif isinstance(thing, list) and what == 1:
        return thing + thing
    else:
        return rng.choice(STRANGE)
    return thing


def _other_text(rng: random.Random, text: str) -> str:
    """Another word in its place, or one of its words replaced: the scenario is a text, too."""
    words = text.split('"')
    words[rng.randrange(len(words))] = rng.choice((*TEXTS, *TAGS, "RUNNING", "HARD"))
    return '"'.join(words)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _contents(packed: bytes) -> bytes:
    with pa.CompressedInputStream(io.BytesIO(packed), "zstd") as stream:
        return bytes(stream.read())


def _compressed(contents: bytes) -> bytes:
    packed: bytes = pa.compress(contents, codec="zstd", asbytes=True)
    return packed


def _change_array(rng: random.Random, members: dict[str, bytes]) -> None:
    name = rng.choice([name for name in members if name.startswith("arrays/")] or [""])
    try:
        contents = _contents(members[name])
        array = np.lib.format.read_array(io.BytesIO(contents), allow_pickle=False).copy()
    except Exception:  # noqa: BLE001  (changed before, so that it is no array, or one larger than the world)
        return
    if rng.randrange(6) == 0:
        header = contents[: contents.index(b"\n") + 1]
        members[name] = _compressed(_other_header(rng, header) + contents[len(header) :])
        return
    _change_numbers(rng, array)
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    members[name] = _compressed(out.getvalue())


def _change_numbers(rng: random.Random, array: np.ndarray) -> None:
    flat = array.reshape(-1)
    if not flat.size:
        return
    field = rng.choice(list(flat.dtype.names)) if flat.dtype.names else None
    numbers = flat[field] if field else flat
    if numbers.dtype.kind not in "iu":
        return
    info = np.iinfo(numbers.dtype)
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(min(flat.size, 64)) if rng.randrange(2) else rng.randrange(flat.size)
        value = rng.choice((*WORDS, flat.size, int(numbers[at]) + 1, int(numbers[at]) ^ 1 << rng.randrange(64)))
        numbers[at] = max(info.min, min(info.max, value))


def _other_header(rng: random.Random, header: bytes) -> bytes:
    """Another type, another shape, another version."""
    changes = (
        (b"'<i8'", rng.choice((b"'|O'", b"'<f8'", b"'<i4'", b"'|V0'", b"'<M8[s]'", b"[('a','|O')]", b"'a'", b"'<U99999999'"))),
        (b"(", rng.choice((b"(99999999999,", b"(-1,", b"(0,", b"((((", b"(1<<60,"))),
        (b"False", b"True"),
        (b"\x01\x00", rng.choice((b"\x02\x00", b"\x03\x00", b"\x09\x00"))),
        (b"NUMPY", b"MUMPY"),
        (b"descr", b"order"),
    )
    before, after = rng.choice(changes)
    return header.replace(before, after, 1)
