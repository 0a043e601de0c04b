"""No committed file names a machine's own folders, a package index, or unfinished work."""

import re
from pathlib import Path

import pytest

# Spelt in pieces, so that this file keeps its own rule.
BANNED = {
    "a folder of one machine": r"(?<![\w.])/(?:ro" + r"ot|wo" + r"rk|home/\w+)/",
    "a package index": r"py" + r"pi\.org|python" + r"hosted\.org|npm" + r"js\.org|down" + r"load\.pytorch\.org",
    "unfinished work": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}


@pytest.mark.parametrize("what", BANNED)
def test_no_committed_file_has(root: Path, tracked: list[Path], what: str) -> None:
    banned = re.compile(BANNED[what])
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path in tracked
        for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), start=1)
        if banned.search(line)
    ]
    assert found == []
