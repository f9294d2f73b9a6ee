"""A file that is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, BinaryIO

# Windows has no such locks, and there nobody can remove a file that somebody has open.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

# What is not finished yet. Short, so that a name as long as the file system allows can be saved.
_PREFIX, _SUFFIX = ".fastrnn-", ".draft"

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file to write, which stands under `path` when the block ends without an error.

    It is written beside it and renamed, so an interrupted call leaves what was there before. What
    a killed process has left beside it, the next call removes. A symbolic link stays, and what it
    points to is replaced. A file that is replaced hands down its mode, and, where that is allowed,
    its owner and group.

    Raises
    ------
    OSError
        There is something other than a regular file, or it cannot be written.
    """
    old = regular(path)
    target = os.path.realpath(path) if os.path.islink(path) else path
    folder = os.path.dirname(target)
    _remove_left_over(folder or os.curdir)
    try:
        file, draft = _draft(folder, 0o666 if old is None else 0o600)
    except OSError as error:  # which names the draft
        raise OSError(error.errno, error.strerror, path) from None
    try:
        with file:
            yield file
            file.flush()
            if old is not None:
                _hand_down(old, target, file.fileno(), draft)
            os.fsync(file.fileno())
            if fcntl is not None:  # as long as it is open it is locked
                os.replace(draft, target)
        if fcntl is None:
            os.replace(draft, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def regular(path: str) -> os.stat_result | None:
    """Return what the system knows of a regular file, or None if there is nothing.

    Raises
    ------
    OSError
        There is something else, such as a FIFO, on which a call could wait for ever.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"path must be a regular file, got {kind}", path)
    return found


def _draft(folder: str, mode: int) -> tuple[BinaryIO, str]:
    """Make a file to write to, locked as long as it is open, and its path."""
    while True:
        path = os.path.join(folder, f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
        file = os.fdopen(os.open(path, _NEW, mode), "wb")
        if fcntl is None:
            return file, path
        with suppress(OSError):  # a file system without locks: what is left over there stays
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(path):
            return file, path
        file.close()  # somebody took it for left over before it was locked


def _remove_left_over(folder: str) -> None:
    """Remove what calls that were killed have left; what is being written is locked."""
    try:
        names = os.listdir(folder)
    except OSError:  # it may be written to and not read; if it is not there, `_draft` says so
        return
    for name in names:
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
            with suppress(OSError):
                _remove_unless_locked(os.path.join(folder, name))


def _remove_unless_locked(path: str) -> None:
    if fcntl is None:
        os.unlink(path)
        return
    # none of ours is a link or a FIFO, on which this would wait
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _hand_down(old: os.stat_result, target: str, descriptor: int, draft: str) -> None:
    """Give a draft the owner, the mode and the attributes of the file that it replaces."""
    import shutil  # with the libraries of all archives, which `import fastrnn` need not wait for

    made = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid):
        with suppress(OSError):  # only root may give a file away
            os.fchown(descriptor, old.st_uid, old.st_gid)
    shutil.copystat(target, draft)
    os.utime(draft)
