"""ReasonAlloc: KV cache budgets per layer, offline, and per kv head, online.

    score           what each cached token of each kv head is worth
    layer_budgets   cells per layer
    route           cells per kv head

Importing this package costs nothing; the three functions import torch when they are first asked for.

    methods    names of layer rules, head rules and scorers; pure Python
    levels     the three functions, by these names
    scorers    one file for each scorer
    split      bounded-proportional split of a total; pure Python
    profile    what a model's layers need; pure Python
    demand     how much of the cache an attention row needs; torch
    ops.score  attention and redundancy of cached tokens
    ops.budgets, ops.route   cells per layer, then per kv head
    ops.keep   which tokens a head keeps
    ops.compact   where the kept ones go, so that whole slots become free
    ops.attend    decode attention over what is left
    ops.launch    which device runs kernels, and how they are launched
    bench      ``python -m reasonalloc.bench``
"""

__version__ = "0.1.0"

__all__ = ["layer_budgets", "route", "score"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from reasonalloc import levels

        return getattr(levels, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
