"""Every metric of ReasonServe, as data: what is exported, the documentation's table and the dashboards come from it.

Processes of Ray Serve export through Ray's own exporter on each node, which leads their names with ``ray_`` and adds
``deployment``, ``replica`` and ``application``; the controller has a port of its own.
"""

from __future__ import annotations

import sys
from typing import Final

from reasonserve.telemetry.metric import Metric, counter, gauge, histogram

LATENCY_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STEP_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
ROUND_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

REQUESTS: Final = counter(
    "gateway",
    "reasonserve_requests",
    "Requests that ended, by how they ended (lower-case gRPC status) and KV method.",
    "tenant",
    "outcome",
    "method",
)
REQUEST_SECONDS: Final = histogram(
    "gateway",
    "reasonserve_request_seconds",
    "Seconds from the request's arrival at the gateway to its end.",
    "tenant",
    buckets=LATENCY_S,
)
TTFT_SECONDS: Final = histogram(
    "gateway",
    "reasonserve_time_to_first_token_seconds",
    "Seconds from the request's arrival at the gateway to its first token.",
    "tenant",
    buckets=LATENCY_S,
)
INTER_TOKEN_SECONDS: Final = histogram(
    "gateway",
    "reasonserve_inter_token_seconds",
    "Seconds for each token after the first, averaged over the tokens that arrived together.",
    "tenant",
    buckets=STEP_S,
)
INPUT_TOKENS: Final = counter("gateway", "reasonserve_input_tokens", "Prompt tokens of finished requests.", "tenant")
CACHED_TOKENS: Final = counter(
    "gateway", "reasonserve_cached_tokens", "Prompt tokens of finished requests that the prefix cache had.", "tenant"
)
OUTPUT_TOKENS: Final = counter(
    "gateway", "reasonserve_output_tokens", "Tokens generated, those of cancelled requests included.", "tenant"
)
KEY_CHECKS: Final = counter(
    "gateway",
    "reasonserve_key_checks",
    "Tenant keys checked: hit (cached), miss (the controller was asked), stale (it could not be), refused.",
    "result",
)
QUEUED_REQUESTS: Final = gauge("replica", "reasonserve_queued_requests", "Requests that wait for KV slots.", "tenant")
QUEUE_SECONDS: Final = histogram(
    "replica",
    "reasonserve_queue_seconds",
    "Seconds that a request waited for admission, refused ones included.",
    "tenant",
    buckets=LATENCY_S,
)
ADMISSIONS: Final = counter(
    "replica",
    "reasonserve_admissions",
    "Admissions by result: admitted, shrunk (with a smaller budget than the default), refused.",
    "tenant",
    "result",
)
ACTIVE_REQUESTS: Final = gauge(
    "replica", "reasonserve_active_requests", "Requests admitted and not finished.", "tenant"
)
RESERVED_SLOTS: Final = gauge(
    "replica", "reasonserve_reserved_slots", "KV slots that running requests have reserved.", "tenant"
)
ALLOWED_SLOTS: Final = gauge(
    "replica",
    "reasonserve_allowed_slots",
    "KV slots that the tenant may reserve at the replica now: its lease, or after that lapsed its guarantee.",
    "tenant",
)
USED_SLOTS: Final = gauge("replica", "reasonserve_used_slots", "KV slots that running requests hold in the engine.")
CAPACITY_SLOTS: Final = gauge("replica", "reasonserve_capacity_slots", "KV slots of the engine's pool.")
SLOT_BYTES: Final = gauge("replica", "reasonserve_slot_bytes", "Bytes of one KV slot over all layers and heads.")
SQUEEZES: Final = counter(
    "replica", "reasonserve_squeezes", "Times that a running request's budget was lowered.", "tenant"
)
ROUNDS: Final = counter("replica", "reasonserve_rounds", "Compression rounds.", "tenant", "method")
ROUND_SECONDS: Final = histogram(
    "replica",
    "reasonserve_round_seconds",
    "Seconds of a compression round, shared evenly by the requests that rounded together.",
    "method",
    buckets=ROUND_S,
)
KEPT_CELLS: Final = counter("replica", "reasonserve_kept_cells", "KV cells kept by rounds.", "tenant")
EVICTED_CELLS: Final = counter("replica", "reasonserve_evicted_cells", "KV cells evicted by rounds.", "tenant")
LEASE_EPOCH: Final = gauge(
    "replica", "reasonserve_lease_epoch", "Epoch of the replica's lease; it grows whenever the replica is leased anew."
)
LEASE_AGE_SECONDS: Final = gauge(
    "replica", "reasonserve_lease_age_seconds", "Seconds since the report that the lease in force answers."
)
CONTROLLER_LEADS: Final = gauge(
    "controller", "reasonserve_controller_leads", "1 on the controller that leads, 0 on one that stands by."
)
CONTROLLER_REVISION: Final = gauge("controller", "reasonserve_controller_revision", "Revision of the ledger.")
CONTROLLER_WRITES: Final = counter(
    "controller", "reasonserve_controller_writes", "Changes written to the database, by result: ok, failed.", "result"
)
CONTROLLER_WRITE_SECONDS: Final = histogram(
    "controller", "reasonserve_controller_write_seconds", "Seconds of a write to the database.", buckets=LATENCY_S
)
CONTROLLER_SPLITS: Final = counter(
    "controller", "reasonserve_controller_splits", "Times that the cluster's KV memory was split anew."
)
CONTROLLER_SPLIT_SECONDS: Final = counter(
    "controller", "reasonserve_controller_split_seconds", "Seconds of processor time spent on splits."
)
CLUSTER_REPLICAS: Final = gauge("controller", "reasonserve_cluster_replicas", "Replicas that may hold a lease.")
CLUSTER_CAPACITY_SLOTS: Final = gauge(
    "controller", "reasonserve_cluster_capacity_slots", "KV slots of the live replicas."
)
TENANT_LEASED_SLOTS: Final = gauge(
    "controller", "reasonserve_tenant_leased_slots", "KV slots leased to the tenant over all replicas.", "tenant"
)
TENANT_RESERVED_SLOTS: Final = gauge(
    "controller",
    "reasonserve_tenant_reserved_slots",
    "KV slots that the tenant's requests have reserved, as the replicas last reported.",
    "tenant",
)
TENANT_WANTED_SLOTS: Final = gauge(
    "controller",
    "reasonserve_tenant_wanted_slots",
    "KV slots of the tenant's requests that wait or were refused and are expected back.",
    "tenant",
)
TENANT_GUARANTEED_SLOTS: Final = gauge(
    "controller", "reasonserve_tenant_guaranteed_slots", "KV slots that the tenant is sure of.", "tenant"
)
TENANT_LIMIT_SLOTS: Final = gauge(
    "controller", "reasonserve_tenant_limit_slots", "KV slots that the tenant may hold at most.", "tenant"
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order above."""


def markdown_table() -> str:
    """Returns the documentation's table of metrics."""
    rows = ["| name | type | labels | what it says |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown_table())
