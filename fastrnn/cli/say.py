"""Words on the standard output."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print, also where the terminal lacks a character of the text."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
