"""ReasonAlloc: KV cache budgets per layer, offline, and per kv head, online.

Importing this package costs nothing: take names from its modules.

    split      bounded-proportional split of a total; pure Python
    profile    what a model's layers need; pure Python
    demand     how much of the cache an attention row needs; torch
    ops.score  what each cached token of each kv head is worth
    ops.budgets, ops.route   cells per layer, then per kv head
    ops.keep   which tokens a head keeps
    ops.compact   where the kept ones go, so that whole slots become free
    ops.attend    decode attention over what is left
    ops.launch    which device runs kernels, and how they are launched
    bench      ``python -m reasonalloc.bench``
"""

__version__ = "0.1.0"
