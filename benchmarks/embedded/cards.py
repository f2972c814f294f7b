r"""Write the tables of `run.py` into the model cards of the embedded checkpoints, and their means into `card.json`.

    python benchmarks/embedded/cards.py

It takes what results there are, and says how many rows each has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sets import SETS

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "tlhub" / "builtin" / "models"
BEGIN, END = "<!-- scores: written by benchmarks/embedded/cards.py -->", "<!-- end of scores -->"
STRATEGIES = ("scratch", "linear_probe", "lora", "full")
AMOUNTS = {"few": "16 examples a class", "all": "all training examples"}


def table(rows: dict[str, Any]) -> list[str]:
    """Return the lines of one table: mean over three seeds, and the 95% interval; last the mean of the lines."""
    lines = [f"| | {' | '.join(STRATEGIES)} |", "|---" * (len(STRATEGIES) + 1) + "|"]
    for title, row in rows.items():
        cells = []
        for strategy in STRATEGIES:
            found = row["strategies"][strategy]
            low, high = found["interval"]
            cells.append(f"{found['mean']:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {title}, {row['score'].replace('_', ' ')} | {' | '.join(cells)} |")
    means = [np.mean([row["strategies"][strategy]["mean"] for row in rows.values()]) for strategy in STRATEGIES]
    return [*lines, f"| mean | {' | '.join(f'{mean:.3f}' for mean in means)} |"]


def scores(tables: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the means by set and amount, then by strategy."""
    return {f"{title}, {AMOUNTS[amount]}": {name: round(found["mean"], 4) for name, found in row["strategies"].items()}
            for amount, rows in tables.items() for title, row in rows.items()}


def main() -> None:
    """Write what there are results for."""
    for path in sorted(HERE.glob("*.json")):
        folder = MODELS / path.stem
        if not folder.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))["tables"]
        tables = {amount: {chosen.title: rows[chosen.title] for chosen in SETS[path.stem] if chosen.title in rows}
                  for amount, rows in found.items()}
        lines = [BEGIN]
        for amount, words in AMOUNTS.items():
            if amount in tables:
                lines += ["", f"Test scores with {words}, mean of three seeds and 95% interval:", "",
                          *table(tables[amount])]
        card = (folder / "README.md").read_text(encoding="utf-8")
        before, rest = card.split(BEGIN)
        (folder / "README.md").write_text(before + "\n".join([*lines, "", END]) + rest.split(END)[1], encoding="utf-8")
        facts = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        facts["scores"] = scores(tables)
        (folder / "card.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        print(f"{path.stem}: {sum(map(len, tables.values()))} rows")


if __name__ == "__main__":
    main()
