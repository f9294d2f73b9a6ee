"""What commands write to the terminal, and what they need to be installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec


class MissingExtra(Exception):
    """A package is missing that an extra of fastrnn brings."""


def echo(text: str) -> None:
    """Print, also where the terminal lacks a character of the text."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def require(extra: str, *packages: str) -> None:
    """Raise MissingExtra, which names the extra, unless all the packages are installed."""
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        which = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        raise MissingExtra(f"{which}: pip install 'fastrnn[{extra}]'")
