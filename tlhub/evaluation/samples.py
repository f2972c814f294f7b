"""What a text generator makes of a few prompts, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def samples_section(samples: Sequence[Mapping[str, str | None]]) -> list[str]:
    """Return a section of the report: each prompt with what follows it before and after training.

    Args:
        samples: Dictionaries with `prompt`, `before` (None where the weights were fresh) and `after`.
    """
    lines = ["## Samples", "", "The most likely continuation, token by token, before and after training."]
    for sample in samples:
        lines += ["", f"Prompt: {_quoted(sample['prompt'])}", ""]
        lines += [f"- {when}: {_quoted(sample[when])}" for when in ("before", "after") if sample.get(when) is not None]
    return lines


def _quoted(text: str | None) -> str:
    """Return a text as code on one line, which Markdown leaves as it is."""
    shown = (text or "").replace("`", "'").replace("\r", "").replace("\n", " ⏎ ").strip()
    return f"`{shown}`" if shown else "(nothing)"
