"""Which wheels the layer is made of. pip chooses them; what pip cannot know is seen to here.

pip takes wheels for another platform, but judges the environment markers of their requirements by the Python that it
runs on: on Python 3.13 it leaves out what psycopg needs on 3.12. So the requirements are followed once more, with
the runtime's own markers, until nothing is missing; what only this machine needs is left out, although pip insists
that there be a wheel of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from typing import TYPE_CHECKING, Self
from zipfile import BadZipFile, ZipFile
from zipfile import Path as ZipPath

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lambda_dbconn.cli.layer.naming import distribution_name, distribution_version
from lambda_dbconn.cli.layer.own_wheel import NAME
from lambda_dbconn.cli.layer.pip import run_pip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lambda_dbconn.cli.layer.runtime import Runtime

_LICENCE_FIELDS = ("License-Expression", "License")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel, and what it says of itself.

    Attributes:
        name: In the one form that all spellings have in common, as `lambda-dbconn`.
        requires: Not yet judged by their markers.
    """

    path: Path
    name: str
    version: str
    licence: str | None
    sha256: str
    requires: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a wheel's metadata.

        Raises:
            click.ClickException: It has none, or something is wrong with it.
        """
        try:
            with ZipFile(path) as archive:
                folder = next(name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name)
                described = PathDistribution(ZipPath(archive, f"{folder}/"))
                metadata = described.metadata
                return cls(
                    path=path,
                    name=distribution_name(metadata["Name"]),
                    version=distribution_version(metadata["Version"]),
                    licence=next((metadata[name] for name in _LICENCE_FIELDS if name in metadata), None),
                    sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                    requires=tuple(str(Requirement(text)) for text in described.requires or ()),
                )
        except (BadZipFile, KeyError, StopIteration, ValueError) as error:
            raise click.ClickException(f"{path.name} is not a wheel that can be read: {error}") from error


def resolve(
    own: Path, *, engines: Sequence[str], runtime: Runtime, versions: Mapping[str, str], folder: Path
) -> list[Wheel]:
    """Return the wheels of lambda_dbconn, its drivers, and all that these need, by name.

    Args:
        own: The wheel of lambda_dbconn.
        engines: Whose drivers are wanted.
        runtime: What they are to run on.
        versions: Those to be taken, by canonical name; what is not in it is taken as new as there is.
        folder: Where the wheels are kept.

    Raises:
        click.ClickException: pip finds no such wheels, or cannot be asked.
    """
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
    root = f"{NAME}[{','.join(engines)}]"
    wanted = [f"{root} @ {own.as_uri()}"]
    while True:
        wheels = _download(wanted, runtime=runtime, constraints=constraints, folder=folder / str(len(wanted)))
        needed, missing = _follow(root, wheels=wheels, environment=runtime.marker_environment)
        if not missing:
            return sorted(needed, key=lambda wheel: wheel.name)
        if not set(missing).difference(wanted):
            raise click.ClickException(f"pip does not find, for {runtime}: {', '.join(missing)}")
        wanted += missing


def _download(wanted: Iterable[str], *, runtime: Runtime, constraints: Path, folder: Path) -> dict[str, Wheel]:
    """Let pip choose and fetch; return the wheels by name."""
    platforms = [argument for tag in runtime.platform_tags for argument in ("--platform", tag)]
    target = ["--implementation", "cp", "--python-version", runtime.python, "--abi", runtime.abi, *platforms]
    where = ["--only-binary", ":all:", "--constraint", str(constraints), "--dest", str(folder)]
    run_pip("download", *target, *where, "--", *wanted, purpose=f"no wheels for {runtime}")
    wheels = [Wheel.read(path) for path in folder.glob("*.whl")]
    return {wheel.name: wheel for wheel in wheels}


def _follow(root: str, *, wheels: Mapping[str, Wheel], environment: Mapping[str, str]) -> tuple[list[Wheel], list[str]]:
    """Follow the requirements from the root on; return the wheels that are reached, and what none of them is."""
    pending = [Requirement(root)]
    followed: set[tuple[str, str]] = set()
    needed: dict[str, Wheel] = {}
    missing: set[str] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        wheel = wheels.get(name)
        if wheel is None or not requirement.specifier.contains(wheel.version, prereleases=True):
            requirement.marker = None  # pip would judge it again, by its own Python
            missing.add(str(requirement))
            continue
        needed[name] = wheel
        for extra in {"", *requirement.extras}:
            if (name, extra) not in followed:
                followed.add((name, extra))
                pending += _requirements(wheel, {**environment, "extra": extra})
    return list(needed.values()), sorted(missing)


def _requirements(wheel: Wheel, environment: Mapping[str, str]) -> list[Requirement]:
    """Return what a wheel needs in this environment.

    Raises:
        click.ClickException: One is to come from a URL, where pip would fetch whatever is there, and build it.
    """
    requirements = [Requirement(text) for text in wheel.requires]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate(dict(environment))]
    for each in needed:
        if each.url is not None:
            raise click.ClickException(f"{wheel.name} requires {each.name} from a URL and not from the package index")
    return needed
