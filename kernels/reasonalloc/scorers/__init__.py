"""Scorers by name. One file each; ``base.py`` says what one is."""

from reasonalloc.scorers import gkv, h2o, knorm, lava, random, rkv, snapkv, streaming, triattention, vase
from reasonalloc.scorers.base import Candidates, Centres, Scored, Scorer, Statistic

__all__ = ["SCORERS", "Candidates", "Centres", "Scored", "Scorer", "Statistic"]

SCORERS = {
    "rkv": rkv.SCORER,
    "rkv-released": rkv.RELEASED,
    "snapkv": snapkv.SCORER,
    "gkv": gkv.SCORER,
    "vase": vase.SCORER,
    "lava": lava.SCORER,
    "h2o": h2o.SCORER,
    "streaming": streaming.SCORER,
    "random": random.SCORER,
    "knorm": knorm.SCORER,
    "triattention": triattention.SCORER,
}
"""By the names of ``reasonalloc.methods.SCORERS``."""
