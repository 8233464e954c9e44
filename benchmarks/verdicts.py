"""How far verdicts can be trusted: the same study under many seeds, and the rules on known truth.

python benchmarks/verdicts.py [--studies autoencoder guide] [--seeds 20] [--mode quick] [--json F]

1. Every study is run with 20 seeds. Of each claim: the share of verdicts that agree with the
   majority, and whether any two seeds say *reproduced* and *not reproduced*.
2. The rules alone, on simulated repetitions: every claim true as expected, and every claim false
   by twice its margin. How often is the verdict false?
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchlab.app import study as app
from batchlab.report import figures
from batchlab.studies import catalogue
from batchlab.studies.claim import Claim, Statistic
from batchlab.studies.verdict import Outcome, judge
from batchlab.types import to_plain

DRAWS = 2000
AGREE = 0.95


def main() -> None:
    """Print both tables; exit 1 if a verdict flips or fewer than 95 % agree."""
    options = _parser().parse_args()
    names = options.studies or list(catalogue.BUILTIN)
    repeated = [row for name in names for row in repeats(name, options)]
    known = [row for name in names for row in on_known_truth(name, options.mode)]
    _show(repeated, known)
    if options.json:
        options.json.write_text(json.dumps(to_plain({"seeds": repeated, "known": known})))
    share = _agreement(repeated)
    if share < AGREE or any(row["flips"] for row in repeated):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", nargs="*")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--mode", default="quick", choices=("quick", "full"))
    parser.add_argument("--out", type=Path, help="keep the results here, and go on from them")
    parser.add_argument("--json", type=Path)
    return parser


def repeats(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The verdicts of a study under many seeds, a row a claim."""
    figures.write = lambda charts, folder: ()  # pictures as files are not judged
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = options.out or Path(scratch)
        for seed in range(options.seeds):
            out = root / f"{name}-{options.mode}-{seed}"
            report = app.study(name, mode=options.mode, seed=seed, out=out, resume=True)
            print(f"{name}, seed {seed}: {report.seconds:.0f} s", flush=True)
            for found in report.verdicts:
                if found.verdict is not Outcome.MEASURED:
                    outcomes.setdefault(found.id, []).append(found.verdict)
    return [_agreed(name, claim, found) for claim, found in outcomes.items()]


def _agreed(name: str, claim: str, found: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter(found)
    (majority, agree), *_ = counts.most_common()
    flips = counts[Outcome.REPRODUCED] > 0 and counts[Outcome.NOT_REPRODUCED] > 0
    return {
        "study": name,
        "claim": claim,
        "majority": majority,
        "agree": agree,
        "n": len(found),
        "flips": flips,
    }


def _agreement(rows: Sequence[dict[str, Any]]) -> float:
    return sum(row["agree"] for row in rows) / max(1, sum(row["n"] for row in rows))


def on_known_truth(name: str, mode: Any) -> list[dict[str, Any]]:
    """False verdicts on repetitions drawn where the truth is known, a row a claim."""
    found, _ = catalogue.load(name)
    rng = np.random.default_rng(0)
    claims = [c for c in found.claims(found.parameters[mode]) if not c.finding]
    return [
        {
            "study": name,
            "claim": claim.id,
            "false negatives": _share(claim, claim.expected, Outcome.NOT_REPRODUCED, rng),
            "false positives": _share(claim, _outside(claim), Outcome.REPRODUCED, rng),
            "reproduced if true": _share(claim, claim.expected, Outcome.REPRODUCED, rng),
            "n": DRAWS,
        }
        for claim in claims
    ]


def _outside(claim: Claim) -> float:
    """A truth that is false by twice the margin.

    A range of two ends is number ± margin; of one end, the margin is the distance from the
    expected value to it.
    """
    if math.isfinite(claim.low) and math.isfinite(claim.high):
        middle, margin = (claim.low + claim.high) / 2, (claim.high - claim.low) / 2
        wanted = middle + 2 * margin
        share = claim.statistic is Statistic.SHARE
        return max(0.0, middle - 2 * margin) if share and wanted > 1 else wanted
    end = claim.low if math.isfinite(claim.low) else claim.high
    return end - (claim.expected - end)


def _share(claim: Claim, truth: float, wanted: Outcome, rng: np.random.Generator) -> float:
    hits = 0
    for _ in range(DRAWS):
        if claim.statistic is Statistic.SHARE:
            values = (rng.random(claim.n) < truth).astype(float)
        else:
            values = rng.normal(truth, claim.spread, claim.n)
        hits += judge(claim, values).verdict is wanted
    return hits / DRAWS


def _show(repeated: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> None:
    for row in repeated:
        flips = "  FLIPS" if row["flips"] else ""
        print(
            f"{row['study']:14} {row['claim']:34} {row['majority']!s:15} "
            f"{row['agree']:3d} of {row['n']}{flips}"
        )
    print(f"agree with the majority: {_agreement(repeated):.1%}")
    print(f"\non known truth, {DRAWS} draws a claim: false and true verdicts")
    for row in known:
        print(
            f"{row['study']:14} {row['claim']:34} not reproduced though true "
            f"{row['false negatives']:.2%}  reproduced though false "
            f"{row['false positives']:.2%}  reproduced if true {row['reproduced if true']:.1%}"
        )


if __name__ == "__main__":
    main()
