r"""The classic beside the embedded language model: logistic regression on a bag of words, tuned.

    python benchmarks/embedded/bag_of_words.py --data FOLDER --work work

For every set of texts, at 16 examples a class and at all, three seeds: the same draws as `run.py` makes. Words and
pairs of words, weighed by tf-idf or merely there or not, in lower case; the weighing, the longest run of words and the
penalty are those with the best score in five-fold cross-validation. With all the data it also learns from what the
others are validated on; at 16 a class that would be several times as much as they learn from, and is left out. The
table is written as JSON beside this file.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sets import SETS, Set, draw
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

SEEDS = (0, 1, 2)
AMOUNTS = ("few", "all")
FOLDS = 5
TOKEN = r"(?u)\b\w+\b|[^\w\s]"
"""Words of one letter and signs count too: questions end otherwise than offers."""
GRID: dict[str, list[Any]] = {
    "words": [TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True),
              CountVectorizer(token_pattern=TOKEN, binary=True)],
    "words__ngram_range": [(1, 1), (1, 2)],
    "fit__C": [0.1, 1.0, 10.0, 100.0],
}


def score(chosen: Set, table: Path, amount: str, seed: int) -> tuple[float, dict[str, Any]]:
    """Return the test score of the best bag of words, and what it is."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    learned = ("train",) if amount == "few" else ("train", "validation")
    train, test = ([row for row in rows if row["split"] in splits] for splits in (learned, ("test",)))
    search = GridSearchCV(Pipeline([("words", TfidfVectorizer()), ("fit", LogisticRegression(max_iter=1000))]), GRID,
                          scoring=chosen.score, cv=FOLDS, n_jobs=1)
    search.fit([row["text"] for row in train], [row["label"] for row in train])
    found, wanted = search.predict([row["text"] for row in test]), [row["label"] for row in test]
    value = accuracy_score(wanted, found) if chosen.score == "accuracy" else f1_score(wanted, found, average="macro")
    best = search.best_params_
    return float(value), {"vectors": type(best["words"]).__name__, "longest": best["words__ngram_range"][1],
                          "C": best["fit__C"], "train": len(train), "test": len(test), "seed": seed}


def main() -> None:
    """Print the table and write it, each line as soon as it is known; what is written already is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--work"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    path = Path(__file__).with_suffix(".json")
    tables: dict[str, Any] = json.loads(path.read_text())["tables"] if path.exists() else {}
    for amount, chosen in itertools.product(AMOUNTS, SETS["text"]):
        if chosen.title in tables.setdefault(amount, {}):
            continue
        results = [score(chosen, Path(draw(chosen, given.data, given.work, amount, seed)["source"]), amount, seed)
                   for seed in SEEDS]
        values = [value for value, _ in results]
        tables[amount][chosen.title] = {"score": chosen.score, "mean": float(np.mean(values)), "seeds": values,
                                        "settings": [settings for _, settings in results]}
        print(f"{chosen.title:<10} {amount:<4} {chosen.score} {np.mean(values):.4f}  {results[0][1]}", flush=True)
        path.write_text(json.dumps({"scikit_learn": sklearn.__version__, "tables": tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
