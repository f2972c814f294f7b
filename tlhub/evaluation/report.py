"""The report of a run, in Markdown: what was done, how good it is, and against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlhub.config import MULTI_LABEL, REGRESSION
from tlhub.evaluation.metrics import direction
from tlhub.evaluation.scores import flat

_MOST_ROWS = 30
_FEW_GROUPS = 10
_PLOT_ORDER = ("curves", "predicted", "det", "confusion", "reliability")
"""Beginnings of the plots' names in the order in which they are shown; others follow."""


def losing_to(metrics: Mapping[str, Any], best: str | None = None) -> list[str]:
    """Name the baselines that the model does not beat, one sentence each.

    The scores compared are those of the test split, or of validation where there is no test. A baseline is compared on
    `best` where it has that metric, otherwise on the first metric the two have in common.

    Args:
        metrics: The content of `metrics.json`.
        best: The metric that chose the model.

    Returns:
        Sentences; none where every baseline is beaten (or met by a perfect score).
    """
    split = _scored(metrics)
    scores = flat(metrics.get(split, {}))
    sentences = []
    for name, values in metrics.get("baselines", {}).items():
        baseline = flat(values)
        shared = [metric for metric, score in scores.items() if None not in (score, baseline.get(metric))]
        if not shared:
            continue
        metric = best if best in shared else shared[0]
        sign = direction(metric)
        perfect = scores[metric] == (1.0 if sign > 0 else 0.0)
        if not perfect and sign * scores[metric] <= sign * baseline[metric]:
            sentences.append(f"The model does not beat the baseline `{name}` on {split}: {metric} {scores[metric]:.4f} "
                             f"against {baseline[metric]:.4f}.")
    return sentences


def write_report(folder: Path, *, config: Mapping[str, Any], metrics: Mapping[str, Any], notes: Sequence[str] = (),
                 facts: Mapping[str, Any] | None = None, sections: Sequence[Sequence[str]] = ()) -> Path:
    """Write `report.md` into a run's folder.

    Args:
        folder: The run's folder; the plots that lie in its `plots/` are shown.
        config: The run's configuration as nested plain values.
        metrics: The content of `metrics.json`. Its `breakdown`, by split what `evaluation.breakdown` gives, and its
            `calibration`, {"temperature", "applied", "ece": {split: [before, after]}}, are told where they are there.
        notes: What was noticed about the data.
        facts: Further lines of the model card, such as versions and the checkpoint's revision.
        sections: What else is to be told of the scores, each section as its lines.

    Returns:
        The path of `report.md`.
    """
    data_source = _section(config, "data").get("source", "")
    title = f"# {metrics['task']}: {metrics['model']} on {data_source}"
    parts = [[title], _what_was_done(config, metrics), _alarms(config, metrics), _scores(metrics), _baselines(metrics),
             *sections, _breakdown(metrics), _calibration(metrics), _data(metrics, notes), _plots(folder),
             _card(config, metrics, facts or {})]
    path = folder / "report.md"
    path.write_text("\n\n".join("\n".join(part) for part in parts if part) + "\n", encoding="utf-8")
    return path


def _what_was_done(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    parameters = metrics.get("parameters", {})
    total, trained = parameters.get("total", 0), parameters.get("trainable", 0)
    share = f" ({100 * trained / total:.3g}%)" if total else ""
    sentence = (f"Strategy `{metrics['strategy']}`, seed {metrics['seed']}: {trained:,} of {total:,} parameters{share} "
                "were trained.")
    train = {name: value for name, value in _section(config, "train").items() if value is not None}
    chosen = [f"{name} {train[name]}" for name in ("epochs", "batch_size", "learning_rate") if name in train]
    return [sentence + (f" Training: {', '.join(chosen)}." if chosen else "")]


def _alarms(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    best = _section(config, "evaluate").get("best")
    return [f"> **Warning.** {sentence}" for sentence in losing_to(metrics, best)]


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    lines = ["## Scores"]
    for split in ("test", "validation"):
        scores = flat(metrics.get(split, {}))
        if not scores:
            continue
        intervals = flat(metrics.get("intervals", {}).get(split, {}))
        rows = [(name, cell(value), interval(intervals.get(name)), "higher" if direction(name) > 0 else "lower")
                for name, value in scores.items()]
        count = metrics.get("data", {}).get(split)
        caption = f"{split.capitalize()}" + (f", {count:,} examples" if isinstance(count, int) else "")
        lines += ["", f"{caption}:", "", *table(("metric", "value", "95% interval", "better"), rows)]
    lines += ["", f"Intervals are percentiles over bootstrap resamples of the {_resampled(metrics)}; they do not cover "
                  "the choice of the seed."]
    if any(found["fewest"] < _FEW_GROUPS for found in metrics.get("groups", {}).values()):
        lines += ["", f"Some class is in fewer than {_FEW_GROUPS} groups, which say little of others: an interval may "
                      "be too narrow, and there is none where most resamples lack a class."]
    if any(None in flat(metrics.get(split, {})).values() for split in ("test", "validation")):
        lines += ["", "A score without a value cannot be told from so few examples."]
    if {"mae", "rmse"} & metrics.get(_scored(metrics), {}).keys():
        lines += ["", "`mae` and `rmse` are in the units of the target; of several targets every score is the mean."]
    if not metrics.get("test"):
        lines += ["", "There was no test split: the validation scores also chose the model, and are optimistic."]
    return lines


def _resampled(metrics: Mapping[str, Any]) -> str:
    groups: Mapping[str, Mapping[str, int]] = metrics.get("groups", {})
    counts = ", ".join(f"{split} {groups[split]['all']:,}" for split in ("test", "validation") if split in groups)
    return "examples" + (f", whole groups at a time ({counts})" if counts else "")


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    baselines = {name: flat(values) for name, values in metrics.get("baselines", {}).items()}
    if not baselines:
        return []
    split = _scored(metrics)
    scores = flat(metrics.get(split, {}))
    names = [name for name in scores if any(name in values for values in baselines.values())]
    rows = [("this model", *(cell(scores[name]) for name in names))]
    rows += [(f"`{baseline}`", *(cell(values.get(name)) for name in names))
             for baseline, values in baselines.items()]
    return ["## Baselines", "", f"On {split}:", "", *table(("", *names), rows)]


def _breakdown(metrics: Mapping[str, Any]) -> list[str]:
    """Tell the scores of each class or label, the rarest first, or of each target."""
    split = _scored(metrics)
    rows: Mapping[str, Mapping[str, float | None]] = metrics.get("breakdown", {}).get(split, {})
    if not rows:
        return []
    columns = list(next(iter(rows.values())))
    of_targets = "examples" not in columns
    kind = "target" if of_targets else "label" if metrics.get("problem_type") == MULTI_LABEL else "class"
    plural = "classes" if kind == "class" else f"{kind}s"
    names = list(rows) if of_targets else sorted(rows, key=lambda name: rows[name]["examples"] or 0)
    shown = names[:_MOST_ROWS]
    caption = f"On {split}" + (":" if of_targets else ", the rarest first:")
    if len(shown) < len(names):
        caption = f"On {split}, the {len(shown)} {'first' if of_targets else 'rarest'} of {len(names)} {plural}:"
    lines = [f"## {plural.capitalize()}", "", caption, "",
             *table((kind, *columns), [(name, *(cell(rows[name][column]) for column in columns)) for name in shown])]
    if kind == "label":
        lines += ["", "A label is given where its probability is above one half."]
    return lines


def _calibration(metrics: Mapping[str, Any]) -> list[str]:
    """Tell the temperature and what it does to the expected calibration error."""
    found = metrics.get("calibration")
    if not found:
        return []
    temperature = f"Validation fits best with the logits divided by a temperature of {found['temperature']:.3f}"
    done = "; the saved model divides them, and the scores above are with it." if found["applied"] else \
        "; the saved model does not divide them (`--evaluate.calibrate true` does)."
    rows = [(split, *map(cell, errors)) for split, errors in found["ece"].items()]
    return ["## Calibration", "", temperature + done, "",
            *table(("expected calibration error", "before", "after"), rows), "",
            "The temperature was fitted on validation, whose error after it is optimistic."]


def _data(metrics: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    outputs = {MULTI_LABEL: "labels", REGRESSION: "targets"}.get(metrics.get("problem_type", ""), "classes")
    rows = [(outputs if name == "classes" else name, f"{value:,}" if isinstance(value, int) else str(value))
            for name, value in metrics.get("data", {}).items()]
    lines = ["## Data", "", *table(("", "count"), rows)]
    if notes:
        lines += ["", *(f"- {_one_line(note)}" for note in notes)]
    return lines


def _plots(folder: Path) -> list[str]:
    files = sorted((folder / "plots").glob("*.png"), key=lambda file: (_place(file.stem), file.stem))
    lines = [f"![{file.stem.replace('_', ' ')}](plots/{file.name})" for file in files]
    return ["## Plots", "", *lines] if lines else []


def _place(stem: str) -> int:
    return next((place for place, beginning in enumerate(_PLOT_ORDER) if stem.startswith(beginning)), len(_PLOT_ORDER))


def _card(config: Mapping[str, Any], metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    rows = [("task", metrics["task"]), ("base checkpoint", metrics["model"]),
            ("revision", _section(config, "model").get("revision") or "as found")]
    rows += [(name.replace("_", " "), f"{value:,.1f}") for group in ("time", "throughput")
             for name, value in metrics.get(group, {}).items() if isinstance(value, (int, float))]
    if "peak_memory_mib" in metrics:
        rows.append(("peak memory, MiB", f"{metrics['peak_memory_mib']:,.0f}"))
    rows += [(name, str(value)) for name, value in facts.items()]
    return ["## Model card", "", *table(("fact", "value"), rows)]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table with columns of one width."""
    cells = [[_one_line(str(value)).replace("|", "\\|") for value in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    padded = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
              for row in cells]
    return [padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]]


def interval(edges: Sequence[float] | None) -> str:
    """Return the ends of an interval as a report writes them; nothing for None."""
    return f"{cell(edges[0])} to {cell(edges[1])}" if edges else ""


def cell(value: float | None) -> str:
    """Return a number as a report writes it; nothing for None."""
    if value is None or isinstance(value, int):
        return "" if value is None else f"{value:,}"
    # Adding 0 makes the -0 of a small negative number a plain 0.
    return f"{round(value, 4) + 0.0:.4f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _scored(metrics: Mapping[str, Any]) -> str:
    return "test" if metrics.get("test") else "validation"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section: Mapping[str, Any] = config.get(name, {})
    return section
