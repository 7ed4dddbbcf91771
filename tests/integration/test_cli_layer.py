"""`lambda-dbconn layer` as people run it, with the real pip, and with PyPI where it is reached."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

import lambda_dbconn
from lambda_dbconn.cli.layer.contents import unpack
from lambda_dbconn.cli.layer.own_wheel import own_wheel
from lambda_dbconn.cli.layer.resolving import resolve
from lambda_dbconn.cli.layer.runtime import PYTHONS, ROOT, Architecture, Runtime
from lambda_dbconn.tls import LAYER_RDS_BUNDLE
from tests.support.invocations import environment
from tests.support.layers import ELF_MACHINES, HERE, THIS_PYTHON, BuiltLayer, elf_machine, run_command
from tests.support.wheels import make_wheel

if TYPE_CHECKING:
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.long

BOTH = "postgresql,mysql"
OTHER: Architecture = "arm64" if HERE == "x86_64" else "x86_64"
FOREIGN_PYTHON = "3.13" if THIS_PYTHON == "3.12" else "3.12"
# Besides the two that are built, which are the others on all Pythons together: the one where glibc decides about the
# driver's version, one that needs a backport, and those for which there may be no Python here.
NOT_BUILT: list[tuple[str, Architecture]] = [
    ("3.11", "arm64"),
    ("3.12", "x86_64"),
    ("3.14", "x86_64"),
    ("3.14", "arm64"),
]
PURE = {"lambda-dbconn", "psycopg", "pymysql", "tenacity", "typing-extensions"}

# --- with an index of ours


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for all there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    make_wheel(folder, "tenacity", "9.2.1")
    make_wheel(folder, "typing-extensions", "4.16.0")
    backport = "typing-extensions>=4.6 ; python_version < '3.13'"
    for version, platform in {"3.2.13": "manylinux2014", "3.3.9": "manylinux_2_28"}.items():
        requires = [backport, "colours ; sys_platform == 'win32'", f"psycopg-binary=={version} ; extra == 'binary'"]
        make_wheel(folder, "psycopg", version, requires=requires, extras=["binary"])
        for abi in ("cp311", "cp312", "cp313", "cp314"):
            make_wheel(folder, "psycopg-binary", version, tag=f"{abi}-{abi}-{platform}_aarch64")
    return folder


def app(folder: Path) -> Path:
    return make_wheel(
        folder,
        "lambda-dbconn",
        "7.0",
        requires=["tenacity>=9", "psycopg[binary]>=3.2.13 ; extra == 'postgresql'"],
        extras=["postgresql"],
    )


def resolved(tmp_path: Path, python: str) -> dict[str, str]:
    folder = tmp_path / "work"
    folder.mkdir()
    wheels = resolve(
        app(tmp_path),
        engines=["postgresql"],
        runtime=Runtime(python=python, architecture="arm64"),
        versions={},
        folder=folder,
    )
    return {wheel.name: wheel.version for wheel in wheels}


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(("python", "newest"), [("3.11", "3.2.13"), ("3.12", "3.3.9"), ("3.13", "3.3.9")])
def test_the_newest_driver_that_the_runtimes_glibc_can_run_is_chosen_with_all_that_it_needs_there(
    tmp_path: Path, python: str, newest: str
) -> None:
    """Whichever Python this test runs on: pip alone would judge `python_version < '3.13'` by that."""
    found = resolved(tmp_path, python)
    assert (found["psycopg"], found["psycopg-binary"]) == (newest, newest)
    expected = {"lambda-dbconn", "tenacity", "psycopg", "psycopg-binary"}
    assert set(found) == expected | ({"typing-extensions"} if python != "3.13" else set())


def test_what_the_index_does_not_have_is_a_failure_that_says_what_and_for_which_runtime(
    index: Path, tmp_path: Path
) -> None:
    (index / "tenacity-9.2.1-py3-none-any.whl").unlink()
    own = app(tmp_path)
    arguments = ["--python", "3.12", "--arch", "arm64", "--engine", "postgresql", "--from", str(own), "-o", "new.zip"]
    run = run_command(*arguments, folder=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    asking, error = run.stderr.splitlines()
    assert asking == "Asking pip for wheels for Python 3.12 on arm64, glibc 2.34 ..."
    assert error.startswith("lambda-dbconn: no wheels for Python 3.12 on arm64: ERROR: ")
    assert "tenacity" in error
    assert not list(tmp_path.glob("*new.zip*"))


def layer_of_ours(tmp_path: Path, name: str, *arguments: str, python: str = "3.13", **environ: str) -> BuiltLayer:
    own = str(app(tmp_path))
    call = ["--python", python, "--arch", "arm64", "--engine", "postgresql", "--from", own, "-o", name, *arguments]
    run = run_command(*call, folder=tmp_path, environ=environ)
    assert run.returncode == 0, run.stderr
    return BuiltLayer.open(tmp_path / name, told=run.stderr)


def test_the_versions_of_a_layer_are_kept_although_there_are_newer_ones(index: Path, tmp_path: Path) -> None:
    first = layer_of_ours(tmp_path, "first.zip")
    make_wheel(index, "tenacity", "9.3")
    assert layer_of_ours(tmp_path, "second.zip").versions == {**first.versions, "tenacity": "9.3"}
    assert layer_of_ours(tmp_path, "third.zip", "--like", "first.zip").path.read_bytes() == first.path.read_bytes()


@pytest.mark.usefixtures("index")
def test_without_the_runtimes_python_the_layer_is_built_and_says_what_it_lacks(tmp_path: Path) -> None:
    python = "3.14" if THIS_PYTHON != "3.14" else "3.13"
    nowhere = {name: str(tmp_path) for name in ("PATH", "HOME", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR")}
    layer = layer_of_ours(tmp_path, "layer.zip", python=python, **nowhere)
    assert f"Bytecode: none, for there is no Python {python} on this machine." in layer.told
    assert layer.manifest["bytecode"] is None
    assert not list(layer.root.rglob("*.pyc"))


@pytest.mark.usefixtures("index")
def test_pip_is_not_disturbed_by_what_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('this is not pip')")
    (tmp_path / "json.py").write_text("raise SystemExit('this is not json')")
    arguments = ["--python", THIS_PYTHON, "--arch", "arm64", "--engine", "postgresql", "--from", str(app(tmp_path))]
    run = run_command(*arguments, folder=tmp_path)
    assert "this is not" not in run.stderr


# --- with PyPI


@pytest.fixture(scope="module")
def _pypi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip, with pip's reason, if it cannot fetch anything."""
    folder = tmp_path_factory.mktemp("probe")
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "1", "-d", str(folder)]
    probe += ["pymysql>=1.2.4", "psycopg>=3.3.9", "tenacity>=9.2"]  # which are there for sure
    run = subprocess.run(probe, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip(f"PyPI cannot be reached: {run.stderr.strip().splitlines()[-1:]}")


def build(folder: Path, *, arch: str, python: str, arguments: tuple[str, ...] = ()) -> BuiltLayer:
    run = run_command(
        "--python", python, "--arch", arch, "--engine", BOTH, "-o", "layer.zip", *arguments, folder=folder
    )
    assert run.returncode == 0, run.stderr
    path = folder / "layer.zip"
    assert run.stdout == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  layer.zip\n"
    return BuiltLayer.open(path, told=run.stderr)


@pytest.fixture(scope="module")
def layer(_pypi: None, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> BuiltLayer:
    """For this machine and this Python."""
    if HERE is None or sys.platform != "linux" or THIS_PYTHON not in PYTHONS:
        pytest.skip("Lambda has no such runtime as this Python on this machine")
    bundle = ("--rds-ca-bundle", str(certificates.ca_path))
    return build(tmp_path_factory.mktemp("layer"), arch=HERE, python=THIS_PYTHON, arguments=bundle)


@pytest.fixture(scope="module")
def foreign_layer(_pypi: None, tmp_path_factory: pytest.TempPathFactory) -> BuiltLayer:
    """For the other architecture, and a Python that is not this one."""
    bill = ("--sbom", "layer.cdx.json")
    return build(tmp_path_factory.mktemp("foreign"), arch=OTHER, python=FOREIGN_PYTHON, arguments=bill)


IMPORTS = """
import json, lambda_dbconn, psycopg, pymysql, tenacity
import lambda_dbconn.drivers.postgresql, lambda_dbconn.drivers.mysql, lambda_dbconn.observers.emf
from importlib.metadata import version
print(json.dumps({
    "impl": psycopg.pq.__impl__,
    "versions": {name: version(name) for name in ("lambda-dbconn", "psycopg", "psycopg-binary", "pymysql")},
    "files": [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)],
}))
"""

HANDLER = """
import lambda_dbconn
db = lambda_dbconn.from_env()

class Context:
    function_name = "from-a-layer"
    function_version = "$LATEST"
    def get_remaining_time_in_millis(self):
        return 20_000

for _ in range(2):
    with db.connection(Context()) as connection, connection.cursor() as cursor:
        cursor.execute("select 6 * 7")
        print(cursor.fetchone()[0], db.settings.engine)
db.close()
"""


def test_python_and_the_layer_are_all_that_it_takes(layer: BuiltLayer) -> None:
    run = layer.run(IMPORTS)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["impl"] == "binary"
    assert found["versions"].items() <= layer.versions.items()
    standard_library = str(Path(json.__file__).parent.parent)
    others = [file for file in found["files"] if not file.startswith(str(layer.site_packages))]
    assert [file for file in others if not file.startswith(standard_library) or "site-packages" in file] == []


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_a_handler_runs_from_it(layer: BuiltLayer, request: pytest.FixtureRequest, name: str) -> None:
    server: LocalServer = request.getfixturevalue(name)
    run = layer.run(HANDLER, environment(server))
    assert run.stdout == f"42 {server.engine}\n" * 2, run.stderr


def test_its_bytecode_is_what_runs_and_its_sources_are_not_looked_at(layer: BuiltLayer, tmp_path: Path) -> None:
    assert layer.manifest["bytecode"]["compiled_by"] == "{}.{}.{}".format(*sys.version_info)
    copy = BuiltLayer.open(Path(shutil.copy(layer.path, tmp_path)), told="")
    for source in copy.site_packages.rglob("*.py"):
        source.write_text("raise SystemExit('a source was compiled')")
    run = copy.run(IMPORTS)
    assert run.returncode == 0, run.stderr
    for compiled in copy.site_packages.rglob("*.pyc"):
        compiled.unlink()
    assert "a source was compiled" in copy.run(IMPORTS).stderr


def test_the_same_again_gives_the_same_bytes(layer: BuiltLayer, tmp_path: Path, certificates: Certificates) -> None:
    """Even in another folder, with another hash seed, and told to take the versions of the first."""
    arguments = ["--python", THIS_PYTHON, "--arch", str(HERE), "--engine", "mysql,postgresql", "-o", "again.zip"]
    arguments += ["--rds-ca-bundle", str(certificates.ca_path), "--like", str(layer.path)]
    run = run_command(
        *arguments, folder=tmp_path, environ={"PYTHONHASHSEED": "7", "TMPDIR": str(tmp_path), "TZ": "Asia/Tokyo"}
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "again.zip").read_bytes() == layer.path.read_bytes()


def test_the_authorities_are_where_the_library_looks_for_them(layer: BuiltLayer, certificates: Certificates) -> None:
    bundle = layer.root / Path(LAYER_RDS_BUNDLE).relative_to(ROOT)
    assert bundle.read_bytes() == certificates.ca_path.read_bytes()
    told = layer.manifest["rds_ca_bundle"]
    assert (told["certificates"], told["sha256"]) == (1, hashlib.sha256(bundle.read_bytes()).hexdigest())
    assert "RDS authorities: 1, until " in layer.told


def test_without_authorities_it_says_who_needs_them(foreign_layer: BuiltLayer) -> None:
    assert "RDS authorities: none. RDS Proxy needs none" in foreign_layer.told
    assert foreign_layer.manifest["rds_ca_bundle"] is None


def test_the_bill_of_materials_says_what_the_manifest_says(foreign_layer: BuiltLayer) -> None:
    bill = json.loads(foreign_layer.path.with_name("layer.cdx.json").read_text())
    sha256 = hashlib.sha256(foreign_layer.path.read_bytes()).hexdigest()
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": sha256}]
    components = {each["name"]: each for each in bill["components"]}
    assert {name: each["version"] for name, each in components.items()} == foreign_layer.versions
    assert [name for name, each in components.items() if not each["licenses"]] == []
    libraries = {each["name"] for each in components["psycopg-binary"]["components"]}
    assert "keyutils-libs" in libraries
    assert not {"libpq", "openssl", "openssl-libs"} & libraries  # the documentation says that it does not list them


def test_it_has_licences_but_no_sdk_tests_stubs_or_traces_of_an_installer(layer: BuiltLayer) -> None:
    with ZipFile(layer.path) as archive:
        names = archive.namelist()
    tops = {name.split("/")[4] for name in names if name.startswith("python/")}
    assert not {"boto3", "botocore", "s3transfer", "urllib3", "click", "rich", "cyclonedx", "pip", "packaging"} & tops
    assert not [name for name in names if re.search(r"\.pyi$|/tests?/|/py\.typed$|/(RECORD|INSTALLER)$", name)]
    assert not [name for name in names if "lambda_dbconn/cli" in name or "lambda_dbconn/testing" in name]
    assert [name for name in names if name.endswith("/lambda_dbconn/amazon-roots.pem")]
    folders = sorted(top for top in tops if top.endswith(".dist-info"))
    assert len(folders) == len(layer.versions)
    for folder in folders:
        assert [name for name in names if f"/{folder}/licenses/" in name], folder
    assert all(each["licence"] for each in layer.manifest["distributions"])


def test_the_size_is_told_and_compared_with_lambdas_limits(layer: BuiltLayer) -> None:
    with ZipFile(layer.path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    zipped = layer.path.stat().st_size
    size = f"Size: {zipped / 2**20:.1f} MB zipped, of 50; {unpacked / 2**20:.1f} MB unpacked, of 250"
    assert size in layer.told
    assert "Warning" not in layer.told
    assert 3 < zipped / 2**20 < 10


def test_a_wheel_of_the_installed_package_is_the_package(layer: BuiltLayer) -> None:
    package = Path(lambda_dbconn.__file__).parent
    for source in layer.site_packages.glob("lambda_dbconn/**/*.py"):
        assert source.read_bytes() == (package / source.relative_to(layer.site_packages / "lambda_dbconn")).read_bytes()


def test_a_checkout_will_do_too(layer: BuiltLayer, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(Path(lambda_dbconn.__file__).parent, checkout / "lambda_dbconn")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(Path(__file__).parents[2] / name, checkout)
    wheel = own_wheel(checkout, folder=tmp_path)
    found = unpack([wheel], site_packages="s")
    installed = {
        f"s/{path.relative_to(layer.site_packages).as_posix()}"
        for path in layer.site_packages.glob("lambda_dbconn*/**/*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert set(found) == installed


@pytest.mark.parametrize("name", ["layer", "foreign_layer"])
def test_every_binary_is_for_the_architecture_and_the_python(request: pytest.FixtureRequest, name: str) -> None:
    layer: BuiltLayer = request.getfixturevalue(name)
    runtime = Runtime(python=layer.manifest["python"], architecture=layer.manifest["architecture"])
    contents = {str(path): path.read_bytes() for path in layer.site_packages.rglob("*") if ".so" in path.name}
    check_binaries(contents, runtime=runtime)
    for each in layer.manifest["distributions"]:
        check_tags(each["wheel"], runtime=runtime, is_pure=each["name"] in PURE)


@pytest.mark.usefixtures("_pypi")
@pytest.mark.parametrize(("python", "architecture"), NOT_BUILT)
def test_pypi_has_wheels_that_the_runtime_can_run(python: str, architecture: Architecture, tmp_path: Path) -> None:
    runtime = Runtime(python=python, architecture=architecture)
    own = own_wheel(None, folder=tmp_path)
    wheels = resolve(own, engines=["mysql", "postgresql"], runtime=runtime, versions={}, folder=tmp_path)
    expected = (PURE | {"psycopg-binary"}) - ({"typing-extensions"} if python >= "3.13" else set())
    assert {wheel.name for wheel in wheels} == expected
    for wheel in wheels:
        check_tags(wheel.path.name, runtime=runtime, is_pure=wheel.name in PURE)
    contents = unpack((wheel.path for wheel in wheels), site_packages="s")
    check_binaries({name: content for name, content in contents.items() if ".so" in name}, runtime=runtime)


def check_tags(wheel: str, *, runtime: Runtime, is_pure: bool) -> None:
    """Read a wheel's name as PEP 425 and 600 say."""
    python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
    if is_pure:
        assert (abi, platforms) == ("none", "any")
        return
    assert (python, abi) == (runtime.abi, runtime.abi)
    minors = [int(minor) for minor in re.findall(rf"manylinux_2_(\d+)_{runtime.machine}(?:\.|$)", platforms)]
    assert minors
    assert min(minors) <= int(runtime.glibc.partition(".")[2])


def check_binaries(contents: dict[str, bytes], *, runtime: Runtime) -> None:
    """Look into the binaries themselves: what they are for, and which symbols of glibc they ask for."""
    assert len(contents) > 5
    assert {elf_machine(content) for content in contents.values()} == {ELF_MACHINES[runtime.architecture]}
    asked = {int(minor) for content in contents.values() for minor in re.findall(rb"GLIBC_2\.(\d+)", content)}
    assert max(asked) <= int(runtime.glibc.partition(".")[2])
    modules = [name for name in contents if ".cpython-" in name]
    tag = f".cpython-{runtime.python.replace('.', '')}-{runtime.machine}-linux-gnu.so"
    assert len(modules) == 2
    assert all(name.endswith(tag) for name in modules)
