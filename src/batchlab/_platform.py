"""What differs between operating systems: whole files, locks, memory limits, cores.

The only module with guarded imports. Linux comes first; what another system lacks is said in a
sentence.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType

from batchlab.errors import (
    InvalidTypeError,
    InvalidValueError,
    ResultError,
    UserError,
    cannot_read,
    must,
)

try:
    import fcntl
    import resource
except ImportError:  # Windows has neither
    fcntl = None
    resource = None
try:
    import msvcrt
except ImportError:  # everything but Windows
    msvcrt = None

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
LOCK_NAME = ".lock"
UNITS = {
    "": 1, "b": 1,
    "k": 2**10, "kib": 2**10, "kb": 10**3,
    "m": 2**20, "mib": 2**20, "mb": 10**6,
    "g": 2**30, "gib": 2**30, "gb": 10**9,
    "t": 2**40, "tib": 2**40, "tb": 10**12,
}  # fmt: skip


@dataclass(frozen=True)
class MemoryLimit:
    """How many bytes a measurement may use, and what says so.

    Attributes:
        bytes: Bytes free for use, 0 where the system does not tell.
        source: What bound it, in words.

    Example:
        >>> print(MemoryLimit(2**31, "--memory-limit"))
        2.0 GiB (--memory-limit)
    """

    bytes: int
    source: str

    def __str__(self) -> str:
        if not self.bytes:
            return f"unknown ({self.source})"
        return f"{format_bytes(self.bytes)} ({self.source})"


def parse_bytes(amount: int | str, name: str = "memory_limit") -> int:
    """Read an amount of memory.

    KiB, MiB, GiB, TiB and plain K, M, G, T are powers of 1024; kB, MB, GB, TB powers of 1000.

    Args:
        amount: Bytes, or text such as ``"2GiB"``.
        name: The argument's name for the error.

    Returns:
        Bytes, at least 1.

    Raises:
        InvalidValueError: If the text is not an amount above 0.
        InvalidTypeError: If it is neither a whole number nor text.

    Example:
        >>> parse_bytes("1.5GiB"), parse_bytes("2GB"), parse_bytes(4096)
        (1610612736, 2000000000, 4096)
    """
    if isinstance(amount, bool) or not isinstance(amount, int | str):
        raise InvalidTypeError(must(name, "bytes or text such as '2GiB'", amount))
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(amount).lower())
    unit = UNITS.get(found[2]) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size < 1:
        raise InvalidValueError(must(name, "an amount of memory such as '2GiB'", amount))
    return size


def format_bytes(size: float) -> str:
    """Write an amount of memory for people.

    Args:
        size: Bytes.

    Returns:
        Text with a binary unit.

    Example:
        >>> format_bytes(512), format_bytes(3 * 2**20), format_bytes(-2**30)
        ('512 B', '3.0 MiB', '-1.0 GiB')
    """
    power = min(4, int(math.log2(abs(size)) // 10)) if abs(size) >= 1 else 0
    if power == 0:
        return f"{size:.0f} B"
    return f"{size / 2 ** (10 * power):.1f} {'KMGT'[power - 1]}iB"


def is_running(process: int) -> bool:
    """Whether a process of this machine runs; one that may not be asked about does.

    Example:
        >>> is_running(os.getpid())
        True
    """
    if sys.platform == "win32":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


DAMAGED = ".damaged"
UNFINISHED = ".batchlab-"
"""How the names of files begin that are not whole yet."""


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes had begun to write, in a folder that nobody else writes to.

    Args:
        folder: With everything in it; need not exist.
    """
    for path in Path(folder).rglob(f"{UNFINISHED}*.tmp"):
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename.

    Args:
        path: The file; missing folders are made.
        content: Text (written as UTF-8, line ends as they are) or bytes.

    Raises:
        ResultError: If the system cannot write it; what was there before is left as it was.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_whole(folder / "new" / "a.txt", "日本")
        >>> (folder / "new" / "a.txt").read_text(encoding="utf-8")
        '日本'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, data)
    except OSError as error:
        hint = (
            "What is finished is kept: make room or let it be written, then give the command "
            "again, with --resume if it has one."
        )
        raise ResultError(f"Cannot write {path}: {error.strerror or error}. {hint}") from error
    _sync_folder(path.parent)


def _write_whole(path: Path, data: bytes | memoryview) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _usual_permissions(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_whole(path: Path) -> bytes:
    """Read a file that may be damaged, so that what the system refuses is not taken for damage.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If it is not there.
        ResultError: If the system cannot read it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_read(path, error.strerror or str(error)) from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that it is kept and not read again.

    Args:
        path: It; its suffix becomes ``.damaged1``, or 2, 3 …

    Returns:
        Where it is kept.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"
        >>> _ = file.write_text("{half")
        >>> set_aside(file).name, kept_as(file).name, file.exists()
        ('a.damaged1', 'a.damaged1', False)
    """
    return path.rename(path.with_suffix(f"{DAMAGED}{max(_aside(path), default=0) + 1}"))


def kept_as(path: Path) -> Path:
    """Where a file or folder is kept that was set aside last, perhaps by another process.

    Args:
        path: It, as it was called.
    """
    kept = _aside(path)
    return kept[max(kept)]


def _aside(path: Path) -> dict[int, Path]:
    """What was set aside of a file or folder, by its number."""
    begin = f"{path.stem}{DAMAGED}"
    return {
        int(found.name.removeprefix(begin)): found
        for found in path.parent.iterdir()
        if found.name.startswith(begin) and found.name.removeprefix(begin).isdecimal()
    }


class DirectoryLock:
    """Hold a directory for one process, by a lock of the operating system.

    The lock goes when the process dies, however it dies. The file ``.lock`` stays and means
    nothing by itself.

    Args:
        path: The directory; it is made if missing.
        choose: What to choose instead where it cannot be had.

    Raises:
        ResultError: On entering, if it cannot be written to, or another process (or another part
            of this one) holds it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with DirectoryLock(Path(folder)):
        ...     pass
    """

    def __init__(self, path: Path, choose: str = "another --out") -> None:
        self.path, self._choose = Path(path), choose
        self._close: weakref.finalize[..., DirectoryLock] | None = None

    def __enter__(self) -> DirectoryLock:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ResultError(
                f"`{self.path}` cannot be written to ({error.strerror}): choose {self._choose}."
            ) from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                what = "is in use by another run: wait for it to end, or choose"
            else:
                what = f"cannot be locked ({error.strerror}): choose"
            raise ResultError(f"`{self.path}` {what} {self._choose}.") from error
        self._close = weakref.finalize(self, os.close, descriptor)
        HELD[self.path.resolve()] = self
        remove_unfinished(self.path)
        return self

    def release(self) -> None:
        """Let others have it."""
        if self._close is not None and self._close.alive:
            self._close()
            HELD.pop(self.path.resolve(), None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


HELD: weakref.WeakValueDictionary[Path, DirectoryLock] = weakref.WeakValueDictionary()
"""The directories that this process holds: what the system knows of it and does not tell."""


def hold(path: Path) -> DirectoryLock:
    """The lock of a directory that this process may hold already, as a command holds that of its
    engine; it lasts as long as the longest of its holders.

    Args:
        path: The directory.

    Raises:
        ResultError: If another process holds it, or it cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> hold(folder) is hold(folder), folder.resolve() in HELD
        (True, False)
        >>> with DirectoryLock(folder) as lock:
        ...     hold(folder) is lock
        True
    """
    return HELD.get(path.resolve()) or DirectoryLock(path).__enter__()


def memory_limit(
    limit: int | str | None = None, *, proc: Path = PROC, cgroup: Path = CGROUP
) -> MemoryLimit:
    """Bytes that may be used now: the least of what is given, the cgroup and the machine.

    min(given, min over control groups of (limit − use), MemAvailable). Use leaves out inactive
    file pages, which the kernel gives back when asked.

    Args:
        limit: Bytes or text such as ``"2GiB"``; None leaves it to the machine.
        proc: Where the process file system is mounted.
        cgroup: Where the control groups are mounted.

    Returns:
        The limit with the name of what bound it; 0 bytes where the system does not tell.

    Example:
        >>> memory_limit("1MiB")
        MemoryLimit(bytes=1048576, source='--memory-limit')
    """
    found = [MemoryLimit(parse_bytes(limit), "--memory-limit")] if limit is not None else []
    found += _available(proc / "meminfo")
    found += _cgroup_limits(proc / "self" / "cgroup", cgroup)
    if not found:
        return MemoryLimit(0, memory_unavailable() or "the system does not tell a limit")
    return min(found, key=lambda candidate: candidate.bytes)


def memory_unavailable(system: str = sys.platform) -> str:
    """Why the memory of a CPU run cannot be measured on this system, or an empty text.

    Args:
        system: ``sys.platform``.

    Returns:
        A clause, or nothing where it can be measured.

    Example:
        >>> memory_unavailable("linux")
        ''
        >>> memory_unavailable("win32")
        'the memory of a CPU run cannot be measured on Windows'
    """
    if system.startswith("linux"):
        return ""
    name = {"darwin": "macOS", "win32": "Windows"}.get(system, system)
    return f"the memory of a CPU run cannot be measured on {name}"


def current_rss() -> int:
    """Resident memory of this process, bytes.

    Raises:
        UserError: Where the system does not tell.
    """
    return _status("VmRSS")


def peak_rss() -> int:
    """Largest resident memory of this process since :func:`reset_peak_rss` or its start, bytes.

    Raises:
        UserError: Where the system does not tell.
    """
    return _status("VmHWM")


def data_size() -> int:
    """Private writable memory mapped by this process, bytes: what RLIMIT_DATA counts.

    Raises:
        UserError: Where the system does not tell.
    """
    return _status("VmData")


def reset_peak_rss() -> bool:
    """Let :func:`peak_rss` start again from the memory in use now.

    Returns:
        Whether the system could; if not, the peak is over the life of the process: never too
        small.
    """
    with contextlib.suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")
        return True
    return False


def return_free_memory() -> bool:
    """Give the system what this process has freed but still holds; the C library keeps it else.

    Returns:
        Whether the C library could.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return bool(trim(0)) if trim is not None else False


def limit_data(size: int) -> bool:
    """Let this process map at most ``size`` more bytes of private memory; more fails.

    Args:
        size: Bytes on top of what is mapped now.

    Returns:
        Whether the system could.
    """
    if resource is None or memory_unavailable():
        return False
    _limit_data_to(data_size() + size)
    return True


@contextlib.contextmanager
def data_limited(ceiling: int | None) -> Iterator[None]:
    """Inside, asking for private memory beyond a ceiling fails as it would on a full machine.

    So that a process that tries what fits is not ended for it. Nothing where the system cannot.

    Args:
        ceiling: Bytes in all, as :func:`data_size` counts them; None sets no ceiling.
    """
    if ceiling is None or resource is None or memory_unavailable():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _limit_data_to(ceiling)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _limit_data_to(ceiling: int) -> None:
    """Lower the limit on private memory, never above the limits that are there."""
    assert resource is not None
    there = resource.getrlimit(resource.RLIMIT_DATA)
    finite = [limit for limit in there if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([ceiling, *finite]), there[1]))


def memory_kills() -> int:
    """Processes that the kernel has ended for lack of memory since it started; 0 where the system
    does not tell.

    Example:
        >>> memory_kills() >= 0
        True
    """
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)", (PROC / "vmstat").read_text(), re.M)
        return int(found[1]) if found else 0
    return 0


def be_first_killed() -> bool:
    """Offer this process to the kernel as the first to end when memory runs out.

    Returns:
        Whether the system could.
    """
    with contextlib.suppress(OSError):
        (PROC / "self" / "oom_score_adj").write_text("1000")
        return True
    return False


def available_cores(*, proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Processor cores this process may use: its affinity, or the control group's quota if less.

    Args:
        proc: Where the process file system is mounted.
        cgroup: Where the control groups are mounted.

    Returns:
        At least 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for quota in _cpu_quotas(proc / "self" / "cgroup", cgroup) if quota > 0]
    return max(1, min([count, *(int(quota) for quota in quotas)]))


def physical_cores(*, proc: Path = PROC) -> int:
    """Processor cores of the machine, two threads of one core counted once.

    Args:
        proc: Where the process file system is mounted.

    Returns:
        At least 1; the logical count where the system does not tell.
    """
    with contextlib.suppress(OSError):
        blocks = (proc / "cpuinfo").read_text().split("\n\n")
        pattern = re.compile(r"^(?:physical id|core id)\s*:\s*(\d+)", re.M)
        cores = {tuple(found) for block in blocks if (found := pattern.findall(block))}
        return len(cores) or os.cpu_count() or 1
    return os.cpu_count() or 1


def _usual_permissions(path: str) -> None:
    """A temporary file is private; the finished one gets what the umask leaves."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; Windows cannot open a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock at once or raise OSError."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    if reason := memory_unavailable():
        raise UserError(f"{reason[0].upper()}{reason[1:]}.")
    found = re.search(rf"^{field}:\s+(\d+) kB", (PROC / "self" / "status").read_text(), re.M)
    if not found:
        raise UserError(f"This system does not tell a process's memory ({field}).")
    return int(found[1]) * 1024


def _available(meminfo: Path) -> list[MemoryLimit]:
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
        if found:
            return [MemoryLimit(max(1, int(found[1]) * 1024), "memory available on the machine")]
    return []


def _cgroup_limits(membership: Path, root: Path) -> list[MemoryLimit]:
    """Limit − use of the process's control group and of every group above it."""
    pairs = [("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")]
    pairs += [("memory.max", "memory.current", "inactive_file")]
    return [
        MemoryLimit(max(1, limit - use), "limit of the control group (container)")
        for folder in _cgroup_folders(membership, root, "memory")
        for limit_name, use_name, idle_name in pairs
        if (limit := _number(folder / limit_name)) is not None and limit < 2**60
        for use in [_use(folder, use_name, idle_name)]
    ]


def _use(folder: Path, use_name: str, idle_name: str) -> int:
    """Bytes in use that the kernel cannot simply drop."""
    stat = folder / "memory.stat"
    text = stat.read_text() if stat.exists() else ""
    idle = re.search(rf"^{idle_name} (\d+)", text, re.M)
    return max(0, (_number(folder / use_name) or 0) - (int(idle[1]) if idle else 0))


def _cpu_quotas(membership: Path, root: Path) -> Iterator[float]:
    """CPU quota / period of every control group above this process."""
    for folder in _cgroup_folders(membership, root, "cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            yield quota / period
        with contextlib.suppress(OSError, ValueError):
            quota_text, period_text = (folder / "cpu.max").read_text().split()
            yield int(quota_text) / int(period_text)


def _cgroup_folders(membership: Path, root: Path, controller: str) -> list[Path]:
    """This process's folders for a controller, version 2 and 1, from its own up to the mount.

    In a container the path of the host may not be visible: folders that do not exist are left out.
    """
    with contextlib.suppress(OSError):
        folders: list[Path] = []
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = root / controller if controllers else root
            parts = Path(path.lstrip("/")).parts
            folders += [base.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
        return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    return []


def _number(path: Path) -> int | None:
    """A whole number in a file; None if there is none (version 2 writes ``max`` for no limit)."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, of blocks up to 32 MiB, for its next use.

    Otherwise glibc gives the end of the heap back at every step of a training and asks for it
    again: each page then costs a fault.

    Returns:
        Whether the system could.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # another C library
        return False
    return bool(mallopt(mmap_threshold, 2**25) and mallopt(trim_threshold, 2**31 - 1))


def die_with_parent(parent: int) -> None:
    """End this process when its parent ends, whatever the user's code makes of signals. Linux does
    it at once; elsewhere a thread looks once a second. No effect on Windows, where a process keeps
    the number of a parent that is gone.

    Args:
        parent: The parent's process id, to notice a parent that has ended already.
    """
    if sys.platform.startswith("linux"):
        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    elif sys.platform != "win32":
        threading.Thread(target=_end_without, args=(parent,), daemon=True).start()


def _end_without(parent: int, seconds: float = 1.0) -> None:
    """End this process as soon as its parent is another, looking so often."""
    while os.getppid() == parent:
        time.sleep(seconds)
    os._exit(1)


def processor_name(*, proc: Path = PROC) -> str:
    """The processor in words, or the machine's architecture where it is not told.

    Returns:
        Such as ``AMD EPYC 9B14``.
    """
    with contextlib.suppress(OSError):
        for line in (proc / "cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version() -> str:
    """The installed version of batchlab; a bare source tree has none.

    Example:
        >>> bool(version())
        True
    """
    try:
        return metadata.version("batchlab")
    except metadata.PackageNotFoundError:
        return "0+source"
