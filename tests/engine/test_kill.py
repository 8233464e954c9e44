"""Killed at any moment, a sweep goes on to the same result."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_killed_sweep_resumes_to_the_same_result():
    """One kill of each executor; `benchmarks/kill.py` without arguments does fifty."""
    script = str(ROOT / "benchmarks" / "kill.py")
    done = subprocess.run(
        [sys.executable, script, "--trials", "2", "--updates", "150"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills, 0 failures" in done.stdout
