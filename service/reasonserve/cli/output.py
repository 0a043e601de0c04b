"""What the command line prints: answers on stdout, everything else on stderr."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer import Exit
from typer.core import TyperGroup

from reasonserve.errors import BudgetExhaustedError, ReasonServeError
from reasonserve.status import from_rpc_error

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

MIB = 1 << 20


class ErrorGroup(TyperGroup):
    """Turns every error of a command into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command.

        Raises:
            Exit: With code 1 after an error, 130 after Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except ReasonServeError as error:
            print_error(error)
            raise Exit(1) from error
        except grpc.RpcError as error:
            print_error(from_rpc_error(error))
            raise Exit(1) from error
        except KeyboardInterrupt as error:
            raise Exit(130) from error


def print_error(error: ReasonServeError) -> None:
    """Prints what was given, what is allowed and what to do; says when to retry if that helps."""
    line = Text(f"Error: {error.message}", style="red")
    if isinstance(error, BudgetExhaustedError):
        line.append(f" Retry in {error.retry_after_s:.1f} s.", style="bold red")
    err.print(line, soft_wrap=True)


def print_json(*messages: Message) -> None:
    """Prints responses as one JSON object with the field names of the protocol."""
    data: dict[str, Any] = {}
    for message in messages:
        data |= MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    out.print_json(data=data)


def table(*columns: str, title: str | None = None) -> Table:
    """Returns an empty table whose columns after the first are aligned right."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", overflow="fold")
    return made


def slots_and_mib(slots: int, bytes_per_slot: int) -> str:
    """Returns slots with their MiB below; slots alone when the size of one is not known."""
    return f"{slots}\n{slots * bytes_per_slot / MIB:.1f} MiB" if bytes_per_slot else str(slots)
