"""Whether the memory of processes grows: samples in, slopes with their confidence out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIB = 1 << 20
FEWEST = 12
"""Samples that a slope takes."""
_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process.

    Attributes:
        role: What it is: controller, proxy, gateway, replica, engine.
        pid: Which.
        at_s: When, from the beginning of the load.
        rss: Resident bytes.
    """

    role: str
    pid: int
    at_s: float
    rss: int


@dataclass(frozen=True, slots=True)
class Slope:
    """How the memory of one process went.

    Attributes:
        role: What it is.
        pid: Which.
        life: "whole", or "killed" or "started" where it does not live through all the load.
        samples: Samples that are judged.
        first_mib, last_mib: The first and the last of them.
        per_hour: Least-squares slope in MiB an hour; None where there are too few samples.
        low, high: Its 95% confidence interval.
    """

    role: str
    pid: int
    life: str
    samples: int
    first_mib: float
    last_mib: float
    per_hour: float | None = None
    low: float | None = None
    high: float | None = None


def fit(at_s: Sequence[float], mib: Sequence[float]) -> tuple[float, float, float]:
    """Returns a least-squares slope in MiB an hour and the ends of its 95% confidence interval.

    Memory wanders, so the residuals of neighbouring samples are alike: with a correlation r between them the standard
    error is taken to be ``sqrt((1 + r) / (1 - r))`` times that of independent samples.

    Args:
        at_s: Times in seconds, at least three and not all the same.
        mib: Memory at each.
    """
    hours, values = np.asarray(at_s) / 3600, np.asarray(mib)
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    slope = float((centred * (values - values.mean())).sum()) / spread
    rest = values - values.mean() - slope * centred
    power = float((rest**2).sum())
    error = (power / (len(values) - 2) / spread) ** 0.5
    likeness = float((rest[1:] * rest[:-1]).sum()) / power if power > 0 else 0.0
    likeness = min(max(likeness, 0.0), 0.99)
    half = _Z95 * error * ((1 + likeness) / (1 - likeness)) ** 0.5
    return slope, slope - half, slope + half


def slopes(samples: Sequence[Sample], *, warm_up_s: float) -> list[Slope]:
    """Returns the slope of every process, by role.

    Args:
        samples: In order of time; those of one look have the same time.
        warm_up_s: What is left out of each process's time from its first sample on.
    """
    by_process: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        by_process.setdefault((sample.role, sample.pid), []).append(sample)
    times = [sample.at_s for sample in samples]
    return [
        _slope(seen, warm_up_s=warm_up_s, first_s=min(times), last_s=max(times))
        for _, seen in sorted(by_process.items(), key=lambda item: (item[0][0], item[1][0].at_s, item[0][1]))
    ]


def growth_faults(found: Sequence[Slope], *, most: float) -> list[str]:
    """Returns the processes that grow faster than so many MiB an hour, the whole of the interval above it."""
    return [
        f"{slope.role} {slope.pid} grows by at least {slope.low:.0f} MiB an hour; at most {most:.0f} are let be"
        for slope in found
        if slope.low is not None and slope.low > most
    ]


def _slope(seen: Sequence[Sample], *, warm_up_s: float, first_s: float, last_s: float) -> Slope:
    role, pid = seen[0].role, seen[0].pid
    life = "killed" if seen[-1].at_s < last_s else "started" if seen[0].at_s > first_s else "whole"
    kept = [sample for sample in seen if sample.at_s >= seen[0].at_s + warm_up_s]
    judged = kept or seen[-1:]
    first, last = judged[0].rss / MIB, judged[-1].rss / MIB
    if len(kept) < FEWEST:
        return Slope(role, pid, life, len(kept), first, last)
    return Slope(role, pid, life, len(kept), first, last, *fit([s.at_s for s in kept], [s.rss / MIB for s in kept]))
