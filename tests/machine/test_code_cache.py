# SPDX-License-Identifier: GPL-2.0-or-later
"""The compile cache: nothing of anybody else's is ever removed; damage is noticed; it serves where it can only be read, and where nothing can be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu.machine import code_cache, native
from emu.machine.code_cache import COMPLETE, IN_USE, KEPT, PARENT, TAG, TAG_TEXT, CodeCache

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = [f"{number:020x}" for number in range(KEPT + 3)]


def cache_of(root: Path, version: str = VERSIONS[0]) -> CodeCache:
    return CodeCache(version, root)


def filled(root: Path, version: str, age_s: float = 0) -> Path:
    """The folder of a version that was compiled `age_s` seconds ago, and is in nobody's use."""
    cache = cache_of(root, version)
    cache.save("f", "key", 1)
    cache.mark_complete(1)
    cache.release()
    assert cache.folder is not None
    then = time.time() - age_s
    os.utime(cache.folder / COMPLETE, (then, then))
    return cache.folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- what is kept ----


def test_what_was_kept_comes_back_under_its_name_and_key(tmp_path: Path) -> None:
    cache_of(tmp_path).save("f", "key", {"a": 1})
    again = cache_of(tmp_path)
    assert again.load("f", "key") == {"a": 1}
    assert (again.load("f", "other"), again.load("g", "key"), cache_of(tmp_path, VERSIONS[1]).load("f", "key")) == (None,) * 3


@pytest.mark.parametrize("at", [0, 5, 12, 30, -1])
def test_a_damaged_file_counts_as_absent_and_is_written_again(tmp_path: Path, at: int) -> None:
    cache = cache_of(tmp_path)
    cache.save("f", "key", list(range(100)))
    (file,) = tmp_path.rglob("*.code")
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert (cache.load("f", "key"), cache.damaged) == (None, [file])
    cache.save("f", "key", 7)
    assert cache.load("f", "key") == 7


@pytest.mark.parametrize("size", [0, 3, 20, 40])
def test_a_file_cut_short_counts_as_absent(tmp_path: Path, size: int) -> None:
    cache = cache_of(tmp_path)
    cache.save("f", "key", list(range(100)))
    (file,) = tmp_path.rglob("*.code")
    os.truncate(file, size)
    assert cache.load("f", "key") is None


# ---- what is removed ----


def test_old_versions_go_when_a_new_one_is_complete_and_not_before(tmp_path: Path) -> None:
    folders = [filled(tmp_path, version, age_s=1000 - number) for number, version in enumerate(VERSIONS)]
    assert [folder.exists() for folder in folders] == [False, False, False, *(True,) * KEPT]
    new = cache_of(tmp_path, "f" * 20)
    new.load("f", "key")
    new.save("f", "key", 1)
    assert folders[3].exists()
    new.mark_complete(1)
    assert [folder.exists() for folder in folders] == [False] * 4 + [True] * (KEPT - 1)


def test_folders_that_are_not_emu_s_stay(tmp_path: Path) -> None:
    """Some of them with names like ours, of which one has a tag of another program."""
    parent = tmp_path / PARENT
    strangers = [
        tmp_path / "photos",
        tmp_path / "0123456789abcdef0123",
        parent / "mine",
        parent / f"native-{VERSIONS[6]}",
        parent / "native-x",
    ]
    for folder in strangers:
        folder.mkdir(parents=True)
        (folder / "precious.code").write_text("precious")
        (folder / COMPLETE).touch()
        os.utime(folder / COMPLETE, (0, 0))
    (parent / f"native-{VERSIONS[6]}" / TAG).write_bytes(TAG_TEXT.splitlines(keepends=True)[0])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / TAG).write_bytes(TAG_TEXT)
    (outside / "x.code").touch()
    (parent / f"native-{'e' * 20}").symlink_to(outside)
    before = everything(tmp_path)
    for number, version in enumerate([*VERSIONS[:6], "a" * 20, "b" * 20]):
        filled(tmp_path, version, age_s=100 - number)
    assert before <= everything(tmp_path)


def test_a_file_of_the_user_s_in_a_folder_of_emu_s_stays(tmp_path: Path) -> None:
    old = filled(tmp_path, VERSIONS[0], age_s=1000)
    (old / "notes.txt").write_text("mine")
    (old / "folder").mkdir()
    (old / "link.code").symlink_to(tmp_path)
    code_cache.remove(old)
    assert everything(old) == {"notes.txt", "folder", "link.code", TAG}
    code_cache.remove(old)
    assert everything(old) == {"notes.txt", "folder", "link.code", TAG}


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    old = filled(tmp_path, VERSIONS[0])
    user = cache_of(tmp_path)
    assert user.load("f", "key") == 1
    code_cache.remove(old)
    assert user.load("f", "key") == 1
    user.release()
    code_cache.remove(old)
    assert not old.exists()


def test_a_parent_that_is_a_link_is_used_and_never_cleaned(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / PARENT).symlink_to(tmp_path / "disk")
    folders = [filled(tmp_path / "root", version) for version in VERSIONS]
    assert all(folder.exists() for folder in folders)


def test_the_command_leaves_a_folder_of_the_user_s_as_it_is(tmp_path: Path) -> None:
    """As in a real case: EMU_CACHE_DIR named a folder with projects in it."""
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    before = everything(tmp_path)
    for arguments in (["guests"], ["--help"], ["boot", "nosuch"], ["disk", "--help"], ["host", "--list"]):
        subprocess.run(
            [sys.executable, "-m", "emu", *arguments],
            env=os.environ | {"EMU_CACHE_DIR": str(tmp_path)},
            cwd=ROOT,
            check=False,
            capture_output=True,
        )
    assert everything(tmp_path) == before


# ---- where it cannot be as it should ----


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="emu-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_complete_folder_need_only_be_readable(shared: Path) -> None:
    folder = filled(shared, VERSIONS[0])
    made = [*folder.iterdir(), folder, folder.parent, shared]
    modes = [path.stat().st_mode for path in made]
    for path in made:
        path.chmod(path.stat().st_mode & ~0o222)
    code = "from emu.machine.code_cache import CodeCache; from pathlib import Path; import sys; c = CodeCache(sys.argv[2], Path(sys.argv[1])); "
    code += "print(c.is_for_this_run, c.load('f', 'key'), c.mark_used(), c.save('g', 'key', 2), c.kept, c.root)"
    another_user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []  # root could write all the same
    done = subprocess.run(
        [*another_user, sys.executable, "-c", code, shared, VERSIONS[0]],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for path, mode in zip(made, modes, strict=True):
        path.chmod(mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"False 1 None None 0 {shared}\n", "")


def test_without_a_home_there_is_a_folder_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "EMU_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # nobody's
    assert code_cache.chosen_root() is None
    cache = CodeCache(VERSIONS[0])
    assert (cache.is_for_this_run, cache.load("f", "key")) == (True, None)
    cache.save("f", "key", 5)
    monkeypatch.setenv("EMU_CACHE_DIR", os.environ["EMU_CACHE_DIR"])  # set for children; taken back after the test
    assert cache.load("f", "key") == 5
    child = CodeCache(VERSIONS[0])
    assert child.load("f", "key") == 5
    child.release()
    root = cache.root
    assert root is not None
    code_cache._remove_temporary(root, cache, os.getpid())
    assert not root.exists()


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null", "/dev/null/x", "{folder}/dangling"])
def test_a_place_that_cannot_be_written_is_as_none(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "else")
    monkeypatch.setenv("EMU_CACHE_DIR", place)  # what it sets for children is taken back after the test
    cache = cache_of(Path(place.replace("{folder}", str(tmp_path))))
    cache.save("f", "key", 1)
    assert (cache.is_for_this_run, cache.load("f", "key")) == (True, 1)
    assert cache.root is not None
    code_cache._remove_temporary(cache.root, cache, os.getpid())


def test_where_nothing_at_all_can_be_written_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    cache = cache_of(Path("/proc/nowhere"))
    cache.save("f", "key", 1)
    with cache.exclusive(lambda: None):
        cache.save("f", "key", 1)
    cache.mark_complete(1)
    assert (cache.load("f", "key"), cache.kept, cache.is_complete()) == (None, 0, False)


def test_a_full_disk_ends_keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    cache.save("f", "key", 1)
    assert cache.load("f", "key") is None
    assert not cache.is_complete()


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({"EMU_CACHE_DIR": "/a"}, "/a"),
        ({"EMU_CACHE_DIR": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/emu"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/c"}, "/c/.cache/emu"),
        ({"HOME": "/c"}, "/c/.cache/emu"),
    ],
)
def test_the_root_is_where_the_environment_says(variables: dict[str, str], root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMU_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert code_cache.chosen_root() == Path(root)


# ---- two at once ----


def test_one_process_compiles_and_the_other_waits(tmp_path: Path) -> None:
    first, second = cache_of(tmp_path), cache_of(tmp_path)
    order: list[str] = []

    def other() -> None:
        with second.exclusive(lambda: order.append("waits")):
            order.append("second")

    thread = threading.Thread(target=other)
    with first.exclusive(lambda: order.append("never")):
        thread.start()
        while "waits" not in order:
            time.sleep(0.001)
        order.append("first")
    thread.join()
    assert order == ["waits", "first", "second"]


def test_two_that_make_the_folder_at_once_make_one(tmp_path: Path) -> None:
    folder = tmp_path / PARENT / f"native-{VERSIONS[0]}"
    code_cache._make_tagged(folder)
    (folder / IN_USE).touch()
    code_cache._make_tagged(folder)
    assert everything(tmp_path / PARENT) == {folder.name, f"{folder.name}/{TAG}", f"{folder.name}/{IN_USE}"}


# ---- what Numba keeps ----


def test_native_code_is_found_again_by_another_process() -> None:
    """Keys must not differ from one process to the next: a second one, from another folder too, compiles nothing."""
    code = "from emu.resources.compiling import prepare; from emu.machine.native import CACHE; "
    code += "missed = []; CACHE.on_miss = missed.append; prepare(); print(missed, CACHE.is_complete())"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_the_bar_s_length_is_about_what_a_full_set_has() -> None:
    from emu.cli.compiling import FUNCTIONS

    assert native.CACHE.folder is not None
    kept = len(list(native.CACHE.folder.glob("*.code")))
    assert 0.8 * FUNCTIONS <= kept <= 1.5 * FUNCTIONS  # tests may have added some
