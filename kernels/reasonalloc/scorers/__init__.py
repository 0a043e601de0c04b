"""Scorers by name. One file each; ``base.py`` says what one is."""

from reasonalloc.scorers import rkv, snapkv
from reasonalloc.scorers.base import Candidates, Scored, Scorer, Statistic

__all__ = ["SCORERS", "Candidates", "Scored", "Scorer", "Statistic"]

SCORERS = {
    "rkv": rkv.SCORER,
    "snapkv": snapkv.SCORER,
}
