"""Benchmarks of the whole engine, beside stock SGLang on the same work: ``python -m reasonserve.bench --help``."""
