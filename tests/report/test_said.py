"""The record's English sentences are known in Japanese."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

import batchlab
from batchlab._text import verbatim
from batchlab.config import RunConfig
from batchlab.report import said
from batchlab.tasks import Task, prepare

FIELDS = {"rule": "adamw", "batch_size": 8, "learning_rate": 0.1, "momentum": 0.9, "samples": 100}
KNOWN = (
    "one run of today's settings takes about 3 hours, longer than the budget: this goes no "
    "further than a projection",
    "without --budget this stops after stage A; expected: stage A about 4 s",
    "today's batch size is a schedule (0:16 1ep:64): the short run, the search over batch sizes "
    "and the pilots compare with 16 throughout, whole trainings with the schedule itself",
    "batch size 512 is left out: the largest that ran is 256",
    "batch size 512 is not searched: by speed and noise scale it would take 3.1 times as long",
    "batch size 512 is left out of the search: the budget does not pay for it",
    "today's settings diverge: nothing can be compared with them; try a smaller learning rate in "
    "the baseline",
    "the search over all settings is left out: the budget does not pay for its first generation, "
    "about 3 minutes",
    "γ is not tuned: the model cannot be trained with one: TaskError: its output is no tensor",
    "a run has too few updates for learning rates to be compared",
    "no candidate did as well as today's settings in the search: nothing to confirm",
    "more than one in five runs of today's settings diverged, so that there is no target: name "
    "one with --target",
    "8 more repeats on fresh seeds",
)
OF_A_TRAINER = (
    "the learning rate is multiplied by 0.1 for 12 parameters",
    "the model is trained as (f − its start)/γ with γ = 10",
    "every seed starts from the trainer's present weights; give the Trainer a model_init for "
    "fresh ones",
    "the trainer has trained before: its optimizer's memory is not taken over",
    "the model is trained and timed without torch.compile",
    "tf32=True is not set here: torch's own setting holds",
    "auto_find_batch_size is off here: the batch size is the one that is set",
    "examples are read by the process that trains (dataloader_num_workers=4 is not kept)",
    "evaluation runs in the precision of training",
    "EarlyStoppingCallback is not called: runs have their full length",
    "the callback Reporting is not called",
    "global batch size 256 = 64 (micro-batch) × 2 (accumulation steps) × 2 (devices)",
    "the trainer adds the gradients of its 128 micro-batches, as its loss is a mean whatever "
    "num_items_in_batch says; here they are averaged, with eps 1e-09, which gives the same "
    "updates",
    "the trainer drops the last 123 examples of a pass (dataloader_drop_last); here batches run "
    "on across the ends of passes",
    "the trainer's last update of a pass uses 123 examples; here batches of 128 run on across "
    "the ends of passes",
    "the trainer gives one loss for a batch: gradients of single examples are not available, and "
    "the noise scale comes from micro-batches, with a wider range",
    "the validation loss is the mean over all labels; the trainer's is the mean of its batches' "
    "means",
    "the trainer averages the means of its micro-batches; here every label of a batch counts the "
    "same",
)


def japanese(sentence: str) -> str:
    found = said.both(sentence)
    assert found.en == verbatim(sentence)
    return found.ja


@pytest.mark.parametrize("left_out", list(FIELDS))
def test_what_a_recipe_leaves_out_is_said_in_japanese(left_out: str) -> None:
    given = {name: value for name, value in FIELDS.items() if name != left_out}
    (sentence,) = RunConfig(**given).assumptions()
    assert re.search(r"学習手順に.+の指定がないため", japanese(sentence))


def test_what_a_task_leaves_out_is_said_in_japanese() -> None:
    x = torch.randn(100, 3)
    task = Task(
        lambda: torch.nn.Linear(3, 1),
        (x, x[:, :1]),
        loss=lambda out, batch: mse_loss(out, batch[1], reduction="none").mean(-1),
        baseline=RunConfig(**FIELDS),
    )
    held, metric = prepare(task, device="cpu").assumptions
    assert japanese(held) == "検証データがないため、学習データ100件のうち15件を検証用に分けた"
    assert "検証データでの損失" in japanese(metric)


@pytest.mark.parametrize("sentence", KNOWN + OF_A_TRAINER)
def test_what_the_measurement_says_of_itself_is_said_in_japanese(sentence: str) -> None:
    assert re.search("[ぁ-ん]", japanese(sentence))
    assert all(number in japanese(sentence) for number in re.findall(r"\d{3}", sentence))


def test_an_unknown_sentence_stays_as_it_is() -> None:
    assert said.both("the loss is **mine**").ja == said.both("the loss is **mine**").en


SOURCE = Path(batchlab.__file__).parent
TELLS = re.compile(r"(session\.listener|_fleet|fleet)\.say|self\._said\.append")
"""Calls whose sentence ends in an advice's record."""


def told() -> Iterator[ast.expr]:
    """What is said by every such call."""
    for folder in ("advisor", "engine", "cluster"):
        for path in sorted((SOURCE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and TELLS.search(ast.unparse(node.func)):
                    yield node.args[0]


def literal(expression: ast.expr) -> str | None:
    """The sentence with 3 in every gap; None where it is not written at the call."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    if not isinstance(expression, ast.JoinedStr):
        return None
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "3" for part in expression.values
    )


SENTENCES = sorted(text for expression in told() if (text := literal(expression)) is not None)


def test_the_program_s_own_sentences_are_found() -> None:
    assert len(SENTENCES) > 8


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_sentence_in_the_program_is_known_in_japanese(sentence: str) -> None:
    assert re.search("[ぁ-ん]", japanese(sentence)), "add it to report/said.py"


@pytest.mark.parametrize(
    ("english", "japanese_"),
    [
        ("3 hours", "3時間"),
        ("1.5 minutes", "1.5分"),
        ("stage A about 4 seconds, stage B about 2.5 minutes", "段階A 約4秒、段階B 約2.5分"),
        ("batches that grow about 20 seconds", "増やしていくバッチ 約20秒"),
    ],
)
def test_times_and_stages_within_a_sentence_are_said_in_japanese(english, japanese_) -> None:
    sentence = f"without --budget this stops after stage A; expected: {english}"
    assert japanese(sentence).endswith(f"（見込み：{japanese_}）")
