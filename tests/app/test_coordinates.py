"""``coordinates`` from a function of the width to the files."""

import json

import pytest
import torch
from torch import nn

from batchlab.app.coordinates import NETWORKS, coordinate_check
from batchlab.cli import main
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.measure.coordinates import Trend
from batchlab.models.mlp import mean_field_mlp
from batchlab.models.parametrization import rate_multiples
from batchlab.tasks import Task
from tests.engine import tiny

SMALL = {"widths": (4, 8), "updates": 1, "seeds": 2, "device": "cpu"}


def network(width):
    return nn.Sequential(nn.Linear(tiny.INPUTS, width), nn.Tanh(), nn.Linear(width, 2))


def recipe(width):
    config = RunConfig(rule="shb", learning_rate=0.25, momentum=0.5, batch_size=4, samples="1ep")
    return tiny.task(lambda: network(width), name="mine", baseline=config)


def test_a_model_of_ones_own_needs_data_and_loss(tmp_path):
    found = coordinate_check(network, tiny.points(), loss=tiny.cross, out=tmp_path, **SMALL)
    assert [one.name for one in found.found.layers] == ["0", "output"]
    assert {path.name for path in tmp_path.iterdir()} >= {"coordinates.json", "coordinates.html"}
    kept = json.loads((tmp_path / "coordinates.json").read_text("utf-8"))
    assert kept["found"]["widths"] == [4, 8]


def test_a_task_brings_its_recipe_and_options_change_it(tmp_path):
    found = coordinate_check(recipe, out=tmp_path, **SMALL).found
    assert (found.rule, found.learning_rate) == ("shb", 0.25)
    changed = coordinate_check(recipe, rule="adam", learning_rate=0.1, out=tmp_path, **SMALL).found
    assert (changed.rule, changed.learning_rate) == ("adam", 0.1)


@pytest.mark.slow
def test_the_sources_network_with_its_rates_moves_alike_at_every_width(tmp_path):
    def of_width(width):
        return mean_field_mlp(tiny.INPUTS, width, 3, 2)

    found = coordinate_check(
        of_width, tiny.points(), loss=tiny.cross, rates=rate_multiples, learning_rate=0.5,
        widths=(64, 256), updates=2, seeds=10, device="cpu", out=tmp_path,
    ).found  # fmt: skip
    assert {found.trend(one) for one in found.layers} == {Trend.INDEPENDENT}


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "rate"), [("sgd", 0.1), ("adam", 0.02)])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_of_a_mean_field_network_grows_or_shrinks(name, rule, rate, tmp_path):
    found = coordinate_check(
        name, parametrization="mean-field", rule=rule, learning_rate=rate, out=tmp_path,
        device="cpu", updates=2,
    ).found  # fmt: skip
    assert found.judged == 2
    assert {found.trend(one) for one in found.layers} <= {Trend.INDEPENDENT, Trend.OPEN}
    assert abs(found.layers[-1].slopes[2].value) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_adam_at_one_rate_makes_every_standard_network_grow(name, tmp_path):
    found = coordinate_check(
        name, rule="adam", learning_rate=0.001, out=tmp_path, device="cpu", updates=2
    ).found
    assert found.trend(found.layers[-1]) is Trend.GROWS


@pytest.mark.parametrize(
    ("make", "given", "error", "said"),
    [
        (network, {}, InvalidValueError, "`data` must be given"),
        (network, {"data": tiny.points()}, InvalidValueError, "`loss` must be given"),
        (lambda: 1, {}, TaskError, "Let it take the width as its one argument"),
        (lambda width: width, {}, InvalidTypeError, "a function to a torch.nn.Module or a Task"),
        ("perceptron", {}, TaskError, "Known networks: mlp, cnn, resnet, vit"),
        ("torch:nothing", {}, TaskError, "`TASK` must be a function in `torch`"),
        (recipe, {"parametrization": "mean-field"}, InvalidValueError, "must be left out"),
        (recipe, {"widths": ()}, InvalidValueError, "`widths` must be two or more"),
        ("mlp", {"parametrization": "ntk"}, TaskError, "'standard' or 'mean-field'"),
    ],
)
def test_what_cannot_be_checked_is_refused(make, given, error, said, tmp_path):
    with pytest.raises(error, match=said):
        coordinate_check(make, out=tmp_path, **SMALL | given)


def test_what_the_users_function_raises_is_one_sentence(tmp_path):
    def broken(width):
        raise RuntimeError("no such width")

    with pytest.raises(TaskError, match=r"`make\(4\)` raised .*no such width"):
        coordinate_check(broken, out=tmp_path, **SMALL)


def test_the_command_line_reads_a_function_of_the_width(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_widths.py").write_text(
        "from tests.app.test_coordinates import recipe as task\n", "utf-8"
    )
    main(["coordinates", "my_widths.py:task", "--widths", "4", "8", "--updates", "1", "--seeds",
          "2", "--device", "cpu"])  # fmt: skip
    out = capsys.readouterr().out
    assert "how far each layer moves, against the width" in out
    assert out.splitlines()[-1].startswith("report: batchlab-results")


def test_a_measurement_leaves_the_random_state(tmp_path):
    state = torch.random.get_rng_state()
    coordinate_check(recipe, out=tmp_path, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(recipe(4), Task)
