"""Measures, prints, and writes what was measured where asked."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from reasonalloc.bench.machine import machine

EXIT_NO_GPU = 2


def main() -> int:
    """Returns the exit status: 2 where a GPU was asked for and there is none."""
    parser = argparse.ArgumentParser(prog="python -m reasonalloc.bench", description="Times of the operators.")
    parser.add_argument("device", nargs="?", choices=("cpu", "gpu"), default="cpu", help="where to measure (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    arguments = parser.parse_args()
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("No CUDA device: run this on a machine with an NVIDIA GPU and a CUDA build of torch.\n")
        return EXIT_NO_GPU
    host = machine(device)
    sys.stdout.write(f"{host}\n")
    if device.type == "cuda":
        from reasonalloc.bench import gpu

        document = {"machine": host, "timings": [asdict(timing) for timing in gpu.check_and_measure(device)]}
    else:
        from reasonalloc.bench import cpu

        timings, rounds = cpu.measure_all()
        document = {
            "machine": host,
            "timings": [asdict(timing) for timing in timings],
            "rounds": [asdict(timing) for timing in rounds],
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
