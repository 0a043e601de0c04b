"""Token files: a secret each, drawn at the first start and readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from reasonserve.controller_client import read_admin_token
from reasonserve.errors import StartupError


def ensure_token(path: Path) -> str:
    """Returns the token of a file; draws one into a file of mode 0600 where there is none.

    Raises:
        StartupError: Others may read the file, or it cannot be read or written.
    """
    try:
        _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise StartupError(f"Cannot use the token file {path}: {error.strerror}.") from error
    if mode & 0o077:
        raise StartupError(
            f"The token file {path} has mode {mode:04o}, so others may have read the token: "
            f"delete it and restart to draw a new one, or run `chmod 600 {path}` if nobody did."
        )
    return read_admin_token(path)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
