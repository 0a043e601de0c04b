"""Benchmarks of the control plane: the real controller process, reached over gRPC."""
