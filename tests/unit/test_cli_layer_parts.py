"""The parts of a layer: requirements, contents, authorities, bytecode, the zip, the manifest."""

from __future__ import annotations

import json
import marshal
import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import cache_from_source
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import click
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from lambda_dbconn.cli.layer import archive, manifest, resolving
from lambda_dbconn.cli.layer.bytecode import Interpreter
from lambda_dbconn.cli.layer.contents import unpack
from lambda_dbconn.cli.layer.manifest import MANIFEST, RDS_BUNDLE, Precedent
from lambda_dbconn.cli.layer.resolving import Wheel
from lambda_dbconn.cli.layer.runtime import Runtime
from lambda_dbconn.cli.layer.trust_bundle import TrustBundle
from lambda_dbconn.tls import LAYER_RDS_BUNDLE
from tests.support.wheels import make_wheel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

NOW = datetime(2026, 11, 22, tzinfo=UTC)
THIS_PYTHON = "{}.{}".format(*sys.version_info)
RUNTIME = Runtime(python="3.12", architecture="arm64")

is_released = pytest.mark.skipif(sys.version_info.releaselevel != "final", reason="this Python is not released")


# --- requirements


def follow(root: str, *paths: Path, runtime: Runtime = RUNTIME) -> tuple[list[str], list[str]]:
    wheels = {wheel.name: wheel for wheel in map(Wheel.read, paths)}
    needed, missing = resolving._follow(root, wheels=wheels, environment=runtime.marker_environment)
    return sorted(wheel.name for wheel in needed), missing


def test_markers_are_judged_by_the_runtime_and_not_by_this_machine(tmp_path: Path) -> None:
    requires = [
        "backport>=1 ; python_version < '3.13'",
        "future ; python_version >= '3.13'",
        "windows-only ; sys_platform == 'win32'",
        "arm-only ; platform_machine == 'aarch64'",
        "with-an-extra ; extra == 'fast'",
    ]
    app = make_wheel(tmp_path, "app", "1", requires=requires, extras=["fast"])
    assert follow("app", app) == (["app"], ["arm-only", "backport>=1"])
    assert follow("app[fast]", app) == (["app"], ["arm-only", "backport>=1", "with-an-extra"])
    newer = Runtime(python="3.13", architecture="x86_64")
    assert follow("app", app, runtime=newer) == (["app"], ["future"])


def test_what_only_this_machine_needs_is_left_out(tmp_path: Path) -> None:
    app = make_wheel(tmp_path, "app", "1", requires=["Name_Of.Many-Spellings", "other ; python_version >= '3.13'"])
    found = make_wheel(tmp_path, "name-of-many-spellings", "1", requires=["app"])
    other = make_wheel(tmp_path, "other", "1")
    assert follow("app", app, found, other) == (["app", "name-of-many-spellings"], [])


def test_a_version_that_only_the_runtimes_markers_forbid_is_missing(tmp_path: Path) -> None:
    app = make_wheel(tmp_path, "app", "1", requires=["other", "other<2 ; python_version < '3.13'"])
    assert follow("app", app, make_wheel(tmp_path, "other", "2")) == (["app", "other"], ["other<2"])
    assert follow("app", app, make_wheel(tmp_path, "other", "1.5rc1")) == (["app", "other"], [])


def test_an_extra_of_something_that_was_already_followed_is_followed_too(tmp_path: Path) -> None:
    app = make_wheel(tmp_path, "app", "1", requires=["lib", "other"])
    other = make_wheel(tmp_path, "other", "1", requires=["lib[binary]"])
    lib = make_wheel(tmp_path, "lib", "1", requires=["lib-binary ; extra == 'binary'"], extras=["binary"])
    assert follow("app", app, other, lib) == (["app", "lib", "other"], ["lib-binary"])


# --- contents


def test_a_function_gets_what_it_imports_and_the_licences_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        "app/__init__.py",
        "app/data.json",
        "app/fast.so",
        "app/testing_ground.py",
        "app-1.dist-info/licenses/LICENSE",
    ]
    left = ["app/__init__.pyi", "app/py.typed", "app/fast.pyx", "app/fast.c", "app/tests/test_app.py", "app/test/a.py"]
    left += ["app-1.dist-info/INSTALLER", "app-1.dist-info/REQUESTED", "app-1.dist-info/direct_url.json"]
    moved = {"app-1.data/purelib/pure.py": "pure.py", "app-1.data/platlib/plat.py": "plat.py"}
    elsewhere = ["app-1.data/scripts/app", "app-1.data/headers/app.txt", "app-1.data/data/share/man.1"]
    wheel = make_wheel(tmp_path, "app", "1", files=dict.fromkeys([*kept, *left, *moved, *elsewhere], ""))
    about = [f"app-1.dist-info/{name}" for name in ("METADATA", "WHEEL")]
    found = unpack([wheel], site_packages="python")
    assert set(found) == {f"python/{name}" for name in [*kept, *moved.values(), *about]}


def test_a_function_gets_neither_the_command_line_nor_the_test_servers(tmp_path: Path) -> None:
    names = ["__init__.py", "__main__.py", "cli/__init__.py", "testing/servers/a.py", "tls.py", "drivers/__init__.py"]
    wheel = make_wheel(tmp_path, "lambda-dbconn", "1", files={f"lambda_dbconn/{name}": "" for name in names})
    found = [name for name in unpack([wheel], site_packages="p") if ".dist-info" not in name]
    assert found == ["p/lambda_dbconn/__init__.py", "p/lambda_dbconn/tls.py", "p/lambda_dbconn/drivers/__init__.py"]


# --- authorities


def authority(*, until: datetime, is_ca: bool = True) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"until {until}")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(until - timedelta(days=4000)).not_valid_after(until)
    certificate = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def in_days(*days: int) -> bytes:
    return b"".join(authority(until=NOW + timedelta(days=each)) for each in days)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return tmp_path / "bundle.pem"


@pytest.mark.parametrize(
    ("days", "warning"),
    [
        ([3000, 1000], None),
        ([3000, 366], None),
        ([3000, 300, 200], "2 of 3 certificates expire within a year, the first on 2027-06-10"),
        ([3000, -1, -2, 300], "2 of 4 certificates have expired, the first on 2026-11-20"),
    ],
)
def test_certificates_that_have_expired_or_will_soon_are_counted(
    pem: Path, days: list[int], warning: str | None
) -> None:
    pem.write_bytes(b"# a comment\n" + in_days(*days))
    bundle = TrustBundle.read(pem, now=NOW)
    assert bundle.content == pem.read_bytes()
    assert bundle.expiries == tuple(NOW + timedelta(days=each) for each in sorted(days))
    assert bundle.warning(NOW) == warning


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (in_days(-10, -1), "all 2 certificates in .* have expired, the last on 2026-11-21"),
        (b"", "is not a PEM file of certificates; RDS's is at https://truststore"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is not a PEM file"),
        (authority(until=NOW + timedelta(days=900), is_ca=False), "no authority's certificate"),
        (in_days(900) + trustme.CA().private_key_pem.bytes(), "has a private key in it"),
    ],
    ids=["expired", "empty", "broken", "of a server", "with a key"],
)
def test_a_file_that_would_verify_nothing_is_refused(pem: Path, content: bytes, complaint: str) -> None:
    pem.write_bytes(content)
    with pytest.raises(click.BadParameter, match=complaint):
        TrustBundle.read(pem, now=NOW)


def test_the_authorities_lie_where_the_library_looks_for_them() -> None:
    assert f"/opt/{RDS_BUNDLE}" == LAYER_RDS_BUNDLE


# --- bytecode


def test_no_interpreter_is_found_for_a_python_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PATH", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert Interpreter.find("3.99") is None


@is_released
def test_the_interpreter_that_runs_will_do_for_its_own_version() -> None:
    found = Interpreter.find(THIS_PYTHON)
    assert found is not None
    assert str(found.path) == sys.executable
    assert found.version == "{}.{}.{}".format(*sys.version_info)


@pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")
def test_programs_that_do_not_run_or_are_something_else_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    programs = {
        "a/python3.99": "exit 127",
        "b/python3.99": "echo pypy 3.99.1 final",
        "c/python3.99": "echo cpython 3.99.0 candidate",
        "d/python3.99": "echo cpython 3.98.0 final",
        "pyenv/versions/3.99.2/bin/python3.99": "echo cpython 3.99.2 final",
    }
    for name, line in programs.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / folder) for folder in "abcd"))
    found = Interpreter.find("3.99")
    assert found == Interpreter(path=tmp_path / "pyenv/versions/3.99.2/bin/python3.99", version="3.99.2")


def interpreter() -> Interpreter:
    found = Interpreter.find(THIS_PYTHON)
    assert found is not None
    return found


@is_released
def test_bytecode_is_not_checked_against_its_source_and_names_the_file_as_lambda_will(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    sources = {"python/app/__init__.py": b"def f():\n    'Documented.'\n    assert 1\n", "python/app/data.json": b"{}"}
    compiled = interpreter().compile(sources)
    path = cache_from_source("python/app/__init__.py", optimization="")
    assert list(compiled) == [path]
    assert int.from_bytes(compiled[path][4:8], "little") == 0b01  # PEP 552: by hash, and not to be checked
    code = marshal.loads(compiled[path][16:])
    assert code.co_filename == "/opt/python/app/__init__.py"
    function: Any = next(each for each in code.co_consts if hasattr(each, "co_name"))
    assert "Documented." in function.co_consts


@is_released
def test_the_same_sources_give_the_same_bytecode() -> None:
    names = [f"python/m{number}.py" for number in range(20)]
    sources = {name: f"A = {{'x', 'y', '{name}'}}\nB = 'x' in {{'p', 'q', 'r'}}\n".encode() for name in names}
    assert interpreter().compile(sources) == interpreter().compile(dict(reversed(sources.items())))


@is_released
def test_a_module_for_another_python_is_a_failure_that_says_which() -> None:
    with pytest.raises(click.ClickException, match=rf"Python {THIS_PYTHON}\.\d+ cannot compile .*SyntaxError|/opt/"):
        interpreter().compile({"python/old.py": b"print 'hello'\n"})


# --- the zip


def test_a_layer_is_readable_to_all_and_has_neither_dates_nor_an_order_of_its_own(tmp_path: Path) -> None:
    contents = {"b": b"2" * 1000, "a/c": b"3", "a/b": b"4"}
    one = archive.write(contents, tmp_path / "one.zip")
    other = archive.write(dict(reversed(contents.items())), tmp_path / "other.zip")
    assert one.path.read_bytes() == other.path.read_bytes()
    assert (one.sha256, one.unpacked_bytes) == (other.sha256, 1002)
    assert one.zipped_bytes == one.path.stat().st_size < 1000
    with ZipFile(one.path) as written:
        assert written.namelist() == ["a/b", "a/c", "b"]
        for member in written.infolist():
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert (member.create_system, member.external_attr >> 16) == (3, stat.S_IFREG | 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "other.zip"]


def test_what_lambda_would_not_unpack_is_not_written_and_the_old_layer_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert archive.UNPACKED_LIMIT_BYTES == 262_144_000
    monkeypatch.setattr(archive, "UNPACKED_LIMIT_BYTES", 3 * archive.MIB)
    path = tmp_path / "layer.zip"
    path.write_text("old")
    with pytest.raises(click.ClickException, match=r"has 3\.5 MB unpacked, and Lambda takes 3"):
        archive.write({"a": bytes(3 * archive.MIB), "b": bytes(archive.MIB // 2)}, path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("layer.zip", "old")]


# --- the manifest


def wheel(tmp_path: Path, name: str, version: str = "1") -> Wheel:
    return Wheel.read(make_wheel(tmp_path, name, version))


def described(tmp_path: Path, *wheels: Wheel) -> Path:
    text = manifest.describe(runtime=RUNTIME, engines=["mysql"], wheels=wheels, interpreter=None, bundle=None)
    return archive.write({MANIFEST: text}, tmp_path / "layer.zip").path


def test_the_manifest_says_what_the_layer_is_for_and_made_of(pem: Path, tmp_path: Path) -> None:
    pem.write_bytes(in_days(400, 3000))
    text = manifest.describe(
        runtime=RUNTIME,
        engines=["mysql", "postgresql"],
        wheels=[wheel(tmp_path, "app")],
        interpreter=interpreter(),
        bundle=TrustBundle.read(pem, now=NOW),
    )
    told = json.loads(text)
    assert (told["python"], told["architecture"], told["glibc"]) == ("3.12", "arm64", "2.34")
    assert told["engines"] == ["mysql", "postgresql"]
    assert told["bytecode"]["compiled_by"] == interpreter().version
    (app,) = told["distributions"]
    assert (app["name"], app["version"], app["licence"], app["wheel"]) == ("app", "1", "MIT", "app-1-py3-none-any.whl")
    assert len(app["sha256"]) == len(told["rds_ca_bundle"]["sha256"]) == 64
    assert (told["rds_ca_bundle"]["certificates"], told["rds_ca_bundle"]["first_expires"]) == (2, "2027-12-27")


def test_without_bytecode_and_authorities_the_manifest_says_so(tmp_path: Path) -> None:
    with ZipFile(described(tmp_path)) as layer:
        told = json.loads(layer.read(MANIFEST))
    assert told["bytecode"] is None
    assert told["rds_ca_bundle"] is None


def test_another_layers_versions_can_be_taken_but_not_that_of_lambda_dbconn(tmp_path: Path) -> None:
    app = wheel(tmp_path, "app", "1.5")
    layer = described(tmp_path, wheel(tmp_path, "lambda-dbconn"), app)
    precedent = Precedent.read(layer)
    assert precedent.versions == {"app": "1.5"}
    precedent.check([app, wheel(tmp_path, "not-in-the-other")])


def test_a_wheel_that_has_changed_under_its_name_is_a_failure(tmp_path: Path) -> None:
    precedent = Precedent.read(described(tmp_path, wheel(tmp_path, "app")))
    forged = Wheel.read(make_wheel(tmp_path, "app", "1", files={"app.py": "import os"}))
    with pytest.raises(click.ClickException, match=r"app-1-py3-none-any\.whl is not the file"):
        precedent.check([forged])


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_what_is_no_layer_of_this_command_is_no_precedent(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.zip"
    if content is None:
        archive.pack({"python/app.py": b""}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(click.BadParameter, match="is not a layer that this command made"):
        Precedent.read(path)


# --- what somebody else has made


HOSTILE = [
    "app --index-url https://example.org/simple",
    "--index-url https://example.org/simple\napp",
    "app\n--index-url https://example.org/simple",
    "-r /etc/passwd",
    "app @ https://example.org/app.whl",
    "app[extra]",
    "app ; python_version > '3'",
    "../app",
    "app\n",
    " app",
    "ap\u212a",  # a letter that is a K when case is ignored
    "",
    7,
    None,
]


def forged(tmp_path: Path, **changes: object) -> Path:
    """Write a layer whose manifest has something in place of what this command writes."""
    app = {"name": "app", "version": "1.5", "wheel": "app-1.5-py3-none-any.whl", "sha256": "0" * 64} | changes
    path = tmp_path / "forged.zip"
    path.unlink(missing_ok=True)
    archive.pack({MANIFEST: json.dumps({"distributions": [app]}).encode()}, path)
    return path


def test_a_manifest_that_this_command_could_have_written_is_read(tmp_path: Path) -> None:
    assert Precedent.read(forged(tmp_path)).versions == {"app": "1.5"}
    assert Precedent.read(forged(tmp_path, name="App_X", version="1.0+local.1")).versions == {"app-x": "1.0+local.1"}
    assert Precedent.read(forged(tmp_path, name="Lambda_DBConn")).versions == {}


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_in_a_manifest_is_a_name_and_no_option_of_pips(tmp_path: Path, name: object) -> None:
    with pytest.raises(click.BadParameter, match="is not a layer that this command made"):
        Precedent.read(forged(tmp_path, name=name))


@pytest.mark.parametrize("version", [*HOSTILE, "1.0 --pre", "1.0\n-r x", "*"], ids=repr)
def test_a_version_in_a_manifest_is_a_version_and_no_option_of_pips(tmp_path: Path, version: object) -> None:
    with pytest.raises(click.BadParameter, match="is not a layer that this command made"):
        Precedent.read(forged(tmp_path, version=version))


@given(name=st.text(max_size=30) | st.sampled_from(HOSTILE), version=st.text(max_size=30) | st.just("1.0\n"))
def test_whatever_is_in_a_manifest_a_line_for_pip_is_a_name_and_a_version(name: object, version: str) -> None:
    found = {"name": name, "version": version, "wheel": "a.whl", "sha256": "0" * 64}
    try:
        read_name, read_version, _, _ = manifest._distribution(found)
    except ValueError:
        return
    line = f"{read_name}=={read_version}"
    requirement = Requirement(line)
    assert (requirement.name, requirement.url, requirement.marker, requirement.extras) == (read_name, None, None, set())
    assert line.split() == [line]


@pytest.mark.parametrize(
    "text",
    ["[]", '{"distributions": 7}', '{"distributions": [7]}', '{"distributions": [{}]}', "[" * 100_000, "1" * 5000],
)
def test_a_manifest_of_another_shape_is_no_manifest(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.zip"
    archive.pack({MANIFEST: text.encode()}, path)
    with pytest.raises(click.BadParameter, match="is not a layer that this command made"):
        Precedent.read(path)


def test_a_manifest_that_unpacks_to_too_much_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    archive.pack({MANIFEST: b" " * 2_000_000}, path)
    with pytest.raises(click.BadParameter, match="too long"):
        Precedent.read(path)


def odd_wheel(tmp_path: Path, *members: ZipInfo | str) -> Path:
    path = make_wheel(tmp_path, "app", "1")
    with ZipFile(path, "a") as wheel:
        for member in members:
            wheel.writestr(member, b"x = 1\n")
    return path


def special(kind: int) -> ZipInfo:
    member = ZipInfo("app/special.py")
    member.external_attr = (kind | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    [
        "../app.py",
        "app/../../app.py",
        "app/../../../../../../etc/app.py",
        "/etc/app.py",
        "app-1.data/purelib/../../../../../../app.py",
        "..\\app.py",
        "app/\x1b[2Japp.py",
        special(stat.S_IFLNK),
        special(stat.S_IFCHR),
        special(stat.S_IFIFO),
    ],
    ids=lambda member: repr(member if isinstance(member, str) else oct(member.external_attr >> 16)),
)
def test_a_member_that_leads_out_of_a_wheel_or_is_no_file_is_refused(tmp_path: Path, member: ZipInfo | str) -> None:
    with pytest.raises(click.ClickException, match="is not a wheel that can be unpacked") as caught:
        unpack([odd_wheel(tmp_path, member)], site_packages="python")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("member", ["app-1.data", "app-1.data/purelib", "."])
def test_a_member_that_is_nowhere_in_site_packages_is_left_out_or_refused(tmp_path: Path, member: str) -> None:
    path = odd_wheel(tmp_path, member)
    try:
        contents = unpack([path], site_packages="python")
    except click.ClickException:
        return
    assert set(contents) == {"python/app.py", "python/app-1.dist-info/METADATA", "python/app-1.dist-info/WHEEL"}


def test_wheels_that_unpack_to_more_than_lambda_takes_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT_BYTES", 1_000_000)
    path = make_wheel(tmp_path, "app", "1")
    with ZipFile(path, "a", ZIP_DEFLATED) as wheel:
        wheel.writestr("app/bomb.py", b" " * 2_000_000)
    monkeypatch.setattr(ZipFile, "read", lambda *_: pytest.fail("read") if _[1].file_size > 1_000_000 else b"")
    with pytest.raises(click.ClickException, match="MB unpacked"):
        unpack([path], site_packages="python")


@pytest.mark.parametrize(
    ("name", "version", "requires"),
    [("--pre", "1", []), ("app", "1 --pre", []), ("app", "1", ["-r x"]), ("app", "1", ["a b"])],
)
def test_a_wheel_with_odd_metadata_is_one_line(tmp_path: Path, name: str, version: str, requires: list[str]) -> None:
    path = tmp_path / "odd-1-py3-none-any.whl"
    with ZipFile(path, "w") as wheel:
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in requires)]
        wheel.writestr("odd-1.dist-info/METADATA", "\n".join(lines) + "\n\n")
    with pytest.raises(click.ClickException, match="is not a wheel that can be read"):
        Wheel.read(path)


def test_a_requirement_from_a_url_is_refused_if_it_is_needed(tmp_path: Path) -> None:
    url = "git+https://example.org/lib"
    idle = make_wheel(tmp_path / "idle", "app", "1", requires=[f"lib @ {url} ; python_version < '3'"])
    assert follow("app", idle) == (["app"], [])
    needed = make_wheel(tmp_path / "needed", "app", "1", requires=[f"lib @ {url}"])
    with pytest.raises(click.ClickException, match="app requires lib from a URL"):
        follow("app", needed)


def test_a_link_where_a_layer_is_being_written_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / ".layer.zip.unfinished").symlink_to(victim)
    archive.write({"python/app.py": b""}, tmp_path / "layer.zip")
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "layer.zip").is_symlink()
