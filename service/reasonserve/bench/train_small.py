"""Trains the small model of the benchmarks: ``python -m reasonserve.bench.train_small --help``.

Same seed, same start, same number of threads: same weights. Loads torch and transformers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.nn.functional import cross_entropy

from reasonserve.bench.tasks import chaser, lookup, words
from reasonserve.bench.tasks.sample import Sample
from reasonserve.models.convert import add_rope_theta

_IGNORED = -100
_SPLIT_SEED = 7
"""Of the heads that begin anew; `--seed` has the questions."""
_SHARES = {"chaser": 0.7, "retrieval": 0.1, "multikey": 0.2}
"""Share of the batches that each task makes up."""


def config() -> Any:
    """Returns the small model's shape: 4 layers, 4 query and 2 kv heads of 32, 0.94 million parameters."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(words.VOCABULARY),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        bos_token_id=words.IDS[words.BEGIN],
        eos_token_id=words.IDS[words.END],
        pad_token_id=words.IDS[words.PAD],
    )


def tokenizer() -> Any:
    """Returns the tokenizer of ``words``: a word, a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    by_word = Tokenizer(models.WordLevel(words.IDS, unk_token=words.PAD))
    by_word.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": words.BEGIN, "eos_token": words.END, "pad_token": words.PAD}
    return PreTrainedTokenizerFast(tokenizer_object=by_word, **special)


def new_model(seed: int) -> Any:
    """Returns a model to train from the beginning.

    A binding such as ``v7=3`` begins as the sum of its variable and its digit: without this, 12 million tokens did not
    teach look-ups of values.
    """
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(config())
    first = words.IDS[words.binding(0, 0)]
    with torch.no_grad():
        for table in (model.model.embed_tokens.weight, model.lm_head.weight):
            digits = torch.randn(words.NUM_DIGITS, table.shape[1]) * 0.02
            for number in range(words.NUM_VARIABLES):
                start = first + number * words.NUM_DIGITS
                table[start : start + words.NUM_DIGITS] = table[words.IDS[words.variable(number)]] + digits
    return model


def split_heads(model: Any, seed: int) -> Any:
    """Returns a model with a kv head for each query head, every second of them to be learnt anew.

    A copy of its shared kv head for each query head would leave all answers as they are and nothing to learn: the heads
    would stay alike. So every second head begins from nothing.

    Args:
        model: One whose query heads share kv heads; it is left as it is.
        seed: Of the new weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    old = model.config
    heads, width, copies = old.num_attention_heads, old.head_dim, old.num_attention_heads // old.num_key_value_heads
    split = LlamaForCausalLM(LlamaConfig(**{**old.to_dict(), "num_key_value_heads": heads}))
    weights = dict(model.state_dict())
    for name in [name for name in weights if name.endswith(("k_proj.weight", "v_proj.weight"))]:
        weights[name] = weights[name].unflatten(0, (-1, width)).repeat_interleave(copies, 0).flatten(0, 1)
    split.load_state_dict(weights)
    torch.manual_seed(seed)
    with torch.no_grad():
        for layer in split.model.layers:
            attention = layer.self_attn
            for head in range(1, heads, 2):
                rows = slice(head * width, (head + 1) * width)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                    projection.weight[rows].normal_(0, 0.02)
                attention.o_proj.weight[:, rows].normal_(0, 0.02)
    return split


def batches(seed: int, rows: int, lines: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields token ids and targets for ever; only answers are learnt.

    Args:
        seed: Of the order of tasks.
        rows: Questions in a batch.
        lines: Fewest and most lines of a chaser's program.

    Yields:
        Ids [B, T], padded, and targets [B, T], -100 where nothing is learnt.
    """
    chance, index = random.Random(seed), 0
    while True:
        task = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        count = chance.randint(*lines)
        samples = [_make(task, index + row, count) for row in range(rows)]
        index += rows
        yield _tensors(samples)


def _make(task: str, index: int, lines: int) -> Sample:
    if task == "chaser":
        return chaser.make("train", index, lines)
    return (lookup.make_retrieval if task == "retrieval" else lookup.make_multikey)("train", index)


def _tensors(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    encoded = [(words.encode(sample.prompt), words.encode(sample.answer)) for sample in samples]
    width = max(len(prompt) + len(answer) for prompt, answer in encoded)
    ids = torch.full((len(samples), width), words.IDS[words.PAD])
    targets = torch.full((len(samples), width), _IGNORED)
    for row, (prompt, answer) in enumerate(encoded):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        targets[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
    return ids, targets


def train(model: Any, steps: int, rate: float, stream: Iterator[tuple[Tensor, Tensor]]) -> Iterator[float]:
    """Takes optimiser steps and yields the loss of each; the rate warms up, then falls to zero along a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = min(50, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, total_iters=warm),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warm)),
        ],
        milestones=[warm],
    )
    for _, (ids, targets) in zip(range(steps), stream, strict=False):
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type of it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()


def main(
    output: Annotated[Path, typer.Argument(help="Folder to write: config, weights, tokenizer.")],
    start: Annotated[Path | None, typer.Option("--start", help="Folder whose weights to go on from.")] = None,
    split: Annotated[
        bool, typer.Option("--split-heads", help="A kv head for each query head; every second one begins anew.")
    ] = False,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 600,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Questions in a batch.")] = 12,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate.")] = 5e-4,
    lines: Annotated[tuple[int, int], typer.Option("--lines", help="Lines of a program, fewest and most.")] = (16, 32),
    seed: Annotated[int, typer.Option("--seed", help="Of weights and questions.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads; the sums depend on it.")] = 1,
) -> None:
    """Train the small model on the three synthetic tasks (about half a second a step on one core)."""
    from transformers import LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32) if start else new_model(seed)
    if split:
        model = split_heads(model, _SPLIT_SEED)
    columns = (TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]:.4f}"), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=steps, loss=0.0)
        for loss in train(model, steps, rate, batches(seed, rows, lines)):
            bar.update(task, advance=1, loss=loss)
    model.save_pretrained(output)
    add_rope_theta(output / "config.json")
    tokenizer().save_pretrained(output)


if __name__ == "__main__":
    typer.run(main)
