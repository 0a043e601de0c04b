"""What the operators cost: ``python -m reasonalloc.bench [cpu | gpu] [--json FILE]``."""
