"""A Hugging Face training whose batch grows; the lines that are new are marked.

    python examples/loops/growing_huggingface.py

`per_device_train_batch_size` is what fits into memory; the schedule says the batch, and from which
epoch on it is accumulated. `max_steps` and the length of the learning-rate schedule follow from
it, and `trainer.train(resume_from_checkpoint=True)` goes on where it was.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from batchlab.huggingface import GrowingTrainer  # new

WORDS, LENGTH = 30, 8


def rows(count: int) -> list[dict[str, Any]]:
    """Sequences of words; which of three words comes first is the label."""
    words = torch.randint(3, WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(0))
    words[:, 0] = torch.arange(count) % 3
    return [{"input_ids": row, "labels": int(row[0])} for row in words]


def model() -> BertForSequenceClassification:
    """Two small layers with fresh weights; your own model goes here."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


def main() -> None:
    """Train four epochs."""
    trainer = GrowingTrainer(  # new
        schedule="0:8 300:16 2ep:32",  # new
        model_init=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=16,
            num_train_epochs=4,
            learning_rate=5e-3,
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=rows(240),
    )
    trainer.train()
    for logged in trainer.state.log_history[:-1]:
        print(f"{logged['step']} updates so far: loss {logged['loss']:.3f}")


if __name__ == "__main__":
    main()
