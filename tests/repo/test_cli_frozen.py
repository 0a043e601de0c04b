"""The command line is a promise: its commands, arguments and options are frozen in a golden file.

After a wanted change: ``python tests/repo/test_cli_frozen.py`` writes the file anew.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from reasonserve.cli.main import app

GOLDEN = Path(__file__).parents[1] / "golden" / "cli.txt"


def lines(command: Any, path: str) -> Iterator[str]:
    """Yields one line for a command and each parameter, then those of its subcommands."""
    yield path
    for parameter in command.params:
        names = " / ".join([*parameter.opts, *parameter.secondary_opts])
        annotation = parameter.type_descriptor.annotation
        facts = [
            f"<{getattr(annotation, '__name__', annotation)}>",
            "required" if parameter.required else f"default {parameter.default}",
            f"env {parameter.envvar}" if parameter.envvar else "",
            "hidden" if parameter.hidden else "",
        ]
        yield f"    {names} {' '.join(filter(None, facts))}"
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from lines(child, f"{path} {name}")


def frozen() -> str:
    return "\n".join(lines(get_command(app), "reasonserve")) + "\n"


def test_commands_and_options_are_the_frozen_ones() -> None:
    assert frozen() == GOLDEN.read_text()


def test_every_command_teaches_by_example() -> None:
    def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", {})
        if not children:
            yield path, command
        for name, child in children.items():
            yield from leaves(child, f"{path} {name}".strip())

    silent = [path for path, leaf in leaves(get_command(app), "") if f"reasonserve {path}" not in (leaf.epilog or "")]
    assert silent == []


def test_the_command_line_imports_no_gpu_stack() -> None:
    code = "import sys, reasonserve.cli.main; print([m for m in ('torch', 'ray', 'sglang') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    GOLDEN.write_text(frozen())
