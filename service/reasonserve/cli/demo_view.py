"""How the demo shows a stream and its outcome, on a terminal and in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reasonserve.api.v1 import generation_service_pb2 as pb
from reasonserve.cli.demo_run import Progress, Run
from reasonserve.cli.output import table

SHOWN_LINES = 8
LOG_EVERY_TOKENS = 128

Watch = Callable[[Progress], None]


def stock_slots(prompt_tokens: int, output_tokens: int) -> int:
    """Returns the slots an uncompressed cache holds: one for each token so far. Computed, not measured."""
    return prompt_tokens + output_tokens


def figures(prompt: pb.Usage, progress: Progress) -> str:
    """Returns the live line.

    The shared part of the prompt is counted on both sides; private slots are as the engine reports them.
    """
    return (
        f"KV slots held: {prompt.cached_tokens + progress.held_slots}"
        f" | stock SGLang would hold: {stock_slots(prompt.input_tokens, progress.output_tokens)}"
        f" | rounds: {progress.rounds} | tokens: {progress.output_tokens}"
    )


@contextmanager
def watching(console: Console, prompt: pb.Usage, tokens: int, *, with_text: bool) -> Iterator[Watch]:
    """Shows a stream while the body runs: live on a terminal, a line every 128 tokens elsewhere.

    Args:
        console: Where to.
        prompt: The prompt's tokens, and those of them that the prefix cache shares.
        tokens: Tokens that will be generated.
        with_text: Show the generated text too.
    """
    if not console.is_terminal:
        yield _log_lines(console, prompt, with_text)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda progress: live.update(_frame(console, prompt, tokens, progress, with_text))


def _frame(console: Console, prompt: pb.Usage, tokens: int, progress: Progress, with_text: bool) -> Group:
    bar = ProgressBar(total=tokens, completed=progress.output_tokens)
    line = Text(figures(prompt, progress), style="bold cyan")
    if not with_text:
        return Group(bar, line)
    wrapped = Text(progress.text).wrap(console, console.width - 4)
    shown = Text("\n").join(wrapped[-SHOWN_LINES:])
    return Group(Panel(shown, title="thinking", height=SHOWN_LINES + 2), bar, line)


def _log_lines(console: Console, prompt: pb.Usage, with_text: bool) -> Watch:
    told_tokens = told_chars = 0

    def tell(progress: Progress) -> None:
        nonlocal told_tokens, told_chars
        if progress.output_tokens - told_tokens < LOG_EVERY_TOKENS:
            return
        told_tokens = progress.output_tokens
        if with_text:
            console.print(Text(progress.text[told_chars:]), soft_wrap=True)
            told_chars = len(progress.text)
        console.print(figures(prompt, progress), soft_wrap=True)

    return tell


def comparison(bounded: Run, full: Run) -> Table:
    """Returns both runs side by side; every figure is measured."""
    made = table("measured", "with a budget", "without", title="The same request, twice")
    for name, show in _ROWS.items():
        made.add_row(name, show(bounded), show(full))
    return made


_ROWS: dict[str, Callable[[Run], str]] = {
    "KV budget (tokens per layer and head)": lambda run: str(run.budget_tokens) if run.budget_tokens else "none",
    "output tokens": lambda run: str(run.output_tokens),
    "peak private KV slots": lambda run: str(run.peak_slots),
    "compression rounds": lambda run: str(run.rounds),
    "cells kept": lambda run: f"{run.kept_cells:,}",
    "cells evicted": lambda run: f"{run.evicted_cells:,}",
    "time to first token (s)": lambda run: f"{run.first_token_s:.2f}",
    "tokens/s after the first": lambda run: f"{run.tokens_per_s:.1f}",
}
