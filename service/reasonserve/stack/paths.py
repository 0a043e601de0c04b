"""Where a stack keeps its state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from reasonserve.errors import StartupError

STATE_DIR_VARIABLE = "REASONSERVE_STATE"


@dataclass(frozen=True, slots=True)
class StatePaths:
    """Files of one state directory.

    Attributes:
        root: The directory; only its owner may enter.
    """

    root: Path

    @classmethod
    def resolve(cls, override: Path | None = None) -> StatePaths:
        """Returns the paths under ``override``, else ``$REASONSERVE_STATE``, else the user's state directory."""
        chosen = override or os.environ.get(STATE_DIR_VARIABLE) or user_state_path("reasonserve", appauthor=False)
        return cls(Path(chosen).expanduser().absolute())

    def prepare(self) -> None:
        """Creates the directory with mode 0700.

        Raises:
            StartupError: The directory cannot be created or is not ours.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise StartupError(
                f"Cannot use the state directory {self.root}: {error.strerror}. "
                f"Name a directory of your own with --state-dir or {STATE_DIR_VARIABLE}."
            ) from error

    @property
    def state_file(self) -> Path:
        """What runs now; absent when nothing does."""
        return self.root / "state.json"

    @property
    def config_file(self) -> Path:
        """The configuration in force."""
        return self.root / "config.json"

    @property
    def host_log(self) -> Path:
        """Output of the supervisor and the controller."""
        return self.root / "host.log"

    @property
    def admin_token_file(self) -> Path:
        """The administrator's token, mode 0600."""
        return self.root / "admin-token"

    @property
    def database_file(self) -> Path:
        """The controller's SQLite database."""
        return self.root / "controller.db"

    @property
    def trace_file(self) -> Path:
        """Spans as JSON lines."""
        return self.root / "spans.jsonl"
