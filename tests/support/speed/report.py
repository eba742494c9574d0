"""The figures as plain tables on stdout, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.speed.figures import Row, Table

HEADER = f"{'median':>10} {'lowest':>9} {'highest':>9}"
NAME = 42  # characters


def print_table(table: Table) -> None:
    """Print a line for each row, its values rounded to three digits or so."""
    print(f"\n{table.title:<{NAME}} {HEADER}")
    for row in table.rows:
        print(_line(row), flush=True)


def _line(row: Row) -> str:
    median, lowest, highest = (f"{value:.{_places(value)}f}" for value in row.spread)
    ratios = (f"{name} {value:.2f}" for name, value in row.ratios.items())
    figures = f"{row.name:<{NAME}} {median:>10} {lowest:>9} {highest:>9}"
    return "  ".join([f"{figures} {row.unit}", *ratios])


def _places(value: float) -> int:
    return 3 if value < 1 else 2 if value < 10 else 1 if value < 1000 else 0


def print_machine(machine: Mapping[str, object]) -> None:
    """Print what the figures depend on."""
    print()
    for name, value in machine.items():
        shown = " ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:<{NAME}} {shown}")


def write_json(path: Path, machine: Mapping[str, object], tables: Sequence[Table]) -> None:
    """Write all figures, with the values of each round."""
    parts = {table.title: {row.name: _values(row) for row in table.rows} for table in tables}
    path.write_text(json.dumps({"machine": machine, "figures": parts}, indent=1) + "\n")


def _values(row: Row) -> dict[str, object]:
    values, ratios = list(row.values), dict(row.ratios)
    return {"unit": row.unit, **row.spread._asdict(), "values": values, "ratios": ratios}
