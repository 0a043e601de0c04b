"""The work of the exactness checks: which requests run, in which waves, on which engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

Request = dict[str, Any]

BUFFER = 64
"""Tail of every bounded request here: short, so that rounds are many."""
SHORTEST_ABOVE = 4096
"""A budget that no request here grows to."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How much is checked.

    Attributes:
        dense_prompts, dense_tokens: Prompts that run with a budget above their length, and the tokens of each.
        round_prompts, round_tokens: Prompts that run with rounds, and the tokens of each.
        budgets: S of those.
        targets, target_tokens: Requests that run alone and among others, and the tokens of each.
        crowd: Requests in the batch that the targets run among, the targets included.
        pool_slots: KV pool of every engine.
    """

    dense_prompts: int
    dense_tokens: int
    round_prompts: int
    round_tokens: int
    budgets: tuple[int, ...]
    targets: int
    target_tokens: int
    crowd: int
    pool_slots: int


FULL = Setup(64, 256, 16, 512, (64, 128), 8, 256, 32, 24576)
QUICK = Setup(8, 64, 4, 160, (64,), 2, 160, 8, 4096)


def read_prompts(model: str, count: int) -> list[list[int]]:
    """Returns the first real prompts of the package's list under the model's chat template, as token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = files("reasonserve.bench").joinpath("prompts.txt").read_text().splitlines()[:count]
    chats = [[{"role": "user", "content": line}] for line in lines]
    return [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]


def dense_wave(setup: Setup, prompts: Sequence[list[int]], *, stock: bool) -> list[Request]:
    """Returns requests that no round touches; stock's report the margin of each token."""
    kv = {"kv": {"method": "reasonalloc", "budget_tokens": SHORTEST_ABOVE, "buffer_tokens": BUFFER}}
    more: dict[str, Any] = {"margins": True} if stock else kv
    return [_request(f"dense-{n}", p, setup.dense_tokens, **more) for n, p in enumerate(prompts[: setup.dense_prompts])]


def round_waves(setup: Setup, prompts: Sequence[list[int]]) -> list[list[Request]]:
    """Returns a wave of bounded requests for each budget and prompt mode."""
    return [
        [
            _request(round_id(budget, mode, n), prompt, setup.round_tokens, kv=_bounded(budget, prompt_mode=mode))
            for n, prompt in enumerate(prompts[: setup.round_prompts])
        ]
        for budget in setup.budgets
        for mode in ("pinned", "evictable")
    ]


def round_id(budget: int, mode: str, prompt: int) -> str:
    """Returns the id of a bounded request."""
    return f"rounds-{budget}-{mode}-{prompt}"


def neighbour_waves(setup: Setup, prompts: Sequence[list[int]], *, stock: bool) -> list[list[Request]]:
    """Returns each target alone, then all of them in a crowd that differs in everything.

    A token of its own before each wave's prompts keeps the prefix cache, and so the prefill's shape, the same.
    """
    alone = [[_target(setup, prompts, n, "alone", stock=stock)] for n in range(setup.targets)]
    among = [_target(setup, prompts, n, "among", stock=stock) for n in range(setup.targets)]
    others = [_neighbour(setup, prompts, n, stock=stock) for n in range(setup.crowd - setup.targets)]
    return [*alone, [*others, *among]]


def _target(setup: Setup, prompts: Sequence[list[int]], number: int, where: str, *, stock: bool) -> Request:
    kv = {} if stock else {"kv": _bounded(64 if number % 2 else 96, method=("reasonalloc", "r-kv")[number % 2])}
    return _request(f"{where}-{number}", marked(prompts, number), setup.target_tokens, cache_salt=where, **kv)


def _neighbour(setup: Setup, prompts: Sequence[list[int]], number: int, *, stock: bool) -> Request:
    """A request unlike its neighbours: some are squeezed, every fifth leaves halfway (aborted; in stock, done)."""
    tokens = setup.target_tokens // 2 + 7 * (number % 11)
    prompt = marked(prompts, setup.targets + number)
    leaves = number % 5 == 4
    if stock:
        return _request(f"other-{number}", prompt, tokens // 2 if leaves else tokens)
    abort = {"abort_after": tokens // 2} if leaves else {}
    method = ("reasonalloc", "r-kv", "full")[number % 3]
    kv = {"method": "full", "budget_tokens": 0}
    if method != "full":
        mode = ("pinned", "evictable")[number % 2]
        kv = _bounded(48 + 16 * (number % 5), method=method, prompt_mode=mode)
    squeeze = {"set_budget": [{"after": tokens // 3, "to": 40}]} if number % 3 == 1 else {}
    return _request(f"other-{number}", prompt, tokens, kv=kv, **abort, **squeeze)


def marked(prompts: Sequence[list[int]], number: int) -> list[int]:
    """Returns the prompt of a target, or of a neighbour counted after the targets."""
    return [500 + number, *prompts[number % len(prompts)]]


def _bounded(budget: int, *, method: str = "reasonalloc", prompt_mode: str = "pinned") -> dict[str, Any]:
    return {"method": method, "budget_tokens": budget, "buffer_tokens": BUFFER, "prompt_mode": prompt_mode}


def _request(name: str, input_ids: list[int], tokens: int, **more: Any) -> Request:
    return {"id": name, "input_ids": input_ids, "sampling": {"max_new_tokens": tokens}, **more}
