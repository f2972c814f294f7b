"""The page's examples: pictures, messages, clips to listen to, and texts before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

Item = Mapping[str, Any]
_LEGENDS = {"audio": "The share is the probability that the wake word was said; each strategy decides at the "
                     "threshold that validation gave it."}
_HEADINGS = {"image": ("Drawn at random from the test pictures", "Still wrong after {best}"),
             "text": ("Drawn at random from the test messages", "Still wrong after {best}"),
             "audio": ("Drawn at random from the test clips", "Still wrong after {best}"),
             "corpus": ("How it goes on with texts that it never saw", "")}


def gallery(findings: Mapping[str, Any]) -> str:
    """Return the examples of one task, and of those that the best strategy gets wrong a few more.

    Args:
        findings: Of the task; its `exhibit` says of which kind they are.
    """
    from_kind: dict[str, Callable[[Item], str]] = {"image": _picture, "text": _message, "audio": _clip,
                                                   "corpus": _continuation}
    shown = findings["exhibit"]
    kind = shown["kind"]
    parts: list[str] = []
    for heading, items in zip(_HEADINGS[kind], (shown["drawn"], shown["left"]), strict=True):
        if items:
            title = heading.format(best=str(shown["best"]).replace("_", " "))
            legend = f'<p class="legend">{escape(_LEGENDS[kind])}</p>' if kind in _LEGENDS and not parts else ""
            parts.append(f'<h3>{escape(title)}</h3>\n{legend}<div class="gallery {escape(kind)}">'
                         + "\n".join(from_kind[kind](item) for item in items) + "</div>")
    return "\n".join(parts)


def _picture(item: Item) -> str:
    return (f'<figure class="example"><img src="{escape(item["source"])}" alt="{escape(item["label"])}">'
            f'<figcaption>{_label(item)}</figcaption>{_answers(item)}</figure>')


def _message(item: Item) -> str:
    return (f'<div class="example"><blockquote>{escape(item["text"])}</blockquote>'
            f'<p class="truth">{_label(item)}</p>{_answers(item)}</div>')


def _clip(item: Item) -> str:
    return (f'<div class="example"><p class="truth">{_label(item)}</p>'
            f'<audio controls preload="none" aria-label="{escape(_readable(item["title"]))}" '
            f'src="{escape(item["source"])}"></audio>{_answers(item)}</div>')


def _label(item: Item) -> str:
    return f'<span class="label">{escape(_readable(item["title"]))}</span>'


def _answers(item: Item) -> str:
    """Return what each strategy says of an example."""
    lines = []
    for name, answer in item["answers"].items():
        right = "right" if answer["right"] else "wrong"
        lines.append(f'<li class="{right}"><span class="who">{escape(name.replace("_", " "))}</span>'
                     f'<span class="said">{escape(_readable(answer["label"]))}</span>'
                     f'<span class="sure">{100 * answer["score"]:.0f}%</span>'
                     f'<span class="mark" role="img" aria-label="{right}">'
                     f'{"✓" if answer["right"] else "✗"}</span></li>')
    return f'<ul class="answers">{"".join(lines)}</ul>'


def _readable(label: Any) -> str:
    return str(label).replace("_", " ")


def _continuation(item: Item) -> str:
    after: Mapping[str, str] = item["after"]
    texts: Sequence[tuple[str, str]] = [*([("as it is", item["before"])] if item["before"] is not None else []),
                                        *((name.replace("_", " "), text) for name, text in after.items())]
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts)
    return f'<div class="example"><blockquote>{escape(item["prompt"])}</blockquote><dl>{lines}</dl></div>'
