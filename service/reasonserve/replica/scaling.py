"""How many replicas there should be: by KV pressure, not by requests.

Ray Serve pickles this module by value into its controller, so it imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

DEMAND_METRIC = "kv_demand_slots"
"""Slots that a replica's requests hold, wait for, were refused and are expected back for, or gave up in squeezes."""
POOL_METRIC = "kv_pool_slots"


def desired_replicas(demand_slots: Collection[float], pool_slots: Collection[float], target: float) -> int:
    """Returns the fewest replicas whose pools hold all demand at the target pressure.

    Pressure is demand over capacity. It is taken over the sum and not by replica: the router and the leases
    move demand to where room is. A squeezed request wants the slots back that it gave up, so a cluster
    that makes do by squeezing is seen to be short.

    Args:
        demand_slots: Of each replica that reported.
        pool_slots: Of the same replicas; not empty.
        target: Pressure to aim at, in (0, 1].
    """
    mean_pool = sum(pool_slots) / len(pool_slots)
    # Rounded first: a demand of exactly n pools at the target needs n replicas, whatever doubles make of it.
    return max(1, math.ceil(round(sum(demand_slots) / (target * mean_pool), 9)))


class KvPressurePolicy:
    """Ray Serve's autoscaling policy of the replicas; delays and bounds are Ray Serve's to apply.

    Args:
        target_pressure: Pressure to aim at, in (0, 1].
    """

    def __init__(self, target_pressure: float) -> None:
        self._target = target_pressure

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Returns the number of replicas wanted; the present target until a replica has reported."""
        metrics = context.aggregated_metrics or {}
        demand, pools = metrics.get(DEMAND_METRIC) or {}, metrics.get(POOL_METRIC) or {}
        if not pools or not all(pools.values()):
            return context.target_num_replicas, {}
        return desired_replicas(list(demand.values()), list(pools.values()), self._target), {}
