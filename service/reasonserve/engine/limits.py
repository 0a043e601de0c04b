"""How long a request's lists of cells may get, for tables that must not move."""

from __future__ import annotations

from reasonserve.kv import KvRequest, triple_of


def longest_list(kv: KvRequest, prompt_tokens: int, max_new_tokens: int, num_layers: int, num_kv_heads: int) -> int:
    """Returns the most cells that one layer and kv head of a request can ever own.

    No list holds a token twice, and all together hold S * L * H cells; a rule that shares equally over layers or over
    heads leaves a list no more than its share.

    Args:
        kv: The request's options.
        prompt_tokens: Length of its prompt, which counts where it may be evicted.
        max_new_tokens: Most tokens that it generates.
        num_layers: Layers L.
        num_kv_heads: KV heads H of this rank.
    """
    triple = triple_of(kv.method)
    if triple is None:
        return 0
    tokens = max_new_tokens + (prompt_tokens if kv.prompt_mode == "evictable" else 0)
    layers = 1 if triple.layer == "uniform" else num_layers
    heads = 1 if triple.head == "uniform" else num_kv_heads
    return min(tokens, kv.budget_tokens * layers * heads)


def check_lists_fit(kv: KvRequest, longest: int, capacity: int) -> None:
    """Checks that a request cannot outgrow tables of a fixed size.

    Raises:
        ValueError: It could; says what to do.
    """
    if longest > capacity:
        raise ValueError(
            f"With kv.method {kv.method!r} and kv.budget_tokens {kv.budget_tokens} this request could keep {longest} "
            f"tokens in one kv head, and this engine's tables have room for {capacity}. Ask for fewer tokens "
            "(max_tokens), send a lower kv.budget_tokens with a method that shares equally, such as r-kv, or raise "
            "engine.table_cells."
        )
