"""ReasonServe: distributed inference for reasoning models with per-tenant KV-memory budgets."""

from importlib.metadata import version

__version__ = version("reasonserve")
