#!/usr/bin/env bash
# Releases a version: all there is to do, in order.
#   tools/release.sh X.Y.Z          says what is missing and what it would do, and changes nothing
#   tools/release.sh X.Y.Z --tag    writes version and date, commits, runs .ci/run on that, and tags it
# The tag, once pushed, has .github/workflows/wheels.yml build all wheels and publish them.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-} tag=v${1:-}
if ! [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(rc[0-9]+)?$ && ${2:---tag} == --tag && $# -lt 3 ]]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi

missing=0
must() { # what, command...
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "ok       $what"; else echo "MISSING  $what" && missing=1; fi
}
clean() { [ -z "$(git status --porcelain)" ]; }
on_main() { [ "$(git rev-parse --abbrev-ref HEAD)" = main ]; }
no_tag() { ! git rev-parse --verify --quiet "refs/tags/$tag"; }
heading() { grep -qxF "## [$version] - unreleased" CHANGELOG.md; }
must "nothing that is not committed" clean
must "the branch main" on_main
must "no tag $tag yet" no_tag
must "CHANGELOG.md: a heading [$version] - unreleased" heading
[ "$missing" = 0 ] || exit 1

today=$(date --utc +%F)
cat <<END
then     fastrnn/__init__.py and packaging/conda-forge/recipe.yaml: version $version
         CHANGELOG.md: [$version] - $today
         git commit, bash .ci/run, git tag $tag
END
if [ "${2:-}" != --tag ]; then
  echo "nothing was changed: $0 $version --tag does it"
  exit
fi

before=$(git rev-parse HEAD)
trap 'git reset --quiet --hard "$before" && echo "failed: all is as it was" >&2' ERR
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" fastrnn/__init__.py
sed -i "s/^  version: \"[^\"]*\"$/  version: \"$version\"/" packaging/conda-forge/recipe.yaml
sed -i "s/^## \[$version\] - unreleased$/## [$version] - $today/" CHANGELOG.md
git commit --quiet --all --message "Version $version"
bash .ci/run
git tag --annotate "$tag" --message "fastrnn $version"
echo "now      git push origin main $tag"
