"""What training is predicted to hold is near what a process of its own takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = Path(__file__).resolve().parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_predicted_peak_is_within_a_fifth_of_what_a_process_takes():
    """One sweep of the table, an eager stack; the script measures all of them three times."""
    command = [sys.executable, str(MEMORY), "--one", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    predicted, measured = json.loads(said.stdout.splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.2)
