"""What the quickstart's tests share: findings as its runs would give them, without any run."""

from __future__ import annotations

from typing import Any

SOURCE = "data:image/png;base64,AAAA"


def show(task: str = "image-classification", metric: str = "accuracy", **changes: Any) -> dict[str, Any]:
    """Return a show as plain values."""
    return {"task": task, "title": f"Title of {task}", "question": "What is it?", "model": "builtin/some",
            "data": "builtin/other", "metric": metric, "options": {}, "training": {}, "own": {},
            "strategies": ["scratch", "linear_probe", "lora", "full"], **changes}


def row(strategy: str, score: float, **changes: Any) -> dict[str, Any]:
    """Return what is told of one strategy."""
    gain = None if strategy == "scratch" else [0.05, 0.25]
    curve = [] if strategy == "linear_probe" else [[5, score - 0.2], [10, score - 0.05], [15, score]]
    return {"strategy": strategy, "score": score, "interval": [score - 0.05, score + 0.04], "gain_interval": gain,
            "trained": 3_589_130, "total": 3_600_000, "seconds": 12.3, "learning_rate": 1e-3, "validation": score,
            "curve": curve, **changes}


def example(label: str = "seven", **content: str) -> dict[str, Any]:
    """Return an example with two strategies' answers, the first of them wrong."""
    return {"label": label, "title": label, "id": "test/1", **content,
            "answers": {"scratch": {"label": "two", "score": 0.4, "right": False},
                        "full": {"label": label, "score": 0.9, "right": True}}}


def findings(kind: str = "image") -> dict[str, Any]:
    """Return the findings of one task: of `image`, `text`, `audio`, or `corpus`, whose scores are better if lower."""
    corpus = kind == "corpus"
    contents = {"image": {"source": SOURCE}, "text": {"text": "where is it?"},
                "audio": {"source": "data:audio/ogg;base64,AAAA"}}
    tasks = {"image": "image-classification", "text": "text-classification", "audio": "wake-word",
             "corpus": "text-generation"}
    scores = {"scratch": 3.2, "lora": 2.6, "full": 2.4} if corpus else \
        {"scratch": 0.6, "linear_probe": 0.72, "lora": 0.81, "full": 0.8}
    drawn = [{"prompt": "The", "before": "sea", "after": {"scratch": "of of", "full": "statement"}}] if corpus \
        else [example(**contents[kind])]
    data = {"train": 50, "validation": 20, "test": 90}
    data |= {"train_tokens": 9000, "validation_tokens": 500, "test_tokens": 700} if corpus else {"classes": 10}
    return {"show": show(tasks[kind], "bits_per_byte" if corpus else "accuracy", strategies=list(scores)),
            "lower_is_better": corpus, "data": data, "rows": [row(name, score) for name, score in scores.items()],
            "untouched": 3.0 if corpus else None,
            "exhibit": {"kind": kind, "best": "lora", "drawn": drawn,
                        "left": [] if corpus else [example("one", **contents[kind])]}}


FACTS = {"seconds": 131.4, "processes": 2, "seed": 0, "versions": {"tlhub": "0.1", "torch": "2.13.0"},
         "terms": {"builtin/some": "Some Pictures (research only)"}}
"""What else the page tells."""
