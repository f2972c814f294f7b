"""The quickstart's page: one HTML file that needs nothing beside it, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tlhub.quickstart.charts import learning_curves
from tlhub.quickstart.gallery import gallery
from tlhub.quickstart.words import best, between, gain, lower_is_better, metric_words, next_steps, number, sizes

_STYLE = Path(__file__).with_name("page.css")
_WORDS = {
    "scratch": "fresh weights: what the data teach by themselves",
    "linear_probe": "the checkpoint frozen, a linear layer on top",
    "lora": "small adapters inside the frozen checkpoint",
    "full": "every weight of the checkpoint",
}


def write_page(path: Path, findings: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Path:
    """Write the page.

    Args:
        path: The HTML file.
        findings: Of every task (`tlhub.quickstart.findings.find`).
        facts: `seconds`, `processes`, `seed`, `versions`, and `terms` by checkpoint.

    Returns:
        `path`.
    """
    runs = sum(len(found["rows"]) for found in findings)
    sections = "\n".join(_section(found) for found in findings)
    folder = str(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>tlhub quickstart</title>
<link rel="icon" href="data:,">
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<p class="brand">tlhub <span>quickstart</span></p>
<h1>What a pretrained start is worth</h1>
<p class="lede">{runs} runs on {len(findings)} tasks in {_duration(facts["seconds"])}. On each task every strategy had
the same examples, and all that are trained step by step had the same number of steps; <em>scratch</em> begins with
fresh weights. Scores are those of a test split that chose nothing, with 95% intervals; what is called best was the
best on validation.</p>
<nav class="cards">
{"".join(map(_card, findings))}</nav>
</header>
<main>
{sections}
{_next(findings, folder)}
</main>
<footer>{_footer(facts, folder)}</footer>
</body>
</html>
""", encoding="utf-8")
    return temporary.replace(path)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _card(findings: Mapping[str, Any]) -> str:
    """Return the summary of one task: from the control's score to that of the best on validation."""
    show, control, top = findings["show"], findings["rows"][0], best(findings)
    return (f'<a class="card" href="#{escape(show["task"])}"><span class="card-title">{escape(show["title"])}</span>'
            f'<span class="card-score"><span class="from">{number(control["score"])}</span>'
            f'<span class="arrow" role="img" aria-label="to">→</span>{number(top["score"])}</span>'
            f'<span class="card-words">{escape(metric_words(findings))}<br>'
            f'{_strategy(control)} → {_strategy(top)}</span></a>\n')


def _strategy(row: Mapping[str, Any]) -> str:
    return escape(str(row["strategy"]).replace("_", " "))


def _section(findings: Mapping[str, Any]) -> str:
    """Return all that there is to say of one task."""
    show = findings["show"]
    metric = show["metric"].replace("_", " ")
    title = f'{show["title"]}: {metric} on validation against the optimizer step'
    return f"""<section id="{escape(show["task"])}">
<h2>{escape(show["title"])}</h2>
<p class="question">{escape(show["question"])}</p>
<p class="facts"><code>{escape(show["task"])}</code> · <code>{escape(show["model"])}</code> on
<code>{escape(show["data"])}</code> · {escape(sizes(findings))}</p>
<div class="pair">
{_bars(findings)}
<figure><figcaption>{escape(metric)} on validation, by optimizer step</figcaption>
{learning_curves(findings["rows"], title)}</figure>
</div>
{gallery(findings)}
</section>"""


def _bars(findings: Mapping[str, Any]) -> str:
    """Return the table of one task, with a bar and the interval in each row."""
    lower, control = lower_is_better(findings), findings["rows"][0]
    most = 1.0
    if lower:
        most = 1.02 * max([row["interval"][1] for row in findings["rows"]] + [findings["untouched"] or 0.0])
    rows = [_bar_row(row, control, most, lower=lower) for row in findings["rows"]]
    if findings["untouched"] is not None:
        rows.insert(0, f'<tr class="untouched"><th scope="row">as it is<small>the checkpoint before it is trained'
                       f'</small></th><td class="bar">{_bar(findings["untouched"], None, most)}</td>'
                       f'<td class="score">{number(findings["untouched"])}</td><td class="gain"></td>'
                       '<td class="cost"></td><td class="secs"></td></tr>')
    return f"""<div class="table"><table>
<thead><tr><th scope="col">strategy</th><th scope="col" colspan="2">{escape(metric_words(findings))}</th>
<th scope="col" class="gain">gain over scratch</th><th scope="col" class="cost">trained</th>
<th scope="col" class="secs">time</th></tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody></table></div>"""


def _bar_row(row: Mapping[str, Any], control: Mapping[str, Any], most: float, *, lower: bool) -> str:
    name = str(row["strategy"])
    words = _WORDS.get(name, "")
    more = ""
    if row is not control:
        more = (f'<span>{gain(row, control, lower=lower):+.3f}</span> '
                f'<small>{between(row["gain_interval"], signed=True)}</small>')
    return (f'<tr class="s-{escape(name)}"><th scope="row">{_strategy(row)}<small>{escape(words)}</small></th>'
            f'<td class="bar">{_bar(row["score"], row["interval"], most)}</td>'
            f'<td class="score">{number(row["score"])}<small>{between(row["interval"])}</small></td>'
            f'<td class="gain">{more}</td><td class="cost">{_short(row["trained"])}<small> weights</small></td>'
            f'<td class="secs">{row["seconds"]:.0f} s</td></tr>')


def _bar(score: float, interval: Sequence[float] | None, most: float) -> str:
    whisker = ""
    if interval is not None:
        low, high = (100 * min(max(edge / most, 0.0), 1.0) for edge in interval)
        whisker = f'<i class="whisker" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    return f'<span class="track"><i class="fill" style="width:{100 * min(score / most, 1.0):.1f}%"></i>{whisker}</span>'


def _short(count: int) -> str:
    """Return a number of weights as one reads it: 3.6 M, 46 k, 330."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 100 * size else f"{count // size} {unit}"
    return str(count)


def _next(findings: Sequence[Mapping[str, Any]], folder: str) -> str:
    steps = "\n".join(f'<dt>{escape(words[0].upper() + words[1:])}</dt><dd><pre><code>{escape(line)}</code></pre></dd>'
                      for words, line in next_steps(findings, folder))
    return f"""<section id="next">
<h2>Now your own</h2>
<p class="question">Put a folder, a table or a Hub id in the place of the data, and any Hugging Face checkpoint in the
place of the model.</p>
<dl class="steps">
{steps}
</dl>
</section>"""


def _footer(facts: Mapping[str, Any], folder: str) -> str:
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("tlhub", "torch", "transformers", "peft")
                         if name in facts["versions"])
    return (f"<p>Seed {facts['seed']}, {facts['processes']} processes of one thread each. {escape(versions)}.</p>"
            f"<p>Every run lies in <code>{escape(folder)}/TASK/STRATEGY</code>, with its configuration, scores, plots "
            "and a model that plain transformers and peft load (where the head is one that transformers has). A gain's "
            "interval is that of a paired bootstrap over the test examples, or over whole voices: it tells how far "
            "other ones could change it, and not another seed.</p>"
            + "".join(f"<p><code>{escape(name)}</code> was trained on {escape(words)}.</p>"
                      for name, words in facts["terms"].items()))
