#!/usr/bin/env bash
# The one command before a commit: what pre-commit runs, then the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
"$bin/pre-commit" run --all-files
"$bin/pytest" "$@"
