"""The plain loop: exact accumulation, the rules' steps, and an apply.py that runs."""

import ast
import copy
import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from batchlab import _tree as tree
from batchlab import rules, schedules
from batchlab.config import RunConfig
from batchlab.engine import step
from batchlab.engine.capability import Capability
from batchlab.engine.job import Job
from batchlab.engine.loop import train_alone
from batchlab.errors import InvalidTypeError, TaskError
from batchlab.measure import plain
from batchlab.samplers import Stream
from batchlab.tasks import Objective, Task, load, prepare
from batchlab.tasks.task import total_weight

SRC = Path(__file__).parents[2] / "src"
EXAMPLES = 60

TASK_FILE = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from batchlab.config import RunConfig
from batchlab.tasks import Task

def make():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    def loss(outputs, batch):
        return cross_entropy(outputs, batch[1], reduction="none")
    def model():
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    return Task(model, (x[:90], y[:90]), test=(x[90:], y[90:]), loss=loss, metric="accuracy",
                baseline=RunConfig(rule="shb", batch_size=16, learning_rate=0.1, samples="4ep"))
"""


def weighted_task(least_weight=0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 3, generator=generator)
    y = torch.randn(EXAMPLES, generator=generator)
    w = torch.randint(least_weight, 5, (EXAMPLES,), generator=generator).double()
    return Task(
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)),
        {"x": x, "y": y, "w": w},
        forward=lambda model, batch: model(batch["x"])[:, 0],
        loss=lambda outputs, batch: (outputs - batch["y"]).square(),
        weight=lambda batch: batch["w"],
    )


def step_task():
    task = weighted_task(least_weight=1)

    def training_step(model, batch):
        losses = (model(batch["x"])[:, 0] - batch["y"]).square()
        return (losses * batch["w"]).sum() / batch["w"].sum()

    return Task(task.model, task.train, training_step=training_step, weight=task.weight)


def model_of(task, dtype=torch.float64):
    torch.manual_seed(0)
    return Objective(task, task.model()).to(dtype)


def gradient_of_the_whole_batch(model, batch):
    """Σwℓ/Σw written out, without anything of the package's loop."""
    model.zero_grad()
    outputs = model.module(batch["x"])[:, 0]
    losses = (outputs - batch["y"]).square()
    ((losses * batch["w"]).sum() / batch["w"].sum()).backward()
    return [p.grad.clone() for p in model.parameters()]


def accumulated(model, micro_batches, weight_of):
    model.zero_grad()
    total = sum(weight_of(batch) for batch in micro_batches)
    for batch in micro_batches:
        plain.accumulate(model, batch, total, "float64")
    return [p.grad.clone() for p in model.parameters()]


def cut(batch, size):
    count = tree.size(batch)
    return [tree.narrow(batch, s, min(s + size, count)) for s in range(0, count, size)]


def largest_difference(found, expected):
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("micro", [1, 7, 16, 25, 59, 60, 100])
@pytest.mark.parametrize("make", [weighted_task, step_task])
def test_accumulation_equals_the_full_batch(make, micro):
    task = make()
    batch = tree.to(task.train, "cpu", torch.float64)
    model = model_of(task)
    expected = gradient_of_the_whole_batch(model, batch)
    found = accumulated(model, cut(batch, micro), functools.partial(total_weight, task))
    assert largest_difference(found, expected) < 1e-12


def test_a_mean_of_means_would_not_pass():
    task = weighted_task()
    batch = tree.to(task.train, "cpu", torch.float64)
    model = model_of(task)
    expected = gradient_of_the_whole_batch(model, batch)
    parts = [gradient_of_the_whole_batch(model, part) for part in cut(batch, 25)]
    planted = [sum(gradients) / len(parts) for gradients in zip(*parts, strict=True)]
    assert largest_difference(planted, expected) > 1e-3


def numbers_of(config):
    values = {name: float(getattr(config, name)) for name in rules.Numbers._fields}
    return rules.Numbers.of(**values, dtype=torch.float64)


def follow_the_rule(config, model, batches, rate, clip_norm):
    """The rule's own definition over the same batches."""
    rule = rules.RULES[config.rule]
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    state, numbers = rule.init(params), numbers_of(config)
    for i, batch in enumerate(batches):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(params[name])
        values = gradient_of_the_whole_batch(model, batch)
        grads = dict(zip(params, values, strict=True))
        if clip_norm is not None:
            share = min(1.0, clip_norm / (float(tree.norm(grads)) + 1e-6))
            grads = tree.scale(share, grads)
        now = numbers._replace(learning_rate=numbers.learning_rate * rate(i / len(batches)))
        delta, state = rule.update(grads, state, params, now)
        params = tree.add(params, delta)
    return list(params.values())


@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize("rule", list(rules.RULES))
def test_the_loop_takes_the_rules_steps(rule, clip_norm):
    config = RunConfig(
        rule=rule,
        learning_rate=0.02,
        batch_size=12,
        weight_decay=0.01,
        nu=0.6,
        beta2=0.9,
        eps=1e-4,
    ).resolved(EXAMPLES)
    task = weighted_task()
    data = tree.to(task.train, "cpu", torch.float64)
    batches = cut(data, 12) * 3
    rate = schedules.rate_schedule("cosine", warmup=0.2)
    model = model_of(task)
    expected = follow_the_rule(config, copy.deepcopy(model), batches, rate, clip_norm)
    optimizer = plain.make_optimizer(model, config)
    weight_of = functools.partial(total_weight, task)
    for i, batch in enumerate(batches):
        multiplier = rate(i / len(batches))
        plain.update(model, optimizer, cut(batch, 5), weight_of, multiplier, clip_norm, "float64")
    assert largest_difference([p.detach() for p in model.parameters()], expected) < 1e-12


def test_every_rule_has_an_optimizer():
    assert list(plain.OPTIMIZERS) == list(rules.RULES)


def test_a_rule_without_momentum_still_makes_nesterov():
    config = RunConfig(rule="nesterov", momentum=0.0).resolved(EXAMPLES)
    optimizer = plain.make_optimizer(model_of(weighted_task()), config)
    assert not optimizer.param_groups[0]["nesterov"]


def test_an_unresolved_run_is_refused():
    with pytest.raises(InvalidTypeError, match=r"`config` must be resolved"):
        plain.make_optimizer(model_of(weighted_task()), RunConfig())


@pytest.mark.parametrize("spec", [16, "0:8 1ep:16 100:32", "0:8 3upd:24"])
def test_batches_are_those_of_the_schedule(spec):
    config = RunConfig(batch_size=spec, samples=500)
    expected = schedules.batch_schedule(spec).resolve(EXAMPLES).updates(0, 500)
    assert list(plain.batches(plain.batch_sizes(config, EXAMPLES), 500)) == list(expected)


def test_the_micro_batches_are_the_batch():
    task = prepare(weighted_task(), device="cpu")
    stream = Stream(task.examples, 3)
    parts = plain.read(task.train, stream, seen=40, size=30, micro_batch_size=8)
    indices, passes = stream.take(40, 30)
    whole = task.train.batch(indices, passes, 3)
    assert [tree.size(part) for part in parts] == [8, 8, 8, 6]
    assert torch.equal(tree.concatenate(parts)["x"], whole["x"])


def test_bfloat16_keeps_float32_parameters_and_changes_the_result():
    task = weighted_task()
    batch = tree.to(task.train, "cpu", torch.float32)
    found = {}
    for precision in ("float32", "bfloat16"):
        model = model_of(task, torch.float32)
        total = total_weight(task, batch)
        plain.accumulate(model, batch, total, precision)
        found[precision] = [p.grad for p in model.parameters()]
        assert all(g.dtype == torch.float32 for g in found[precision])
    assert 0 < largest_difference(*found.values()) < 0.1


def test_evaluation_in_pieces_is_evaluation_of_the_whole():
    task = prepare(weighted_task(), device="cpu")
    model = task.objective(0)
    values = [plain.evaluate(model, task.train, task.metric, size) for size in (1, 7, 1000)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


SHAPES = ["constant", "linear", "linear(0.1)", "cosine", "cosine(0.1)", "geometric(0.01)"]
SHAPES += [
    "inverse_sqrt",
    "inverse_sqrt(0.3)",
    "0:1 50%:0.1 75%:0.01",
    "0:0 ~9.5%:1 50%:0.1 ~75%:0.01",
]


@pytest.mark.parametrize("warmup", [0.0, 0.15])
@pytest.mark.parametrize("spec", SHAPES)
def test_the_rate_in_the_script_is_the_schedule(spec, warmup):
    config = RunConfig(lr_schedule=spec, warmup=warmup)
    namespace = {"WARMUP": warmup}
    exec(
        "from __future__ import annotations\nimport math\n" + plain._rate_source(config), namespace
    )
    expected = schedules.rate_schedule(spec, warmup=warmup)
    shares = [i / 100 for i in range(101)]
    assert [namespace["rate"](s) for s in shares] == pytest.approx([expected(s) for s in shares])


def script(path, **changes):
    task = load(f"{path}:make")
    prepared = prepare(task, device="cpu")
    config = prepared.baseline.replace(**changes)
    return plain.apply_script(
        config, task.origin, examples=prepared.examples, micro_batch_size=6, device="cpu"
    )


def run(path, *, cwd):
    environment = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_apply_runs_and_trains_as_the_loop_does(tmp_path):
    folder = tmp_path / "my task 日本"
    folder.mkdir()
    path = folder / "mine.py"
    path.write_text(TASK_FILE, encoding="utf-8")
    changes = {"lr_schedule": "cosine", "warmup": 0.1, "batch_size": "0:8 1ep:16"}
    changes |= {"rate_growth": 0.5}
    text = script(path, **changes)
    (tmp_path / "apply.py").write_text(text, encoding="utf-8")
    done = run(tmp_path / "apply.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prepared = prepare(load(f"{path}:make"), device="cpu")
    config = prepared.baseline.replace(**changes)
    model = trained(prepared, config)
    validation = plain.evaluate(model, prepared.validation, prepared.metric, 256)
    test = plain.evaluate(model, prepared.test, prepared.metric, 256)
    assert done.stdout == f"validation accuracy: {validation:.4f}\ntest accuracy: {test:.4f}\n"
    assert test > 0.7


GROUPED_FILE = TASK_FILE.replace(
    "metric=", 'groups={"0.bias": Scales(weight_decay=0), "2.weight": Scales(0.5)}, metric='
).replace("import RunConfig", "import RunConfig\nfrom batchlab.rules import Scales")


@pytest.mark.parametrize("gamma", [None, pytest.param(2.0, marks=pytest.mark.slow)])
def test_apply_keeps_the_groups_of_parameters(tmp_path, gamma):
    (tmp_path / "mine.py").write_text(GROUPED_FILE, encoding="utf-8")
    prepared = prepare(load(f"{tmp_path / 'mine.py'}:make"), device="cpu")
    given = {"rule": "adamw", "learning_rate": 0.03, "weight_decay": 0.5, "gamma": gamma}
    config = prepared.baseline.replace(**given)
    text = plain.apply_script(
        config, prepared.task.origin, examples=prepared.examples, device="cpu", groups=True
    )
    ends = "\n    torch.save(model.state_dict(), 'model.pt')\n\n\nif __name__"
    (tmp_path / "apply.py").write_text(text.replace("\n\n\nif __name__", ends), encoding="utf-8")
    done = run(tmp_path / "apply.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "model.pt")
    alone = Capability(False, "", False, False, False, 0.0)
    job = Job(evaluate_at=(0, config.samples), keep_end=True)
    for groups, same in ((prepared.task.groups, True), ({}, False)):
        own = replace(prepared, task=replace(prepared.task, groups=groups))
        expected = train_alone(own, config, job, alone)[1].progress.params
        # The state of a wrapped model has the names of the bare one.
        pairs = [(found[n.replace("module.model.", "module.")], expected[n]) for n in expected]
        away = max(float((a - b).abs().max()) for a, b in pairs)
        assert (away < 1e-5) is same


def test_apply_of_a_plain_task_makes_a_plain_optimizer(tmp_path):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    text = script(tmp_path / "mine.py")
    assert "optimizer = shb(\n        model.parameters(),\n" in text
    assert "grouped" not in text


def trained(prepared, config):
    model = prepared.objective(config.seed, plain.DTYPES[config.precision])
    plain.train(
        model,
        plain.make_optimizer(model, config),
        prepared.train,
        Stream(prepared.examples, config.seed),
        sizes=plain.batch_sizes(config, prepared.examples),
        samples=config.samples,
        micro_batch_size=6,
        weight_of=functools.partial(total_weight, prepared.task),
        rate=schedules.rate_schedule(config.lr_schedule, warmup=config.warmup),
        rate_growth=config.rate_growth,
        clip_norm=config.clip_norm,
        precision=config.precision,
        reuse=config.reuse,
    )
    return model


@pytest.mark.parametrize("rule", ["shb", "qhm", "adamw"])
def test_the_plain_loop_and_the_engine_train_the_same_model(tmp_path, rule):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    prepared = prepare(load(f"{tmp_path / 'mine.py'}:make"), device="cpu")
    config = prepared.baseline.replace(
        rule=rule, precision="float64", lr_schedule="cosine", warmup=0.1, clip_norm=0.5, reuse=2
    )
    alone = Capability(False, "", False, False, False, 0.0)
    job = Job(evaluate_at=(0, config.samples), keep_end=True)
    state = train_alone(prepared, config, job, alone)[1]
    model = trained(prepared, config)
    found = {name: p.detach() for name, p in model.named_parameters()}
    expected = state.progress.params
    assert found.keys() == expected.keys()
    assert max(float((found[n] - expected[n]).abs().max()) for n in expected) < 1e-12


def test_precisions_mean_what_they_mean_to_the_engine():
    assert plain.DTYPES == step.DTYPES


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_apply_is_python_and_loads_only_the_task(tmp_path, rule):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    text = script(tmp_path / "mine.py", rule=rule, momentum=0.0 if rule == "sgd" else 0.9)
    modules = {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("batchlab")
    }
    allowed = {"batchlab.tasks", "batchlab.tasks.task"}
    assert modules == allowed | ({"batchlab.optim"} if rule == "qhm" else set())
    assert max(map(len, text.splitlines())) <= 99


def test_apply_states_the_batch_identity(tmp_path):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    assert "16 = 6 × 3 × 1" in script(tmp_path / "mine.py")


def test_a_task_without_a_name_has_no_apply():
    config = RunConfig().resolved(EXAMPLES)
    with pytest.raises(TaskError, match="`task` must be a name"):
        plain.apply_script(config, None, examples=EXAMPLES)


def test_stopping_early_leaves_the_schedule_as_it_is(tmp_path):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    prepared = prepare(load(f"{tmp_path / 'mine.py'}:make"), device="cpu")
    seen = []

    def rate(share):
        seen.append(share)
        return 1.0

    config = prepared.baseline.replace(batch_size=8)
    model = prepared.objective(0)
    plain.train(
        model,
        plain.make_optimizer(model, config),
        prepared.train,
        Stream(prepared.examples, 0),
        sizes=[(0, 8)],
        samples=80,
        stop_after=33,
        micro_batch_size=8,
        weight_of=functools.partial(total_weight, prepared.task),
        rate=rate,
        clip_norm=None,
        precision="float32",
    )
    assert seen == [0.0, 0.1, 0.2, 0.3]


def test_apply_names_the_place_where_the_goal_was_reached(tmp_path):
    (tmp_path / "mine.py").write_text(TASK_FILE, encoding="utf-8")
    prepared = prepare(load(f"{tmp_path / 'mine.py'}:make"), device="cpu")
    text = plain.apply_script(
        prepared.baseline,
        prepared.task.origin,
        examples=prepared.examples,
        reached=("validation accuracy 0.97", 640),
    )
    assert "STOP_AFTER = None  # or 640, where validation accuracy 0.97 was usually" in text
