"""What this machine offers to a measurement, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass

import torch

from batchlab import _platform
from batchlab._platform import MemoryLimit

COMPILERS = ("c++", "g++", "clang++", "cl")
PACKAGES = ("torch", "numpy", "scipy", "polars", "altair", "scikit-learn", "loky")


@dataclass(frozen=True)
class Doctor:
    """The state of this machine.

    Attributes:
        system: Operating system and processor architecture.
        device: What ``--device auto`` takes, in words.
        cores: Processor cores this process may use.
        physical_cores: Cores of the machine, two threads of one core counted once.
        threads: Threads torch uses now.
        memory: Memory that may be used now, and what says so.
        compiler: Path of a C++ compiler, or None.
        versions: Package → version; absent packages are left out.
        missing: Packages of ``batchlab[advise]`` that are not installed.
        unavailable: What cannot be measured here, one sentence each.
    """

    system: str
    device: str
    cores: int
    physical_cores: int
    threads: int
    memory: MemoryLimit
    compiler: str | None
    versions: dict[str, str]
    missing: tuple[str, ...]
    unavailable: tuple[str, ...]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            ("system", self.system),
            ("device", self.device),
            ("cores", f"{self.cores} usable, {self.physical_cores} physical"),
            ("threads", f"{self.threads} in torch"),
            ("memory", str(self.memory)),
            ("compiler", self.compiler or "none"),
            ("versions", versions),
            ("missing", ", ".join(self.missing) or "nothing"),
            *(("unavailable", sentence) for sentence in self.unavailable),
        ]
        return "\n".join(f"{name:<12}{text}" for name, text in lines)


def doctor(memory_limit: int | str | None = None) -> Doctor:
    """Look at this machine. Changes nothing.

    Args:
        memory_limit: A limit the user would give, such as ``"2GiB"``.

    Returns:
        A record whose ``str`` is a table to read.

    Raises:
        InvalidValueError: If the limit is not an amount of memory.

    Example:
        >>> doctor("1MiB").memory
        MemoryLimit(bytes=1048576, source='--memory-limit')
    """
    versions = _versions()
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    return Doctor(
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        device=_device(),
        cores=_platform.available_cores(),
        physical_cores=_platform.physical_cores(),
        threads=torch.get_num_threads(),
        memory=_platform.memory_limit(memory_limit),
        compiler=compiler,
        versions=versions,
        missing=tuple(name for name in PACKAGES if name not in versions),
        unavailable=_unavailable(compiler, _platform.memory_unavailable()),
    )


def _device() -> str:
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"cuda: {torch.cuda.get_device_name(0)}{f', {count} of them' if count > 1 else ''}"
    return "cpu"


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _unavailable(compiler: str | None, memory: str) -> tuple[str, ...]:
    """What cannot be done here, one sentence each."""
    said = []
    if memory:
        said.append(f"{memory[0].upper()}{memory[1:]}: `fit` only checks that the baseline runs.")
    if compiler is None:
        said.append("Without a C++ compiler stacked runs are not compiled: slower, same results.")
    if not torch.cuda.is_available():
        said.append("There is no CUDA device: nothing about a GPU can be measured here.")
    return tuple(said)
