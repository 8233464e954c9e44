"""Real, tiny transformers built from configs, and Trainers of them on the CPU."""

import copy

import torch
from torch.utils.data import Sampler
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from batchlab.engine import Engine, Job
from batchlab.samplers import Stream
from batchlab.tasks import prepare

EXAMPLES, WORDS, PAD = 48, 30, 0


def bert(dropout=0.0, labels=3, **changes):
    """A classifier of sequences; the same weights every time."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=labels,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return BertForSequenceClassification(config)


def gpt(dropout=0.0):
    """A causal language model whose output layer is its embedding."""
    config = GPT2Config(
        vocab_size=WORDS,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=16,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return GPT2LMHeadModel(config)


def last_token(kind="gpt2"):
    """A classifier that picks the logits of the last token that is no padding."""
    sizes = {"vocab_size": WORDS, "pad_token_id": PAD, "num_labels": 3}
    made = {
        "gpt2": lambda: GPT2ForSequenceClassification(
            GPT2Config(
                n_embd=16,
                n_layer=2,
                n_head=2,
                n_positions=16,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **sizes,
            )
        ),
        "llama": lambda: LlamaForSequenceClassification(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=16,
                **sizes,
            )
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return made[kind]()


def rows(examples=EXAMPLES, seed=0):
    """Sequences of 3 to 12 words; the label is the remainder of their first word."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (examples,), generator=draw).tolist()
    words = [torch.randint(1, WORDS, (n,), generator=draw).tolist() for n in lengths]
    return [{"input_ids": each, "label": each[0] % 3, "comment": "not read"} for each in words]


def texts(examples=EXAMPLES, seed=0):
    """The same sequences, each word to be predicted from those before it."""
    return [{"input_ids": row["input_ids"]} for row in rows(examples, seed)]


def _padded(sequences, value):
    longest = max(map(len, sequences))
    return torch.tensor([s + [value] * (longest - len(s)) for s in sequences])


def pad(examples):
    """Pads the batch to its longest, as DataCollatorWithPadding does."""
    words = [example["input_ids"] for example in examples]
    batch = {"input_ids": _padded(words, PAD)}
    batch["attention_mask"] = _padded([[1] * len(s) for s in words], 0)
    if "label" in examples[0]:
        batch["labels"] = torch.tensor([example["label"] for example in examples])
    return batch


def pad_texts(examples):
    """The same with the words themselves as labels, −100 where there is none."""
    batch = pad(examples)
    batch["labels"] = _padded([example["input_ids"] for example in examples], -100)
    return batch


def arguments(folder, **changes):
    given = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 10,
        "learning_rate": 3e-3,
        "weight_decay": 0.1,
        "warmup_steps": 3,
        "max_grad_norm": 0.5,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(given | changes))


def classifier(folder, kind=Trainer, model=bert, given=None, **changes):
    """A Trainer of a classifier."""
    held = {"train_dataset": rows(), "eval_dataset": rows(24, seed=1), "data_collator": pad}
    own = given or {}
    if "model_init" not in own:
        own = {"model": model(), **own}
    return kind(args=arguments(folder, **changes), **(held | own))


def writer(folder, kind=Trainer, model=gpt, given=None, **changes):
    """A Trainer of a language model."""
    held = {"train_dataset": texts(), "eval_dataset": texts(24, 1), "data_collator": pad_texts}
    return kind(model=model(), args=arguments(folder, **changes), **(held | (given or {})))


class Ordered(Sampler):
    """The order in which batchlab's stream draws the first examples."""

    def __init__(self, examples, seed, count):
        self.order = Stream(examples, seed).take(0, count)[0].tolist()

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        return iter(self.order)


def in_order(kind=Trainer, seed=0, count=80):
    """The same Trainer with its sampler replaced by the first examples of the stream."""

    class InOrder(kind):
        def _get_train_sampler(self, train_dataset=None):
            return Ordered(len(self.train_dataset), seed, count)

    return InOrder


def weights(model):
    return {name: p.detach().clone() for name, p in copy.deepcopy(model).named_parameters()}


def engine_updates(task, **changes):
    """The parameters after the whole baseline, by the names they have in the user's model."""
    prepared = prepare(task, device="cpu")
    with Engine(prepared, None, 0) as engine:
        config = prepared.baseline.replace(**changes)
        trace, (state,) = engine.train([config], Job(evaluate_at=(), keep_end=True))
    assert trace.runs[0].executor == "loop"
    values = state.progress.params | state.progress.buffers
    return {name.removeprefix("module."): value for name, value in values.items()}


def trainer_updates(trainer):
    """(parameters before, after) training by the Trainer itself."""
    before = weights(trainer.model)
    trainer.train()
    return before, weights(trainer.model)


def apart(found, before, after):
    """‖found − after‖ in multiples of ‖after − before‖, over all parameters together."""
    away = [(found[name] - value).square().sum() for name, value in after.items()]
    moved = [(value - before[name]).square().sum() for name, value in after.items()]
    return float((sum(away) / sum(moved)).sqrt())
