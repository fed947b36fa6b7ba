"""Where compiled code lies between runs: a file for each compiled function, in a folder for each version of emu.

    ROOT/native-code/native-VERSION/CACHEDIR.TAG      says that emu made the folder (https://bford.info/cachedir/)
                                    *.code            checksum, then what Numba pickles
                                    complete          all that emu needs is there
                                    in-use, compiling locks

1. Only folders of this name with this tag are ever removed, and in them only files of these names; no link is followed.
   Whatever else lies in ROOT, or in such a folder, stays.
2. That happens when a version has been compiled, never before, and never to a folder that another process uses.
3. A file that is damaged, or of another function, counts as absent: it is compiled and written again.
4. A complete folder need only be readable. Where nothing can be written, code goes to a folder for this process and its children.

Numba's own cache knows none of these rules, and compiles again for each place that the same sources lie in.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import pickle
import pwd
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

PARENT, PREFIX = "native-code", "native-"
FOLDERS = re.compile(rf"{PREFIX}[0-9a-f]{{20}}")
TAG, COMPLETE, IN_USE, COMPILING = "CACHEDIR.TAG", "complete", "in-use", "compiling"
FILES = re.compile(rf".+\.code(\.\d+\.new)?|{COMPLETE}|{COMPILING}|{IN_USE}")
TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Compiled code of one version of emu. emu removes old ones by itself.\n"
)
MAGIC = b"emu code 1\n"
CHECKSUM_BYTES = 16
KEPT = 4  # versions: enough to go back and forth between a few checkouts without compiling again
ROOT_VARIABLE = "EMU_CACHE_DIR"


def chosen_root() -> Path | None:
    """`EMU_CACHE_DIR`, else emu's folder in the user's cache folder (XDG base directories); None for a user without a home."""
    if named := os.environ.get(ROOT_VARIABLE):
        return Path.cwd() / named
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if caches.is_absolute():
        return caches / "emu"
    home = _home()
    return None if home is None else home / ".cache" / "emu"


def _home() -> Path | None:
    named = Path(os.environ.get("HOME", ""))
    if named.is_absolute():
        return named
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


@dataclass
class CodeCache:
    """The folder of one version. `on_miss` and `on_kept` are told the name of a function that is going to be compiled, and was."""

    version: str
    root: Path | None = field(default_factory=chosen_root)
    damaged: list[Path] = field(default_factory=list)  # files found so
    kept: int = 0  # functions that this process compiled and wrote
    on_miss: Callable[[str], None] = lambda _: None
    on_kept: Callable[[str], None] = lambda _: None
    is_for_this_run: bool = field(init=False)  # nobody after it will find the code
    refused: Path | None = field(init=False)  # the root that cannot be used then
    _held: int = -1  # the descriptor of the lock that says that the folder is in use
    _can_write: bool = True
    _has_moved: bool = False  # to a temporary root

    def __post_init__(self) -> None:
        """Choose a folder that serves; nothing is made or changed yet."""
        self.refused = self.root
        self.is_for_this_run = self.root is None or not (self.is_complete() or _can_be_made(self.root))

    @property
    def folder(self) -> Path | None:
        """The folder of this version; None while there is no place for one."""
        return None if self.root is None else self.root / PARENT / (PREFIX + self.version)

    def is_complete(self) -> bool:
        """Whether all that emu needs was compiled before."""
        return self.folder is not None and os.access(self.folder / COMPLETE, os.R_OK)

    # ---- one function's code ----

    def load(self, name: str, key: str) -> Any:
        """What was kept under a name and a key; None if that is nothing, or is damaged."""
        if self.folder is None:
            return None
        path = self._path(name, key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        self._hold()
        head, payload = data[: len(MAGIC) + CHECKSUM_BYTES], data[len(MAGIC) + CHECKSUM_BYTES :]
        if head != MAGIC + xxhash.xxh3_128_digest(payload):
            self.damaged.append(path)
            return None
        kept_key, value = pickle.loads(payload)  # noqa: S301  (ours, and whole)
        return value if kept_key == key else None

    def save(self, name: str, key: str, value: Any) -> None:
        """Keep it; where that cannot be done the process goes on without."""
        payload = dumps((key, value))
        if not self._make_folder():
            return
        path = self._path(name, key)
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            beside.write_bytes(MAGIC + xxhash.xxh3_128_digest(payload) + payload)
            beside.replace(path)
        except OSError:  # full, or gone: the next functions need not try
            self._can_write = False
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            return
        self.kept += 1

    def _path(self, name: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.{xxhash.xxh3_64_hexdigest(key.encode())}.code"

    # ---- the folder ----

    def _make_folder(self) -> bool:
        """Have a folder to write to; false if there is no such place."""
        if not self._can_write:
            return False
        try:
            if self.is_for_this_run and not self._has_moved:
                self._move_to_temporary_root()
            self._make_or_move()
        except OSError:
            self._can_write = False
        self._hold()
        return self._can_write

    def _make_or_move(self) -> None:
        """Make the folder if it is not there; elsewhere, if what looked as if it could be made cannot. Raises OSError."""
        assert self.folder is not None
        try:
            if not self.folder.is_dir():
                _make_tagged(self.folder)
        except OSError:
            if self._has_moved:
                raise
            self._move_to_temporary_root()
            _make_tagged(self.folder)

    def _move_to_temporary_root(self) -> None:
        """A root of this process's own, which its children find by the environment; raises OSError."""
        self._has_moved = self.is_for_this_run = True
        self.root = root = Path(tempfile.mkdtemp(prefix="emu-cache-"))
        os.environ[ROOT_VARIABLE] = str(root)
        atexit.register(_remove_temporary, root, self, os.getpid())

    def _hold(self) -> None:
        """Say, as long as the process lives, that the folder is in use."""
        if self._held < 0 and self.folder is not None:
            self._held = _open_lock(self.folder / IN_USE)
            if self._held >= 0:
                _try_lock(self._held, fcntl.LOCK_SH)

    def release(self) -> None:
        """The folder is no longer in use."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    # ---- compiling everything ----

    @contextlib.contextmanager
    def exclusive(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One process compiles, others wait and load: `on_wait` is called before that. Where locks do not work, all compile."""
        lock = -1
        if self._make_folder() and self.folder is not None:
            lock = _open_lock(self.folder / COMPILING)
        try:
            if lock >= 0 and not _try_lock(lock, fcntl.LOCK_EX):
                on_wait()
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            if lock >= 0:
                os.close(lock)

    def mark_complete(self, seconds: float) -> None:
        """Record that everything was compiled, and drop what old versions left."""
        if not self._can_write or self.folder is None:
            return
        with contextlib.suppress(OSError):
            (self.folder / COMPLETE).write_text(json.dumps({"functions": self.kept, "seconds": round(seconds)}), encoding="ascii")
            if not self.is_for_this_run:
                drop_old(self.folder.parent, KEPT)

    def mark_used(self) -> None:
        """The folder is among those used last; one that cannot be written is not dropped either."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.utime(self.folder / COMPLETE)


def _can_be_made(folder: Path) -> bool:
    """Whether a folder can be written to, or made where it is not there yet."""
    while not folder.exists():
        if folder.is_symlink() or folder.parent == folder:
            return False
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _make_tagged(folder: Path) -> None:
    """Make a folder and its tag in one step, so that there is none without: it would stay for ever. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        (beside / TAG).write_bytes(TAG_TEXT)
        beside.chmod(0o777 & ~_umask())
        beside.rename(folder)
    except OSError:
        (beside / TAG).unlink(missing_ok=True)
        beside.rmdir()
        if not folder.is_dir():  # else another process was faster
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _open_lock(path: Path) -> int:
    """A descriptor to lock by; -1 if there is none."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    return -1


def _try_lock(descriptor: int, kind: int) -> bool:
    """Lock without waiting; false if another process holds it. A file system without locks is as if nobody did."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


# ---- removing what emu made ----


def drop_old(parent: Path, kept: int) -> None:
    """Remove the folders of old versions, but for the few that were used last."""
    if parent.is_symlink():
        return
    with contextlib.suppress(OSError):
        for folder in sorted(filter(_is_ours, parent.iterdir()), key=_last_use, reverse=True)[kept:]:
            remove(folder)


def _is_ours(folder: Path) -> bool:
    """Whether emu made it: name and tag."""
    if not FOLDERS.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    tag = folder / TAG
    return not tag.is_symlink() and tag.is_file() and tag.read_bytes() == TAG_TEXT


def _last_use(folder: Path) -> float:
    try:
        return (folder / COMPLETE).lstat().st_mtime
    except OSError:
        return folder.lstat().st_mtime


def remove(folder: Path) -> None:
    """Remove emu's files from a folder that emu made, and the folder if nothing else is in it; leave one that is in use."""
    lock = _open_lock(folder / IN_USE)
    try:
        if lock >= 0 and not _try_lock(lock, fcntl.LOCK_EX):
            return
        for path in list(folder.iterdir()):
            if FILES.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
        if [path.name for path in folder.iterdir()] == [TAG]:
            (folder / TAG).unlink()
            folder.rmdir()
    finally:
        if lock >= 0:
            os.close(lock)


def _remove_temporary(root: Path, cache: CodeCache, owner: int) -> None:
    """At the end of the process that made it; children only used it."""
    if os.getpid() != owner:
        return
    cache.release()
    with contextlib.suppress(OSError):
        for folder in filter(_is_ours, list((root / PARENT).iterdir())):
            remove(folder)
        (root / PARENT).rmdir()
        root.rmdir()


# ---- Numba's side ----


class _Nowhere:
    """What Numba asks of a place for files, of which it writes none itself."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Nowhere:
        return cls(function, file)

    def get_cache_path(self) -> str:
        return ""

    def get_source_stamp(self) -> str:
        return ""  # the folder is named after all sources

    def get_disambiguator(self) -> str:
        return str(self._line)

    def ensure_cache_path(self) -> None:
        """The cache makes its folder by itself."""


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Nowhere]  # noqa: RUF012


class KeptFunction(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function, over a `CodeCache`."""

    _impl_class = _Implementation

    def __init__(self, function: Any, cache: CodeCache, name: str) -> None:
        super().__init__(function)
        self._cache, self._file_name = cache, name
        self._cache_file = self

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled code for a signature; None if it must be compiled."""
        found = super().load_overload(sig, target_context)
        if found is None:
            self._cache.on_miss(self._file_name)
        return found

    def load(self, key: Any) -> Any:
        """As Numba asks its file of all overloads."""
        return self._cache.load(self._file_name, repr(key))

    def save(self, key: Any, value: Any) -> None:
        """Likewise."""
        self._cache.save(self._file_name, repr(key), value)
        self._cache.on_kept(self._file_name)
