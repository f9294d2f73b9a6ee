"""What serves other libraries: torch, JAX and autograd."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_optional_module_is_imported_when_it_is_first_used() -> None:
    """By itself, `import fastrnn` imports none: tests/test_package.py."""
    code = (
        "import fastrnn, sys; assert 'torch' not in sys.modules; "
        "print(fastrnn.torch.GRU(3, 5), fastrnn.autograd.apply.__name__); fastrnn.nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "GRU(3, 5) apply\n"
    assert "AttributeError: module 'fastrnn' has no attribute 'nothing'" in done.stderr
