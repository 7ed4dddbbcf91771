"""Copy what the tests need, but not the package, into a folder: there only the built wheel can be imported."""

import shutil
import sys
from pathlib import Path

NEEDED = [
    "tests",
    "examples",
    "docs",
    "benchmarks",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "pyproject.toml",
    "Makefile",
    "tox.ini",
    ".ci",
    ".github",
    ".pre-commit-hooks.yaml",
]


def main(target):
    """Fill the folder anew."""
    root = Path(__file__).resolve().parent.parent
    shutil.rmtree(target, ignore_errors=True)
    for name in NEEDED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
        elif source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
