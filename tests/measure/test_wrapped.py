"""A model with a feature strength is measured as the model that is trained, without its copy."""

import copy

import numpy as np
import pytest
import torch

from batchlab.engine import Job
from batchlab.measure.alignment import alignment, alignment_probe
from batchlab.measure.features import Reader, features_probe
from batchlab.measure.sharpness import sharpness_probe
from batchlab.measure.sparsity import sparsity, weights_share
from batchlab.models.feature_strength import FeatureStrength
from tests.engine import tiny

GAMMA = 3.0


@pytest.fixture
def pair():
    """A model away from its start, and the same model wrapped."""
    torch.manual_seed(0)
    wrapped = FeatureStrength(tiny.mlp(), GAMMA)
    start = copy.deepcopy(wrapped.model)
    with torch.no_grad():
        for parameter in wrapped.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return start, wrapped


def test_sparsity_is_that_of_the_trained_weights(pair):
    _, wrapped = pair
    data = torch.randn(16, tiny.INPUTS)
    assert sparsity(wrapped, data) == sparsity(wrapped.model, data)
    assert weights_share(wrapped) == weights_share(wrapped.model)


def test_alignment_is_that_of_the_trained_weights(pair):
    start, wrapped = pair
    data = torch.randn(16, tiny.INPUTS)
    whole = FeatureStrength(start, GAMMA)
    assert alignment(whole, wrapped, data) == alignment(start, wrapped.model, data)


def test_features_are_those_of_the_trained_model(pair):
    prepared = tiny.ready(metric="accuracy")
    reader = Reader(prepared, gamma=GAMMA, examples=32)
    assert "start" not in f"{reader.site.module} {reader.site.name}"
    _, (state,) = tiny.trained(prepared, [tiny.run(gamma=GAMMA)], "loop")
    objective = reader.of_state(state.progress)
    kept = reader.measure(objective, 0)[0].kept
    inputs, labels = prepared.validation.batch(torch.arange(32))
    outputs = objective.outputs((inputs.float(), labels))
    hits = (outputs.argmax(1) == labels).double().mean()
    assert kept.metric[-1] == pytest.approx(float(hits))


def test_probes_measure_runs_that_have_a_gamma():
    prepared, config = tiny.ready(metric="accuracy"), tiny.run(gamma=GAMMA)
    for probe in (
        alignment_probe(prepared, examples=32),
        features_probe(prepared, config, examples=32),
        sharpness_probe(prepared),
    ):
        asked = Job((0,), probe, (400,))
        trace, _ = tiny.trained(prepared, [config], "loop", asked)
        found = [s.values[-1] for name, s in trace.runs[0].series.items() if "." in name]
        assert found
        assert np.isfinite(found).any()
