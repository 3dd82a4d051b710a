"""Writing so that nothing is lost: files appear whole or not at all, and no two runs write the same one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cosdd.errors import InputError

LOCK = ".cosdd.lock"
TRIES = 1000  # how often a folder may go away just then
BEFORE = "-before"  # marks a folder while another takes its place
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # by another process; other errors: no locks on this disk
LONGEST = 100  # bytes of a name in a hidden one, which says more: file systems take 143 to 255


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise InputError where ``path`` exists and must not be replaced."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already: choose another name or add --overwrite (in Python overwrite=True)")


def refuse_unwritable(path: Path) -> None:
    """Raise InputError where ``path`` could not be written: known before a long training, not after it."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path}: cannot be written: choose another place with -o")


def real(path: Path) -> Path:
    """Where it really is; of links in a circle, which pathlib refuses, as far as they lead."""
    return Path(os.path.realpath(path))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a hidden name beside ``path`` for a file or a folder; it takes the name when the body is done and the disk
    has it. Folders above are made. Raises InputError where something of this cannot be written. Where the body fails,
    nothing is left.
    """
    part, before = (path.with_name(f".{brief(path.name)}.{os.getpid()}{end}.part") for end in ("", BEFORE))
    made: list[Path] = []
    try:
        try:
            _make(path.parent, made)
            yield part
            for file in (file for file in (part, *part.rglob("*")) if file.is_file()):
                with file.open("rb+") as written:
                    os.fsync(written.fileno())  # else a power cut may leave the name with nothing in it
            if path.is_dir() and part.is_dir():  # no folder takes the place of another in one step; no file ever does
                os.replace(path, before)
            os.replace(part, path)
        except BaseException:
            _remove(part)
            _remove_empty(made)
            raise
        finally:
            _give_back(before, path)
    except OSError as error:
        raise unwritable(path, error) from error


def brief(name: str) -> str:
    """This name in a hidden one: itself, or where it is long its begin and what tells it from others that begin so."""
    if len(os.fsencode(name)) <= LONGEST:
        return name
    end, begin = "~" + hashlib.blake2b(os.fsencode(name), digest_size=6).hexdigest(), name
    while len(os.fsencode(begin)) > LONGEST - len(end):  # a letter may take several bytes
        begin = begin[:-1]
    return begin + end


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it; those that were not there come first in ``made``, the innermost before all."""
    for place in reversed(_missing(folder)):
        with suppress(FileExistsError):  # by another process, just now
            place.mkdir()
            made.insert(0, place)


def _missing(folder: Path) -> list[Path]:
    """It and those above it that are not there yet, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    """Those that hold nothing, given the innermost first."""
    for place in folders:
        with suppress(OSError):  # not empty
            place.rmdir()


def _remove(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there and can be removed."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _give_back(before: Path, path: Path) -> None:
    """The folder that was to be replaced: to its name again, if that is free; else it is removed."""
    with suppress(OSError):
        if before.is_dir() and not path.exists():
            os.replace(before, path)
    if path.exists():
        _remove(before)


class Full(InputError):
    """The disk is full, or one's share of it."""


def unwritable(path: Path, error: OSError) -> InputError:
    """The line that says why ``path`` could not be written."""
    why = f"{path}: cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"{why}: free some space")
    if error.errno == errno.ENAMETOOLONG:
        return InputError(f"{why}: give the file a shorter name")
    return InputError(f"{why}: choose another place with -o")


@contextmanager
def claim(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Keep the files of these names for this process while the body runs; the folder is made.

    The claim is a lock on one byte per name of a hidden file in the folder, which the system gives up whichever way
    the process ends. What a killed run left half-written under these names is removed; a folder that it was just
    replacing gets its name again.
    Raises InputError where another process has claimed one of them, or the folder cannot be written.
    """
    made, lock = _missing(folder), -1
    try:
        lock = _claimed(folder, names)
        yield
    finally:
        if lock >= 0:
            _give_up(lock, folder / LOCK)
        _remove_empty(made)


def _claimed(folder: Path, names: Sequence[str]) -> int:
    """The open file with our locks."""
    lock, tries = -1, 0
    try:
        while lock < 0 or not os.fstat(lock).st_nlink:  # a run that ends removes the file: take the new one
            if lock >= 0:
                os.close(lock)
                lock = -1
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = _lock_file(folder / LOCK)
            except FileNotFoundError:  # or even the folder; but some, as /proc, never take a file, and say just that
                tries += 1
                if tries == TRIES:
                    raise
                continue
            for name in names:
                if not _locked(lock, name):
                    raise InputError(
                        f"{folder / name}: another cosdd is writing it now: wait until that has ended, "
                        "or choose another place with -o"
                    )
        _remove_parts(folder, names)
    except BaseException as error:
        if lock >= 0:
            os.close(lock)
        raise unwritable(folder, error) if isinstance(error, OSError) else error from None
    return lock


def _lock_file(path: Path) -> int:
    """Opened, and made where it is not there: in a folder that several may write to, for all of them to open."""
    try:
        return os.open(path, os.O_RDWR)
    except FileNotFoundError:
        pass
    except PermissionError:
        if not os.path.lexists(path):  # it is the folder that cannot be read
            raise
        raise InputError(
            f"{path}: belongs to {_owner(path)} and cannot be opened, whose cosdd is writing here now or was killed: "
            "have the file removed if none is, or choose another place with -o"
        ) from None
    with suppress(FileExistsError):  # by another process, just now
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if os.name != "nt" and path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            with suppress(OSError):  # of a disk that knows no such rights
                os.fchmod(lock, 0o666)  # whatever the umask
        return lock
    return os.open(path, os.O_RDWR)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError, NotImplementedError):  # a user without a name; none at all on Windows
        return "another user"


def _remove_parts(folder: Path, names: Sequence[str]) -> None:
    ours = {brief(name): name for name in names}
    for entry in folder.iterdir():
        if entry.name.startswith(".") and entry.suffix == ".part":
            name = ours.get(entry.name[1:].rsplit(".", 2)[0])
            if name and entry.stem.endswith(BEFORE):
                _give_back(entry, folder / name)
            elif name:
                _remove(entry)


def _locked(lock: int, name: str) -> bool:
    """Lock the byte of this name. False where another process has it; True where the disk knows no locks."""
    place = int.from_bytes(hashlib.blake2b(name.casefold().encode("utf-8", "replace"), digest_size=7).digest(), "big")
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(lock, place, os.SEEK_SET)
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError as error:
        return error.errno not in HELD
    return True


def _give_up(lock: int, path: Path) -> None:
    """Unlock; remove the file where no other process uses it."""
    with suppress(OSError):
        if os.name != "nt":  # where a file in use cannot be removed
            import fcntl

            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all of it
            path.unlink()
    os.close(lock)
    if os.name == "nt":
        with suppress(OSError):
            path.unlink()
