"""How a stack shares a busy machine with everything else on it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
WORKER_NICE = 15
"""Of Ray's workers, where its configuration says nothing else."""


def yield_to_others() -> None:
    """Lets the machine's other sessions go first: the user's, clients', and the controller's.

    Ray's workers are nice, but where Linux schedules by session (autogroup) that counts within theirs alone, and
    engines that compute all the time starve what is outside: the session itself has to be as nice. Does nothing in a
    session that others share, or where there are no such groups.
    """
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            AUTOGROUP.write_text(str(WORKER_NICE))
