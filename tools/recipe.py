"""Checks conda-forge's recipe: it renders for each platform and says what pyproject.toml says.

    python tools/recipe.py [recipe.yaml]

Needs py-rattler-build, which reads recipes as conda-forge does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import rattler_build as rattler

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64", "win-arm64")
BUILT_ON = {"linux-aarch64": "linux-64", "osx-arm64": "osx-64", "win-arm64": "win-64"}
# What conda-forge gives a recipe: the least of it that renders.
VARIANTS = {"python": ["3.12.*"], "c_stdlib": ["sysroot"], "cxx_compiler": ["gxx"]}


def rendered(path: Path, target: str) -> dict[str, Any]:
    """Return the recipe as it is for a platform; errors are rattler-build's."""
    platform = rattler.PlatformConfig(
        target_platform=target, build_platform=BUILT_ON.get(target, target)
    )
    variants = rattler.Stage0Recipe.from_file(path).render(
        rattler.VariantConfig(VARIANTS), rattler.RenderConfig(platform=platform)
    )
    (only,) = variants
    recipe: dict[str, Any] = only.recipe.to_dict()
    return recipe


def differences(recipe: dict[str, Any]) -> list[str]:
    """Return what of a rendered recipe is not as in pyproject.toml and fastrnn/__init__.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "fastrnn/__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    needs = recipe["requirements"]
    pairs = {
        "version": ([recipe["package"]["version"]], version),
        "name": (recipe["package"]["name"], project["project"]["name"]),
        "license": (recipe["about"]["license"], project["project"]["license"]),
        "summary": (recipe["about"]["summary"], project["project"]["description"]),
        "run": (packages(needs["run"]) - {"python"}, packages(project["project"]["dependencies"])),
        "host": (
            packages(needs["host"]) - {"python", "pip"},
            packages(project["build-system"]["requires"]),
        ),
    }
    return [
        f"{what}: the recipe has {here}, the package {there}"
        for what, (here, there) in pairs.items()
        if here != there
    ]


def packages(requirements: list[str]) -> set[str]:
    """Return requirements as pip writes them."""
    return {requirement.replace(" ", "") for requirement in requirements}


def main() -> int:
    """Print what is wrong; return whether anything is."""
    path = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "packaging/conda-forge/recipe.yaml"
    try:
        wrong = [
            f"{target}: {each}"
            for target in PLATFORMS
            for each in differences(rendered(path, target))
        ]
    except rattler.RattlerBuildError as error:
        wrong = [str(error)]
    print(*wrong or [f"{path.name} renders for {len(PLATFORMS)} platforms"], sep="\n")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
