"""A number of ``compute_metrics`` decides: the same as the Trainer's own evaluation gives."""

import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

from batchlab.engine.evaluate import Evaluator
from batchlab.errors import InvalidValueError, TaskError
from batchlab.huggingface import task
from batchlab.tasks import Metric, prepare
from tests.huggingface import tiny


def scores(predicted):
    """Accuracy over labels that count, and the share of the most frequent prediction."""
    best = predicted.predictions
    best = best.argmax(-1) if best.ndim > predicted.label_ids.ndim else best
    counted = predicted.label_ids != -100
    right = (best == predicted.label_ids) & counted
    return {"accuracy": right.sum() / counted.sum(), "eval_share": float((best == 1).mean())}


def evaluated(trainer, **asked):
    """The loss and the metric of the untrained model, by the engine."""
    prepared = prepare(task(trainer, **asked), device="cpu")
    objective = prepared.objective(0).eval()
    evaluate = Evaluator(prepared.validation, prepared.metric, "cpu", torch.float32, 5)

    def predict(batch):
        with torch.no_grad():
            outputs, losses, weights = objective(batch, predict=True)
        return outputs, (losses * weights).sum(), weights.sum()

    return evaluate(predict)[0]


def shifted_scores(predicted):
    """Of a language model, whose logits predict the next label."""
    own = type(predicted)(predicted.predictions[:, :-1], predicted.label_ids[:, 1:])
    return scores(own)


def best_words(logits, labels):
    """``preprocess_logits_for_metrics``: words instead of logits."""
    return logits.argmax(-1)


CASES = {
    "classifier": (tiny.classifier, scores, None),
    "classifier, classes only": (tiny.classifier, scores, best_words),
    "writer": (tiny.writer, shifted_scores, None),
    "writer, words only": (tiny.writer, shifted_scores, best_words),
}


@pytest.mark.parametrize("name", ["accuracy", "share"])
@pytest.mark.parametrize(("make", "compute", "preprocess"), CASES.values(), ids=CASES)
def test_the_metric_is_that_of_the_trainers_evaluation(tmp_path, make, compute, preprocess, name):
    given = {"compute_metrics": compute, "preprocess_logits_for_metrics": preprocess}
    found = evaluated(make(tmp_path, given=given), metric=name, maximise=True)
    # Padding differs with the batch: it counts in the share of predictions, so all in one batch.
    own = make(tmp_path, given=given, per_device_eval_batch_size=24).evaluate()
    assert found["metric"] == pytest.approx(float(own[f"eval_{name}"]), abs=1e-12)
    assert found["loss"] == pytest.approx(own["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("direction", [True, False])
def test_what_the_trainer_calls_best_decides(tmp_path, direction):
    best = {"metric_for_best_model": "eval_accuracy", "greater_is_better": direction}
    made = task(tiny.classifier(tmp_path, given={"compute_metrics": scores}, **best))
    assert made.metric.name == "accuracy"
    assert made.metric.maximise is direction


def test_the_loss_decides_where_nothing_else_is_asked_for(tmp_path):
    given = {"compute_metrics": scores}
    assert task(tiny.classifier(tmp_path, given=given)).metric == "loss"
    best = {"metric_for_best_model": "accuracy", "greater_is_better": True}
    trainer = tiny.classifier(tmp_path, given=given, **best)
    assert task(trainer, metric="loss").metric == "loss"
    assert task(trainer, metric="eval_loss").metric == "loss"


def test_a_metric_of_ones_own_sees_the_models_predictions(tmp_path):
    def spread(outputs, batch):
        assert outputs.shape == (24, 3)
        assert batch["labels"].shape == (24,)
        return float(outputs.std())

    own = Metric("spread", spread, maximise=True)
    assert evaluated(tiny.classifier(tmp_path), metric=own)["metric"] > 0


class Doubled(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (2 * outputs.loss, outputs) if return_outputs else 2 * outputs.loss


def test_predictions_of_a_loss_of_ones_own_are_those_of_its_outputs(tmp_path):
    given = {"compute_metrics": scores}
    found = evaluated(
        tiny.classifier(tmp_path, Doubled, given=given), metric="share", maximise=True
    )
    own = tiny.classifier(tmp_path, given=given, per_device_eval_batch_size=24).evaluate()
    assert found["metric"] == pytest.approx(own["eval_share"])
    assert found["loss"] == pytest.approx(2 * own["eval_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("given", "changes", "said"),
    [
        (
            {"compute_metrics": None},
            {},
            "`metric` must be 'loss' without compute_metrics; got 'ac",
        ),
        ({"eval_dataset": None}, {}, "`trainer.eval_dataset` must be given; got None. The metric"),
        ({}, {"include_for_metrics": ["inputs"]}, "`include_for_metrics` must be off"),
        ({}, {"eval_do_concat_batches": False}, "`eval_do_concat_batches` must be on"),
        ({}, {}, r"`maximise` must be True or False; got None\. Say whether more accuracy is"),
    ],
)
def test_a_metric_that_cannot_be_had_is_refused(tmp_path, given, changes, said):
    trainer = tiny.classifier(tmp_path, given={"compute_metrics": scores, **given}, **changes)
    with pytest.raises(InvalidValueError, match=said):
        task(trainer, metric="accuracy")


def test_a_metric_that_is_not_computed_is_refused_by_what_there_is(tmp_path):
    trainer = tiny.classifier(tmp_path, given={"compute_metrics": scores})
    said = "`metric` must be one of accuracy, eval_share; got 'f1'"
    with pytest.raises(TaskError, match=said):
        evaluated(trainer, metric="f1", maximise=True)


class Stepping(Trainer):
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)


def test_predictions_made_in_another_way_are_refused(tmp_path):
    given = {"compute_metrics": scores}
    with pytest.raises(InvalidValueError, match=r"got 'Stepping\.prediction_step'"):
        task(tiny.classifier(tmp_path, Stepping, given=given), metric="accuracy", maximise=True)
    args = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], predict_with_generate=True
    )
    trainer = Seq2SeqTrainer(
        tiny.bert(),
        args,
        train_dataset=tiny.rows(),
        eval_dataset=tiny.rows(24),
        data_collator=tiny.pad,
        **given,
    )
    with pytest.raises(InvalidValueError, match="`predict_with_generate` must be off; got True"):
        task(trainer, metric="accuracy", maximise=True)
