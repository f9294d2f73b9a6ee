"""tools/release.sh, on a small repository whose check is a stand-in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("tools/release.sh", "fastrnn/__init__.py", "packaging/conda-forge/recipe.yaml")
VERSION = "7.8.9"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="releases are made on Linux")


class Repository:
    """What of the project a release touches, committed."""

    def __init__(self, root: Path, check: str) -> None:
        self.root = root
        for name in FILES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        self.write(
            "CHANGELOG.md", f"# Changelog\n\n## [{VERSION}] - unreleased\n\n## [0.0.1] - old\n"
        )
        self.write(".ci/run", check)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "somebody")
        self.git("config", "user.email", "somebody@example.org")
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "all")

    def release(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "tools/release.sh", *args], cwd=self.root, capture_output=True, text=True
        )

    def state(self) -> tuple[str, ...]:
        return tuple(self.git(*each) for each in (("log",), ("tag",), ("status", "--porcelain")))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, "git log -1 --format=%s > ../checked-$(basename $PWD)\n")


def test_without_a_word_it_only_looks(repository: Repository) -> None:
    before = repository.state()
    done = repository.release(VERSION)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok  ") == 4
    assert "MISSING" not in done.stdout
    assert "nothing was changed" in done.stdout
    assert repository.state() == before


def test_a_release(repository: Repository) -> None:
    done = repository.release(VERSION, "--tag")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"git push origin main v{VERSION}\n")
    assert f'\n__version__ = "{VERSION}"\n' in repository.text("fastrnn/__init__.py")
    assert f'\n  version: "{VERSION}"\n' in repository.text("packaging/conda-forge/recipe.yaml")
    assert re.search(
        rf"^## \[{VERSION}\] - \d{{4}}-\d\d-\d\d$", repository.text("CHANGELOG.md"), re.MULTILINE
    )
    assert repository.git("tag", "--points-at", "HEAD") == f"v{VERSION}\n"
    assert repository.git("cat-file", "-t", f"v{VERSION}") == "tag\n"
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("log", "--format=%s") == f"Version {VERSION}\nall\n"
    # the check saw what is tagged
    checked = repository.root.parent / f"checked-{repository.root.name}"
    assert checked.read_text(encoding="utf-8") == f"Version {VERSION}\n"


def test_a_check_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    repository = Repository(tmp_path, "exit 3\n")
    before = repository.state()
    done = repository.release(VERSION, "--tag")
    assert done.returncode == 3
    assert "failed: all is as it was" in done.stderr
    assert repository.state() == before


@pytest.mark.parametrize("word", [(), ("--tag",)])
@pytest.mark.parametrize("what", ["committed", "branch", "tag", "heading"])
def test_what_is_missing_is_said(repository: Repository, what: str, word: tuple[str, ...]) -> None:
    if what == "committed":
        repository.write("new.txt", "new")
    elif what == "branch":
        repository.git("checkout", "--quiet", "-b", "other")
    elif what == "tag":
        repository.git("tag", f"v{VERSION}")
    else:
        repository.write("CHANGELOG.md", f"## [{VERSION}] - 2020-01-01\n")
        repository.commit()
    before = repository.state()
    done = repository.release(VERSION, *word)
    assert done.returncode == 1
    (line,) = re.findall("^MISSING  (.*)$", done.stdout, re.MULTILINE)
    assert what in line
    assert repository.state() == before


@pytest.mark.parametrize(
    "args", [(), ("1.2",), ("v1.2.3",), ("1.2.3", "--push"), ("1.2.3", "--tag", "--tag")]
)
def test_other_arguments_are_refused(repository: Repository, args: tuple[str, ...]) -> None:
    done = repository.release(*args)
    assert done.returncode == 2
    assert "tools/release.sh X.Y.Z --tag" in done.stderr
