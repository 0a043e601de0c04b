"""Accuracy of methods at equal memory, through the real engine: ``python -m reasonserve.bench accuracy --help``."""
