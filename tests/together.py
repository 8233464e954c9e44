"""Runs a program in two processes that train together, on the CPU; a hang fails."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
SECONDS = 480
"""After that, a process that waits for another is a failure."""

BEGIN = """
import datetime, json, os, sys
import torch
import torch.distributed as dist

RANK, SIZE, MEETING = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=MEETING, rank=RANK, world_size=SIZE,
                        timeout=datetime.timedelta(seconds=120))
FACTS = {}

"""

END = """

print(json.dumps(FACTS))
dist.destroy_process_group()
"""


def together(program, folder, size=2, killed=()):
    """What each process put into ``FACTS``; None of those that kill themselves. They meet in a
    file, so no port has to be free.
    """
    script = folder / "program.py"
    script.write_text(BEGIN + program + END, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    if sys.platform.startswith("linux"):
        env["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = f"file://{folder / 'meeting'}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(size), meeting],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, process in enumerate(processes):
        code = -signal.SIGKILL if rank in killed else 0
        assert process.returncode == code, "\n".join(said for _, said in outputs)
    return [
        None if rank in killed else json.loads(out.splitlines()[-1])
        for rank, (out, _) in enumerate(outputs)
    ]
