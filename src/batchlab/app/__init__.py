"""Run, then render: each command as a function."""

from batchlab.app.advise import advise, dry_run, render
from batchlab.app.compare import compare
from batchlab.app.measure import fit, noise
from batchlab.app.plan import plan

__all__ = ["advise", "compare", "dry_run", "fit", "noise", "plan", "render"]
