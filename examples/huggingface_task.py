"""A small BERT with a Hugging Face Trainer; batchlab reads the whole recipe from it.

It learns from scratch which chapter of Python's help a sentence comes from. The Trainer is the
usual one: dynamic padding, AdamW that leaves biases undecayed, linear warm-up, clipping,
accumulated batches, `compute_metrics`. The last function is all there is of batchlab.

    batchlab advise examples/huggingface_task.py:task --budget 5m
"""

import re
import tempfile
from collections import Counter
from pydoc_data.topics import topics
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from batchlab import Task
from batchlab.huggingface import task as task_from

CHAPTERS = 8  # the longest chapters
WORDS = 400  # the most frequent words; 0 is padding, 1 any other word
LONGEST = 32  # words of a sentence

Row = dict[str, Any]


def rows() -> list[Row]:
    """Sentences of the longest chapters as numbers of their words, with the chapter as label."""
    chapters = sorted(topics, key=lambda name: (-len(topics[name]), name))[:CHAPTERS]
    texts = [topics[name].lower() for name in chapters]
    counts = Counter(re.findall(r"\w+", " ".join(texts)))
    number = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS - 2), start=2)}
    found = []
    for label, text in enumerate(texts):
        for sentence in re.split(r"[.:;]\s", text):
            words = re.findall(r"\w+", sentence)[:LONGEST]
            if len(words) >= 6:
                ids = [number.get(word, 1) for word in words]
                found.append({"input_ids": ids, "labels": label})
    return found


def collate(examples: list[Row]) -> dict[str, torch.Tensor]:
    """Pads to the longest sentence of the batch; with a tokenizer, DataCollatorWithPadding."""
    longest = max(len(example["input_ids"]) for example in examples)
    ids = torch.tensor([e["input_ids"] + [0] * (longest - len(e["input_ids"])) for e in examples])
    labels = torch.tensor([example["labels"] for example in examples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def model() -> BertForSequenceClassification:
    """Two small layers with fresh weights; your own model goes here."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        num_labels=CHAPTERS,
    )
    return BertForSequenceClassification(config)


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    """Share of sentences whose chapter is found."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def trainer() -> Trainer:
    """As in any script that ends with trainer.train()."""
    sentences = rows()
    return Trainer(
        model_init=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_train_epochs=6,
            learning_rate=2e-3,
            weight_decay=0.01,
            warmup_steps=0.1,
            metric_for_best_model="accuracy",
            greater_is_better=True,
            report_to=[],
            use_cpu=True,
        ),
        data_collator=collate,
        train_dataset=[row for i, row in enumerate(sentences) if i % 5],
        eval_dataset=sentences[::5],
        compute_metrics=accuracy,
    )


def task() -> Task:
    """The Trainer's recipe, judged by the accuracy that it computes."""
    return task_from(trainer(), unit="sentences")
