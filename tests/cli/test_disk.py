# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu boot --disk`: what is refused, what is summed up, and a host that lets the disk down while the guest runs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMU = [sys.executable, "-c", "from emu.cli import run; run()"]
LIMIT_S = 120
SUITE = ROOT / "emu" / "images" / "suite"
DISK_BYTES = 16 << 20
WRITES = ["boot", "bench", "--append", "mode=disk-write request=65536 n=64"]
FAILED = "disk: a transfer failed\n"


def emu(*arguments: str | Path, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, with a limit on the size of files if one is given."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [*EMU, *map(str, arguments)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LIMIT_S,
        check=False,
        preexec_fn=limit,
    )


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    assert emu("boot", "hello", "--quiet").returncode == 0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, DISK_BYTES)
    return path


REFUSED = {
    "nothing": (["--disk="], 2, "--disk: expected FILE"),
    "only readonly": (["--disk=,readonly"], 2, "--disk: expected FILE"),
    "memory without a size": (["--disk=memory:"], 2, "disk size ''"),
    "memory of no size": (["--disk=memory:0"], 66, "a disk of 0 bytes"),
    "memory beyond": (["--disk=memory:9999G"], 66, "at most 2 TiB"),
    "a missing file": (["--disk=/nowhere/disk.img"], 66, "/nowhere/disk.img: cannot open the disk image (no such file"),
    "a folder": (["--disk=/"], 66, "/: a folder"),
    "a device": (["--disk=/dev/null"], 66, "not a regular file"),
    "latency": (["--disk-latency", "soon"], 2, "disk latency 'soon'"),
    "negative latency": (["--disk-latency=-1ms"], 2, "disk latency '-1ms'"),
    "endless latency": (["--disk-latency", "9999999s"], 2, "disk latency of"),
    "bandwidth": (["--disk-bandwidth", "fast"], 2, "disk bandwidth 'fast'"),
    "no bandwidth": (["--disk-bandwidth", "0"], 2, "disk bandwidth of 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    options, status, complaint = REFUSED[case]
    run = emu("boot", "hello", *options)
    assert (run.returncode, run.stdout) == (status, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith("emu: ")
    assert complaint in line


def test_an_image_of_part_of_a_sector(image: Path) -> None:
    os.truncate(image, DISK_BYTES + 1)
    run = emu("boot", "hello", "--disk", image)
    assert run.returncode == 66
    assert run.stderr == f"emu: {image}: a disk of {DISK_BYTES + 1} bytes: whole sectors of 512 bytes are needed\n"


def test_summary_and_json(image: Path) -> None:
    run = emu(*WRITES, "--disk", image, "--json")
    assert run.returncode == 0
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["disk"] == {
        "reads": 0, "writes": 64, "read_bytes": 0, "written_bytes": 64 * 65536, "flushes": 0, "errors": 0,
    }  # fmt: skip
    assert "emu: disk: 0 reads of 0 bytes, 64 writes of 4,194,304 bytes, 0 flushes, 0 errors\n" in run.stderr
    assert image.read_bytes()[4096:4100] == (4096).to_bytes(4, "little")
    without = emu("boot", "hello", "--json")
    assert json.loads(without.stdout.splitlines()[-1])["disk"] is None


def test_time_is_virtual_and_configured(image: Path) -> None:
    """64 requests of 64 KiB."""

    def seconds(*options: str) -> float:
        run = emu(*WRITES, "--disk", image, "--json", "--quiet", *options)
        return float(json.loads(run.stdout.splitlines()[-1])["virtual_time"] / 10_000_000)

    none = seconds("--disk-latency=0", "--disk-bandwidth=1000G")
    assert seconds("--disk-latency=10ms", "--disk-bandwidth=1000G") - none == pytest.approx(0.64, abs=0.01)
    assert seconds("--disk-latency=0", "--disk-bandwidth=4M") - none == pytest.approx(1.0, abs=0.01)


def test_the_same_run_twice_is_the_same(tmp_path: Path) -> None:
    """Event for event, on a disk in memory."""
    traces = []
    for name in ("one", "two"):
        trace = tmp_path / name
        run = emu("boot", SUITE / "disk-32.bin", "--disk=memory:16M", f"--trace={trace}", "--events=shadow,cr3,inject", "--json")
        assert run.returncode == 0
        traces.append((trace.read_bytes(), run.stdout))
    assert traces[0] == traces[1]


def test_readonly(image: Path) -> None:
    image.chmod(0o400)
    run = emu(*WRITES, "--disk", f"{image},readonly", "--quiet")
    assert run.stdout.endswith(FAILED)
    assert not any(image.read_bytes())


def test_a_file_size_limit_is_a_disk_error_and_a_line(image: Path) -> None:
    run = emu(*WRITES, "--disk", image, "--quiet", limit_bytes=1 << 20)
    assert run.stdout.endswith(FAILED)
    assert run.stderr == f"emu: {image}: cannot write at sector 2048 (file too large): the guest gets a disk error\n"


def test_an_image_that_is_in_use(image: Path) -> None:
    endless = ["boot", "bench", "--append", "mode=integer n=4000000000", "--tables=1000000", "--disk", str(image)]
    with subprocess.Popen([*EMU, *endless], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT) as first:
        assert first.stdout is not None
        assert first.stdout.read(1)  # it runs
        run = emu("boot", "hello", "--disk", image)
        first.kill()
    assert run.returncode == 66
    assert run.stderr.startswith(f"emu: {image}: in use by another emu")
    assert emu("boot", "hello", "--disk", image, "--quiet").returncode == 0


def test_an_image_that_is_truncated_while_the_guest_runs(image: Path) -> None:
    again = ["boot", "bench", "--append", "mode=disk-write request=65536 n=100000000", "--quiet", "--disk", str(image)]
    with subprocess.Popen(
        [*EMU, *again], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        while not any(image.read_bytes()[65536:131072]):  # it writes
            assert process.poll() is None
        os.truncate(image, 65536)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert output.endswith(FAILED)
    (line,) = errors.splitlines()
    assert line.startswith(f"emu: {image}: cannot write at sector ")
    assert line.endswith("(the file was truncated while in use): the guest gets a disk error")
    assert image.stat().st_size == 65536


def test_a_run_that_is_killed_leaves_what_was_written(image: Path) -> None:
    again = ["boot", "bench", "--append", "mode=disk-write request=65536 n=100000000", "--disk", str(image)]
    with subprocess.Popen([*EMU, *again], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT) as process:
        while not any(image.read_bytes()[-65536:]):  # all over the disk
            assert process.poll() is None
        process.kill()
    data = image.read_bytes()
    request = b"".join(at.to_bytes(4, "little").ljust(4096, b"\0") for at in range(0, 65536, 4096))
    assert all(data[at : at + 65536] == request for at in range(0, DISK_BYTES, 65536))


SUITE_OF_DISKS = f"""
[defaults]
image = "{ROOT / "emu" / "images" / "bench.elf"}"
memory = "64M"
append = "mode=disk-read n=1 request=4096"
mmu = ["shadow"]
reason = "one is enough"

[[case]]
name = "ones"
disk = "ones.img"
serial_regex = "check=(?!00000000)"

[[case]]
name = "missing"
disk = "missing.img"

[[case]]
name = "zeros"
disk = "1M"
serial = "check=00000000"
"""


def test_cases_of_a_suite_get_copies(tmp_path: Path) -> None:
    ones = tmp_path / "ones.img"
    ones.write_bytes(b"\1" * 65536)
    (tmp_path / "suite.toml").write_text(SUITE_OF_DISKS)
    run = emu("test", tmp_path)
    assert "PASS ones [shadow]" in run.stdout
    assert "PASS zeros [shadow]" in run.stdout
    assert "FAIL missing [shadow]" in run.stdout
    assert "missing.img: cannot open the disk image (no such file or directory)" in run.stdout + run.stderr
    assert ones.read_bytes() == b"\1" * 65536


# ---- several ----


def test_several_disks_in_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path, size in zip(paths, (1, 2), strict=True):
        path.touch()
        os.truncate(path, size << 20)
    disks = [f"--disk={paths[0]}", f"--disk={paths[1]}", "--disk=memory:3M", "--disk=memory:4M"]
    run = emu("boot", SUITE / "disks-32.bin", *disks, "--json")
    told = json.loads(run.stdout.splitlines()[-1])
    assert "6 passed, 0 failed, 0 skipped" in run.stdout
    assert [disk["name"] for disk in told["disks"]] == [*map(str, paths), "memory:3145728", "memory:4194304"]
    assert all(disk["reads"] and disk["writes"] for disk in told["disks"])
    assert told["disk"]["writes"] == sum(disk["writes"] for disk in told["disks"])
    assert [line.split(":")[1] for line in run.stderr.splitlines() if " reads of " in line] == [f" disk {n}" for n in range(1, 5)]
    assert all(any(path.read_bytes()) for path in paths)


def test_disks_that_exclude_each_other(image: Path) -> None:
    link = image.with_name("link")
    link.symlink_to(image)
    for pair in ([image, image], [image, link], [f"{image},readonly", link]):
        run = emu("boot", "hello", *(f"--disk={one}" for one in pair))
        assert (run.returncode, run.stdout) == (2, "")
        assert "given twice as a disk: a disk image has one writer" in run.stderr
    assert emu("boot", "hello", *[f"--disk={image},readonly"] * 4, "--quiet").returncode == 0
    assert emu("boot", "hello", *["--disk=memory:1M"] * 4, "--quiet").returncode == 0
    run = emu("boot", "hello", *["--disk=memory:1M"] * 5)
    assert (run.returncode, run.stderr) == (2, "emu: 5 disks: at most 4 can be attached\n")


def boot_image(path: Path, sectors: int) -> Path:
    """A boot sector that sends COM1 the number of IDE drives and of the first one's sectors, in thousands, and ends."""
    code = bytes.fromhex("a07504 0430 baf803 ee")  # mov al, [475]; add al, '0'; out
    code += bytes.fromhex("baf601 b0a0 ee 42 b0ec ee eca80874fb")  # drive 0; IDENTIFY; wait for DRQ
    code += bytes.fromhex("baf001 b93c00 ed e2fd ed")  # 60 words, then the sectors' low word
    code += bytes.fromhex("c1e808 0430 baf803 ee b000 e6f4 f4")
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(512 * (sectors - 1)))
    return path


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
def test_the_boot_disk_is_the_first_drive(tmp_path: Path, mmu: str) -> None:
    path = boot_image(tmp_path / "boot.img", 0x500)
    run = emu("boot", "--boot-disk", path, "--disk=memory:1M", "--quiet", f"--mmu={mmu}", "--json")
    assert run.returncode == 0
    assert run.stdout[:2] == "25"
    assert [disk["name"] for disk in json.loads(run.stdout[2:])["disks"]] == [str(path), "memory:1048576"]


def test_a_boot_disk_that_is_a_disk_already_stays_where_it_is(tmp_path: Path) -> None:
    path = boot_image(tmp_path / "boot.img", 0x500)
    other = boot_image(tmp_path / "other.img", 0x300)
    run = emu("boot", "--boot-disk", path, f"--disk={other}", f"--disk={path}", "--quiet")
    assert (run.returncode, run.stdout) == (0, "23")


def test_a_floppy_is_no_drive(tmp_path: Path) -> None:
    run = emu(
        "boot", "--boot-disk", boot_image(tmp_path / "boot.img", 2880), f"--disk={boot_image(tmp_path / 'a', 0x400)}", "--quiet"
    )
    assert (run.returncode, run.stdout) == (0, "14")
