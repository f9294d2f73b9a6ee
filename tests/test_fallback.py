"""Where "auto" ends at a slower backend than the compiled one: said once, and timed by nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).parents[1]

WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None\n"
TWO = "import fastrnn\nprint(fastrnn.GRU(2, 3).backend)\nfastrnn.LSTMCell(2, 3)\n"
WORDS = 'RuntimeWarning: backend "auto" ends at the fallback '


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed where there was no compiler."""
    tree: Path = tmp_path_factory.mktemp("tree")
    here = Path(fastrnn.__path__[0])
    left_out = shutil.ignore_patterns("_core.*.so", "_core.*.pyd", "__pycache__")
    shutil.copytree(here, tree / "fastrnn", ignore=left_out)
    # of an editable install, which would find the extension all the same
    finders = "[f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]"
    (tree / "sitecustomize.py").write_text(f"import sys\nsys.meta_path[:] = {finders}\n")
    return tree


def python(tree: Path, *args: str, backend: str = "") -> subprocess.CompletedProcess[str]:
    """An interpreter that imports from a tree, with this in FASTRNN_BACKEND."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "FASTRNN_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("backend", ["", "auto"])
def test_one_warning_says_so_why_and_what_to_do(tree: Path, backend: str) -> None:
    done = python(tree, "-c", WITHOUT_NUMBA + TWO, backend=backend)
    assert (done.returncode, done.stdout) == (0, "numpy\n")
    assert done.stderr.count(WORDS) == 1
    assert f'{WORDS}"numpy"' in done.stderr
    assert "the compiled extension does not load (" in done.stderr
    assert "reinstall with a C++17 compiler" in done.stderr
    assert 'FASTRNN_BACKEND="numpy" asks for it' in done.stderr
    assert done.stderr.startswith("<string>:3: ")  # where the first layer is made


def test_numba_is_a_fallback_too(tree: Path) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("scipy")
    done = python(tree, "-c", TWO)
    assert done.stdout == "numba\n"
    assert done.stderr.count(f'{WORDS}"numba"') == 1


def test_in_a_source_folder_it_says_how_to_build(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "setup.py").touch()
    done = python(tmp_path, "-c", WITHOUT_NUMBA + TWO)
    assert f"pip install -e '{tmp_path}' builds it there" in done.stderr
    assert f"pip install -e '{tmp_path}'" in python(tmp_path, "-m", "fastrnn", "info").stdout


@pytest.mark.parametrize(
    ("code", "backend"),
    [
        (TWO, "numpy"),
        ("import fastrnn\nfastrnn.GRU(2, 3, backend='numpy')\nprint('numpy')", ""),
        ("import fastrnn.backends as b\nprint(b.resolve('auto'))", ""),
        ("import fastrnn\nprint(fastrnn.show_config('dicts')['auto'])", ""),
    ],
    ids=["environment", "name", "question", "show_config"],
)
def test_silent_where_it_is_asked_for(tree: Path, code: str, backend: str) -> None:
    done = python(tree, "-W", "error", "-c", WITHOUT_NUMBA + code, backend=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "numpy\n", "")


def test_a_warning_that_is_an_error_is_one_each_time(tree: Path) -> None:
    code = "import fastrnn\nfor _ in range(2):\n try: fastrnn.GRU(2, 3)\n except RuntimeWarning: "
    assert python(tree, "-W", "error", "-c", code + "print('refused')").stdout == "refused\n" * 2


def test_benchmarks_refuse_to_time_it(tree: Path) -> None:
    done = python(tree, "-m", "fastrnn", "bench", "--quick")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('fastrnn bench: backend "auto" ends at the fallback ')
    assert len(done.stderr.splitlines()) == 1
    asked = "--quick", "--modes", "step", "--threads", "1", "--backends", "numpy"
    assert python(tree, "-m", "fastrnn", "bench", *asked).returncode == 0


@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="the benchmarks are not here")
def test_pytests_benchmarks_refuse_to_time_it(tree: Path) -> None:
    shutil.copytree(ROOT / "bench", tree / "bench", dirs_exist_ok=True)
    done = python(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "bench")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert 'ERROR: backend "auto" ends at the fallback ' in done.stderr + done.stdout
    pytest.importorskip("matplotlib")
    done = python(tree, "bench/growth.py", "--quick", "growth.svg")
    assert done.returncode == 2
    assert 'backend "auto" ends at the fallback ' in done.stderr


def test_the_compiled_backend_is_no_fallback() -> None:
    pytest.importorskip("fastrnn._core")
    done = python(Path(fastrnn.__path__[0]).parent, "-W", "error", "-c", TWO)
    assert (done.stdout, done.stderr) == ("cpu\n", "")
