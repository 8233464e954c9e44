"""What importing batchlab adds to importing torch: the core must stay light.

    python benchmarks/imports.py --repeats 9

Each repeat starts two fresh processes, one after the other, and reads the time of the imports
inside; the medians are compared. The aim is at most 0.2 s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

AIM_SECONDS = 0.2
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
BARE = "import torch"
WHOLE = "import torch, batchlab, batchlab.optim, batchlab.data; batchlab.RunConfig"


def seconds(statement: str) -> float:
    """Of a statement in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Print both medians and what is added."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    repeats = options.repeats
    seconds(WHOLE)  # compiles the modules
    pairs = [(seconds(BARE), seconds(WHOLE)) for _ in range(repeats)]
    bare, whole = (median(side) for side in zip(*pairs, strict=True))
    added = median(b - a for a, b in pairs)
    print(f"torch {bare:.2f} s, with batchlab {whole:.2f} s: {added:.3f} s more (n = {repeats})")
    if options.json:
        facts = {"torch": bare, "whole": whole, "added": added, "n": repeats}
        options.json.write_text(json.dumps(facts, indent=1))
    print(f"aim: at most {AIM_SECONDS} s; {'met' if added <= AIM_SECONDS else 'missed'}")
    return int(added > AIM_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
