"""How slow steps tell what they are doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

Progress = Callable[[str], None]
"""Called with one sentence at the beginning of each step."""


def silent(_: str) -> None:
    """A progress that tells nobody."""


@contextmanager
def on_console(console: Console) -> Iterator[Progress]:
    """Shows each step with its time: a spinner on a terminal, a plain line elsewhere."""
    if not console.is_terminal:
        yield lambda step: console.print(step, highlight=False)
        return
    with Bar(
        SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
    ) as bar:

        def finish_all() -> None:
            for task in bar.tasks:
                bar.update(task.id, total=1, completed=1)

        def begin(step: str) -> None:
            finish_all()
            bar.add_task(step, total=None)

        yield begin
        finish_all()
