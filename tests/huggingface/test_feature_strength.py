"""A wrapped transformer in the Trainer: columns, loss, saving, and the same training here."""

import functools
import math

import pytest
import torch
from transformers import BertForSequenceClassification

from batchlab.huggingface import task
from batchlab.models.feature_strength import FeatureStrength
from tests.huggingface import tiny

KEPT = "eval_loss"


def wrapped(gamma=2.0, model=tiny.bert, **named):
    return FeatureStrength(model(), gamma, **named)


MODELS = {
    "bert": tiny.bert,
    "gpt2": functools.partial(tiny.last_token, "gpt2"),
    "llama": functools.partial(tiny.last_token, "llama"),
}


def test_a_trainer_keeps_columns_and_labels_of_a_wrapped_model(tmp_path):
    trainer = tiny.classifier(tmp_path, model=wrapped)
    trainer._set_signature_columns_if_needed()
    bare = tiny.classifier(tmp_path)
    bare._set_signature_columns_if_needed()
    assert set(trainer._signature_columns) == set(bare._signature_columns)
    assert trainer.label_names == ["labels"]
    assert trainer.model_accepts_loss_kwargs == bare.model_accepts_loss_kwargs
    assert trainer.model.config.num_labels == 3


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_loss_of_a_trainer_is_that_of_centred_logits(tmp_path, model):
    trainer = tiny.classifier(tmp_path, model=lambda: wrapped(model=model))
    assert trainer.evaluate()[KEPT] == pytest.approx(math.log(3), abs=1e-6)
    before, after = tiny.trainer_updates(trainer)
    moved = [name for name in after if not torch.equal(before[name], after[name])]
    assert moved
    assert all(name.startswith("model.") for name in moved)
    logits = trainer.predict(tiny.rows(24, seed=1)).predictions
    batch = tiny.pad(tiny.rows(24, seed=1))
    labels = batch.pop("labels")
    model = trainer.model.eval()
    with torch.no_grad():
        expected = (model.model(**batch).logits - model.start(**batch).logits) / 2.0
    assert torch.allclose(torch.tensor(logits), expected, atol=1e-5)
    loss = float(torch.nn.functional.cross_entropy(expected, labels))
    assert trainer.evaluate()[KEPT] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_gradient_of_a_last_token_is_that_of_centred_logits(kind, training):
    model = wrapped(model=MODELS[kind]).train(training)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = tiny.pad(tiny.rows(8))
    weights = list(model.model.parameters())
    found = torch.autograd.grad(model(**batch).loss, weights)
    labels = batch.pop("labels")
    loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels)
    for one, other in zip(found, torch.autograd.grad(loss, weights), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_checkpoint_of_a_trainer_restores_the_wrapper(tmp_path):
    trainer = tiny.classifier(tmp_path, model=wrapped)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    other = tiny.classifier(tmp_path, model=lambda: wrapped(1.0))
    other._load_from_checkpoint(str(tmp_path / "saved"))
    assert float(other.model.gamma) == 2.0
    assert other.evaluate()[KEPT] == pytest.approx(trainer.evaluate()[KEPT], rel=1e-6)


def test_with_a_zero_readout_the_merged_model_is_saved_as_a_plain_one(tmp_path):
    trainer = tiny.classifier(tmp_path, model=lambda: wrapped(readout="classifier"))
    trainer.train()
    trainer.model.merged().save_pretrained(tmp_path / "plain")
    plain = BertForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    batch = tiny.pad(tiny.rows(24, seed=1))
    trainer.model.eval()
    with torch.no_grad():
        found, expected = plain(**batch), trainer.model(**batch)
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)


@pytest.mark.slow
def test_a_gamma_in_the_recipe_trains_what_the_trainer_trains(tmp_path):
    made = task(tiny.classifier(tmp_path), metric="loss")
    found = tiny.engine_updates(made, gamma=2.0)
    kind = tiny.in_order()
    before, after = tiny.trainer_updates(tiny.classifier(tmp_path, kind, model=wrapped))
    assert tiny.apart(found, before, after) < 1e-3
    bare = tiny.engine_updates(made)
    renamed = {f"model.{name}": value for name, value in bare.items()}
    own = {name: value for name, value in after.items() if name.startswith("model.")}
    assert tiny.apart(renamed, before, own) > 0.05
