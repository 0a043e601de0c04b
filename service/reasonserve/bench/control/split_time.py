"""What one split of a whole cluster costs, without a server around it."""

from __future__ import annotations

import statistics
import time

import numpy as np

from reasonserve.controller import cells


def full_split_s(size: int, named: int, load: float, *, capacity: int, repeats: int = 5) -> float:
    """Returns the processor time of one split of everything, in this process; the median of some.

    Args:
        size: Replicas, and tenants with demand.
        named: Tenants with demand at each replica.
        load: Mean demand as a part of the memory.
        capacity: Slots of a replica.
        repeats: How often it is measured.
    """
    draw = np.random.default_rng(size)
    tenant = np.concatenate([np.sort(draw.choice(size, named, replace=False)) for _ in range(size)])
    demand = draw.exponential(load * capacity / named, len(tenant)).astype(np.int64)
    floor = demand // 4
    problem = cells.Problem(
        weight=1 + np.arange(size) % 4,
        guaranteed=np.full(size, capacity // 2),
        limit=np.full(size, 2 * capacity),
        capacity=np.full(size, capacity),
        strangers=np.zeros(size, dtype=np.int64),
        is_open=np.ones(size, dtype=np.bool_),
        model=np.zeros(size, dtype=np.int64),
        tenant=tenant,
        replica=np.repeat(np.arange(size), named),
        floor=floor,
        wanted=demand - floor,
        last=np.full(len(tenant), cells.NEVER),
    )
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        cells.split(problem)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)
