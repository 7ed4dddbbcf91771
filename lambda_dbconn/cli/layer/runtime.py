"""What a Lambda runtime accepts: an architecture, a Python, and a C library.

Sources: Lambda developer guide, "Lambda runtimes" and "Working with layers for Python Lambda functions"; PEP 600.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["x86_64", "arm64"]

_AMAZON_LINUX_2, _AMAZON_LINUX_2023 = 26, 34  # the y of glibc 2.y
_GLIBC_MINOR = {
    "3.11": _AMAZON_LINUX_2,
    "3.12": _AMAZON_LINUX_2023,
    "3.13": _AMAZON_LINUX_2023,
    "3.14": _AMAZON_LINUX_2023,
}
PYTHONS = tuple(_GLIBC_MINOR)
ARCHITECTURES: dict[Architecture, str] = {"x86_64": "x86_64", "arm64": "aarch64"}  # Lambda's name, and the kernel's

# The oldest glibc that wheels were ever built for, and what those tags were called before PEP 600.
_OLDEST_GLIBC_MINOR = {"x86_64": 5, "aarch64": 17}
_OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

ROOT = "/opt"  # where Lambda unpacks a layer


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A Python runtime of Lambda on one architecture.

    Attributes:
        python: One of `PYTHONS`.
        architecture: As Lambda calls it.
    """

    python: str
    architecture: Architecture

    def __str__(self) -> str:
        """Name it to people."""
        return f"Python {self.python} on {self.architecture}"

    @property
    def machine(self) -> str:
        """The architecture as the kernel, and so a wheel, calls it."""
        return ARCHITECTURES[self.architecture]

    @property
    def glibc(self) -> str:
        """The version of the runtime's C library."""
        return f"2.{_GLIBC_MINOR[self.python]}"

    @property
    def abi(self) -> str:
        """The tag of extension modules that are for this Python only."""
        return f"cp{self.python.replace('.', '')}"

    @property
    def platform_tags(self) -> list[str]:
        """Every platform that the runtime can run, the best first.

        pip matches each tag literally: of `manylinux_2_28_aarch64` alone it finds no pure wheel's neighbours, and with
        `manylinux2014_aarch64` alone it silently takes a psycopg of last year, for the newer wheels have newer tags.
        """
        tags: list[str] = []
        for minor in range(_GLIBC_MINOR[self.python], _OLDEST_GLIBC_MINOR[self.machine] - 1, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _OLD_NAMES:
                tags.append(f"{_OLD_NAMES[minor]}_{self.machine}")
        return tags

    @property
    def marker_environment(self) -> dict[str, str]:
        """What environment markers in requirements are to be judged by (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @property
    def site_packages(self) -> str:
        """Where packages lie in the layer: a function on another Python does not see them, rather than half of them."""
        return f"python/lib/python{self.python}/site-packages"
