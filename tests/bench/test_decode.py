"""What the plugin costs per token: how ratios are told."""

from rich.console import Console

from reasonserve.bench.decode import Row, table


def shown(*rows: Row) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(table(rows))
    return capture.get()


def row(engine: str, speed: tuple[float, ...], work: tuple[float, ...]) -> Row:
    return Row(engine, 8, speed, work, tuple(0.01 * turn for turn in range(1, len(speed) + 1)))


def test_ratios_are_those_of_each_turn() -> None:
    """A machine that slows down from turn to turn must not look like a slow engine."""
    stock = row("stock", (10.0, 20.0, 40.0), (4.0, 2.0, 1.0))
    lines = shown(stock, row("rounds", (9.0, 20.0, 42.0), (4.0, 2.5, 1.0))).splitlines()
    told = next(line for line in lines if "rounds " in line and "8" in line)
    assert "1.000 (0.900-1.050)" in told
    assert "1.000 (0.800-1.000)" in told
    assert "2.00%" in told


def test_one_turn_has_no_range() -> None:
    told = shown(row("stock", (10.0,), (4.0,)), row("loaded", (9.0,), (5.0,)))
    assert "0.900" in told
    assert "0.800" in told
    assert "(" not in told
