"""Files written whole, locks that die with their process, memory limits of many machines."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchlab import _platform
from batchlab._platform import DirectoryLock, MemoryLimit, memory_limit, parse_bytes, write_whole
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, UserError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
SRC = Path(__file__).parents[1] / "src"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("1", 1),
        ("512", 512),
        ("2GiB", 2 * 2**30),
        ("2 gib", 2 * 2**30),
        ("2G", 2 * 2**30),
        ("2GB", 2 * 10**9),
        ("1.5k", 1536),
        ("0.5TiB", 2**39),
        ("100 MB", 10**8),
    ],
)
def test_amounts_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "0", "-1", "2 XB", "1e3", "0.1b", "2GiB2", 0, -5])
def test_nonsense_is_no_amount(text):
    with pytest.raises(InvalidValueError, match="`margin` must be an amount of memory"):
        parse_bytes(text, "margin")


@pytest.mark.wrong_type
@pytest.mark.parametrize("value", [True, 1.5, None])
def test_other_types_are_no_amount(value):
    with pytest.raises(InvalidTypeError, match="`memory_limit` must be bytes or text"):
        parse_bytes(value)


# Files


@pytest.mark.parametrize("content", ["line\nline\r\n日本", b"\x00\xff", ""])
def test_a_file_holds_exactly_what_was_written(tmp_path, content):
    path = tmp_path / "a folder 日本" / "file"
    write_whole(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResultError, match=r"Cannot write .*file: No space left .* --resume"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")
    seen, fsync = [], os.fsync

    def look(descriptor):
        seen.append(path.read_text())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_whole(path, "new")
    assert seen[0] == "old"
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    write_whole(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode


# Locks

HOLD = """
import sys, time
from pathlib import Path
from batchlab._platform import DirectoryLock
with DirectoryLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_directory_is_held_by_one_process(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(ResultError, match="is in use by another run"), DirectoryLock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_directory_that_cannot_be_locked_is_not_said_to_be_in_use(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_platform, "_lock", refuse)
    with (
        pytest.raises(ResultError, match=r"cannot be locked \(No locks available\)"),
        DirectoryLock(tmp_path),
    ):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with DirectoryLock(tmp_path):
        pass


def test_a_directory_is_held_once_in_one_process(tmp_path):
    with DirectoryLock(tmp_path):
        with pytest.raises(ResultError, match="choose another --out"), DirectoryLock(tmp_path):
            pass
    with DirectoryLock(tmp_path):
        pass


def test_a_lock_makes_its_directory(tmp_path):
    with DirectoryLock(tmp_path / "new" / "out"):
        assert (tmp_path / "new" / "out").is_dir()


def test_a_lock_is_released_on_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="planted"), DirectoryLock(tmp_path):
        raise RuntimeError("planted")
    with DirectoryLock(tmp_path):
        pass


# Memory limits, on machines made of files


def machine(root, *, available=None, membership="", files=None):
    """A /proc and a /sys/fs/cgroup."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "cgroup").mkdir()
    if available is not None:
        text = f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n"
        (root / "proc" / "meminfo").write_text(text)
    (root / "proc" / "self" / "cgroup").write_text(membership)
    for name, content in (files or {}).items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return {"proc": root / "proc", "cgroup": root / "cgroup"}


GIB = 2**30
NO_LIMIT_V1 = 9223372036854771712


def test_the_machine_binds(tmp_path):
    found = memory_limit(**machine(tmp_path, available=3 * GIB))
    assert found == MemoryLimit(3 * GIB, "memory available on the machine")


def test_what_is_given_binds_if_it_is_less(tmp_path):
    there = machine(tmp_path, available=3 * GIB)
    assert memory_limit("1GiB", **there) == MemoryLimit(GIB, "--memory-limit")
    assert memory_limit("9GiB", **there).source == "memory available on the machine"


def test_a_version_2_group_binds_by_what_it_has_left(tmp_path):
    files = {
        "a/b/memory.max": 2 * GIB,
        "a/b/memory.current": GIB,
        "a/b/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
    }
    there = machine(tmp_path, available=8 * GIB, membership="0::/a/b\n", files=files)
    found = memory_limit(**there)
    assert found == MemoryLimit(GIB + GIB // 4, "limit of the control group (container)")


def test_a_version_1_group_binds(tmp_path):
    files = {
        "memory/job/memory.limit_in_bytes": 4 * GIB,
        "memory/job/memory.usage_in_bytes": GIB,
        "memory/memory.limit_in_bytes": NO_LIMIT_V1,
    }
    membership = "5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n"
    there = machine(tmp_path, available=8 * GIB, membership=membership, files=files)
    assert memory_limit(**there).bytes == 3 * GIB


@pytest.mark.parametrize("where", ["outer", "outer/inner"])
def test_the_tightest_group_on_the_way_up_binds(tmp_path, where):
    files = {"outer/inner/memory.max": 6 * GIB, "outer/memory.max": 6 * GIB}
    files[f"{where}/memory.max"] = 2 * GIB
    there = machine(tmp_path, available=8 * GIB, membership="0::/outer/inner\n", files=files)
    assert memory_limit(**there).bytes == 2 * GIB


def test_a_path_of_the_host_that_the_container_does_not_see_leaves_the_mount(tmp_path):
    files = {"memory.max": GIB, "memory.current": 0}
    membership = "0::/docker/not-visible\n"
    there = machine(tmp_path, available=8 * GIB, membership=membership, files=files)
    assert memory_limit(**there).bytes == GIB


def test_a_group_without_limit_does_not_bind(tmp_path):
    files = {"memory.max": "max\n", "memory/memory.limit_in_bytes": NO_LIMIT_V1}
    there = machine(tmp_path, available=5 * GIB, membership="4:memory:/\n0::/\n", files=files)
    assert memory_limit(**there).source == "memory available on the machine"


def test_a_full_group_leaves_at_least_a_byte(tmp_path):
    files = {"memory.max": GIB, "memory.current": 2 * GIB}
    there = machine(tmp_path, available=8 * GIB, membership="0::/\n", files=files)
    assert memory_limit(**there).bytes == 1


def test_a_machine_that_says_nothing_has_no_limit(tmp_path):
    found = memory_limit(proc=tmp_path, cgroup=tmp_path)
    assert found.bytes == 0
    assert str(found).startswith("unknown (")
    assert memory_limit("1GiB", proc=tmp_path, cgroup=tmp_path).bytes == GIB


@pytest.mark.parametrize(("system", "name"), [("darwin", "macOS"), ("win32", "Windows")])
def test_other_systems_say_that_memory_cannot_be_measured(monkeypatch, system, name):
    monkeypatch.setattr(sys, "platform", system)
    assert name in _platform.memory_unavailable(system)
    monkeypatch.setattr(_platform, "memory_unavailable", lambda: "it cannot be measured here")
    with pytest.raises(UserError, match="It cannot be measured here"):
        _platform.peak_rss()


# Cores


def test_a_quota_counts_whole_cores(tmp_path):
    there = machine(tmp_path, membership="0::/\n", files={"cpu.max": "50000 100000\n"})
    assert _platform.available_cores(**there) == 1


def test_a_version_1_quota_counts(tmp_path):
    files = {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 100000}
    there = machine(tmp_path, membership="3:cpu:/\n", files=files)
    assert _platform.available_cores(**there) == 1


def test_without_a_quota_the_affinity_counts(tmp_path):
    there = machine(tmp_path, membership="0::/\n", files={"cpu.max": "max 100000\n"})
    assert _platform.available_cores(**there) == _platform.available_cores()


def test_two_threads_of_a_core_are_one(tmp_path):
    there = machine(tmp_path)["proc"]
    pairs = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0)]
    blocks = [
        f"processor: {i}\nphysical id : {p}\ncore id : {c}" for i, (p, c) in enumerate(pairs)
    ]
    (there / "cpuinfo").write_text("\n\n".join(blocks) + "\n\n")
    assert _platform.physical_cores(proc=there) == 3


# This process


@linux
def test_the_peak_follows_what_was_used_since_the_reset():
    def use(size):
        return bytearray(os.urandom(1)) * size

    assert _platform.reset_peak_rss()
    base = _platform.peak_rss()
    block = use(64 * 2**20)
    del block
    assert _platform.peak_rss() - base >= 60 * 2**20
    _platform.reset_peak_rss()
    assert _platform.peak_rss() - base < 60 * 2**20


GUARDED = """
from batchlab import _platform
assert _platform.limit_data(64 * 2**20)
assert _platform.be_first_killed()
assert open("/proc/self/oom_score_adj").read() == "1000\\n"
bytearray(32 * 2**20)
try:
    bytearray(128 * 2**20)
except MemoryError:
    print("refused")
"""


@linux
def test_a_guarded_process_gets_no_more_memory():
    done = subprocess.run(
        [sys.executable, "-c", GUARDED],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "refused\n", done.stderr


ORPHAN = """
import os, subprocess, sys, time
code = "import os, signal, sys, time; from batchlab import _platform; " \\
       "signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
       "sys.platform = sys.argv[2]; " \\
       "_platform.die_with_parent(int(sys.argv[1])); " \\
       "print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code, str(os.getpid()), sys.argv[1]])
time.sleep(600)
"""


@linux
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_a_worker_ends_with_its_parent_though_it_ignores_signals(system):
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, system],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(200):
        if not is_running(child):
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


WATCHED = """
import os, sys
from batchlab import _platform
_platform._end_without(os.getppid() + int(sys.argv[1]), seconds=0.01)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process keeps its parent's number there")
def test_a_process_that_looks_for_its_parent_ends_only_without_it():
    places = os.environ | {"PYTHONPATH": str(SRC)}
    own, other = (
        subprocess.Popen([sys.executable, "-c", WATCHED, away], env=places) for away in "01"
    )
    try:
        assert other.wait(timeout=60.0) == 1
        assert own.poll() is None
    finally:
        for child in (own, other):
            child.kill()
            child.wait()


def is_running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


CEILING = """
from batchlab import _platform
with _platform.data_limited(_platform.data_size() + 64 * 2**20):
    bytearray(32 * 2**20)
    try:
        bytearray(128 * 2**20)
    except MemoryError:
        print("refused")
    try:
        with _platform.data_limited(_platform.data_size() + 2**40):
            bytearray(128 * 2**20)
    except MemoryError:
        print("refused")
bytearray(128 * 2**20)
with _platform.data_limited(None):
    bytearray(128 * 2**20)
print("allowed")
"""


@linux
def test_a_ceiling_holds_for_a_while_and_never_lifts_another():
    done = subprocess.run(
        [sys.executable, "-c", CEILING],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["refused", "refused", "allowed"], done.stderr


@linux
def test_memory_that_was_freed_is_returned():
    # Blocks this small lie on the heap, which the C library keeps as long as its end is in use.
    blocks = [b"x" * 100_000 for _ in range(1000)]
    last = b"x" * 100_000
    blocks.clear()
    kept = _platform.current_rss()
    _platform.return_free_memory()
    assert kept - _platform.current_rss() > 60 * 2**20
    assert last
