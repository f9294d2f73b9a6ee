"""What the child of a fork must mend: of its parent's threads it has one, which no other helps."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Mended(Protocol):
    """What may be in the midst of something as another thread forks."""

    def after_fork(self) -> None:
        """Give back, in the child, what a thread had taken that is not there."""


_known: weakref.WeakSet[Mended] = weakref.WeakSet()


def watch(mended: Mended) -> None:
    """Have ``after_fork`` of this object called in every child."""
    _known.add(mended)


class Lock:
    """A lock for ``with lock.held:``, which is free in the child of a fork."""

    def __init__(self) -> None:
        self.held = threading.Lock()
        watch(self)

    def after_fork(self) -> None:
        """See `Mended.after_fork`."""
        self.held = threading.Lock()

    def claim(self, in_use: Callable[[], Exception]) -> AbstractContextManager[object]:
        """Return the context that holds it; raise what ``in_use`` makes if a thread does.

        Of threads that come at the same moment, one waits.
        """
        held = self.held
        if held.locked():
            raise in_use()
        return held

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()  # a copy of what it guards has a lock of its own


def _in_child() -> None:
    for mended in list(_known):
        mended.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
