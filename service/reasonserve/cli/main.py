"""``reasonserve``: the verbs of the command line."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from reasonserve.cli import demo, front, generate, model, plan, profile, stack, tenant, top, trace
from reasonserve.cli.doctor import doctor
from reasonserve.cli.output import ErrorGroup, out

app = typer.Typer(
    name="reasonserve",
    cls=ErrorGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serves reasoning models with KV memory budgets per tenant, request, layer and head.",
    epilog="Begin with: reasonserve demo",
)


@app.callback()
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Serves reasoning models with KV memory budgets per tenant, request, layer and head."""
    if show_version:
        out.print(version("reasonserve"))
        raise typer.Exit


app.command(epilog="Example: reasonserve demo")(demo.demo)
app.command(epilog="Example: reasonserve up --model smollm2-135m-instruct")(stack.up)
app.command(epilog="Example: reasonserve down")(stack.down)
app.command(epilog="Example: reasonserve status --json")(stack.status)
app.command(epilog="Example: reasonserve top --once")(top.top)
app.command(epilog="Example: reasonserve generate 'Why is the sky blue?' --budget 128 --max-new-tokens 1024")(
    generate.generate
)
app.command(epilog="Example: reasonserve trace 4bf92f3577b34da6a3ce929d0e0e4736")(trace.trace)
app.command(epilog="Example: reasonserve plan --model qwen3-8b --gpu h200 --budget 2048")(plan.plan)
app.command(epilog="Example: reasonserve doctor")(doctor)
app.add_typer(tenant.app, name="tenant")
app.add_typer(profile.app, name="profile")
app.add_typer(model.app, name="model")
app.add_typer(front.app, name="front")


def main() -> None:
    """Entry point of the ``reasonserve`` script."""
    app()
