"""A line that shows how far something is."""

from __future__ import annotations

import shutil
import sys
import time

_BAR = 24  # characters
_EVERY = 0.1  # seconds between two drawings


class Progress:
    """A bar on a terminal; where standard error is none, only the lines that are to stay."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._drawn = 0.0
        self._shown = False

    def show(self, fraction: float, text: str) -> None:
        """Draw the bar anew, not more often than eyes can follow."""
        now = time.monotonic()
        if not self._live or now - self._drawn < _EVERY:
            return
        self._drawn = now
        full = round(_BAR * min(max(fraction, 0.0), 1.0))
        line = f"[{'#' * full}{'-' * (_BAR - full)}] {fraction:4.0%}  {text}"
        width = shutil.get_terminal_size().columns - 1
        self._write("\r" + line[:width].ljust(width))
        self._shown = True

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._shown = False

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
