"""Writes what bench/gpu_check.py has found into docs/gpu.md, between its marks.

python bench/gpu_table.py RESULTS/gpu_check.json            change docs/gpu.md
python bench/gpu_table.py RESULTS/gpu_check.json --print    show the text
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gpu import table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: bench/gpu_table.py -->", "<!-- end of measured -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--print", action="store_true", help="instead of changing the page")
    args = parser.parse_args()
    content = json.loads(args.results.read_text())
    text = "\n".join(table.markdown(content))
    if args.print:
        print(text)
        return 0
    if content["emulated"]:
        sys.exit("a dry run is nothing to publish; --print shows it")
    PAGE.write_text(replaced(PAGE.read_text(), text))
    return 0


def replaced(page: str, text: str) -> str:
    """The page with this text between its marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"docs/gpu.md has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
