"""Build what is released, check it, and say what is in it: `.venv/bin/python .ci/package.py [TAG]`, or `make dist`.

dist/    the sdist, and the wheel that is built from it
build/   the SBOM: the library, and all that its extras for functions and for the command line bring, as of today

The same commit gives the same sdist and wheel: what is dated in them has the commit's date. With a tag, it must be
that of the version, and the changelog must have an entry with a date. LAMBDA_DBCONN_SBOM_EXTRAS names other extras.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = os.environ.get("LAMBDA_DBCONN_SBOM_EXTRAS", "all,cli,layer")


def read_version():
    """Return the version from its one source."""
    text = (ROOT / "lambda_dbconn" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)[1]


def check_tag(tag, version):
    """End the process if this is not the tag of this version, or the changelog does not know it."""
    if tag != f"v{version}":
        sys.exit(f"The tag is {tag}, but lambda_dbconn.__version__ is {version}.")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, flags=re.MULTILINE):
        sys.exit(f"CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`.")


def build():
    """Build the sdist and from it the wheel, and let twine check them; return their paths."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    subprocess.check_call([sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT)])
    built = sorted((ROOT / "dist").iterdir())
    names = [str(path.relative_to(ROOT)) for path in built]
    subprocess.check_call([sys.executable, "-m", "twine", "check", "--strict", *names], cwd=ROOT)
    return built


def write_sbom(built, version):
    """Install the wheel alone, and write down what came with it; return the path."""
    wheel = next(path for path in built if path.suffix == ".whl")
    target = (
        ROOT / "build" / "lambda_dbconn.cdx.json"
    )  # one name for all versions: .github/workflows/release.yml has it
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", folder])
        install = [sys.executable, "-m", "pip", "--quiet", "--python", folder, "install"]
        subprocess.check_call([*install, f"{wheel}[{EXTRAS}]"])
        about = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible"]
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--no-validate", *about]
        subprocess.check_call([*tool, "-o", str(target), folder])
    sbom = json.loads(target.read_text(encoding="utf-8"))
    # The version is no literal in pyproject.toml, and no tool can know which files are released.
    sbom["metadata"]["component"] |= {
        "version": version,
        "purl": f"pkg:pypi/lambda-dbconn@{version}",
        "hashes": [{"alg": "SHA-256", "content": _sha256(wheel)}],
    }
    text = json.dumps(sbom, indent=2, sort_keys=True) + "\n"
    fault = JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"])).validate_str(text)
    if fault is not None:
        sys.exit(f"The SBOM is not what the schema of CycloneDX says: {fault}")
    target.write_text(text, encoding="utf-8")
    return target


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments):
    """Do all of it, and print the files with their SHA-256."""
    version = read_version()
    if arguments:
        check_tag(arguments[0], version)
    if "SOURCE_DATE_EPOCH" not in os.environ and (ROOT / ".git").exists():
        date = subprocess.check_output(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], text=True)
        os.environ["SOURCE_DATE_EPOCH"] = date.strip()
    built = build()
    for path in [*built, write_sbom(built, version)]:
        print(_sha256(path), "", path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
