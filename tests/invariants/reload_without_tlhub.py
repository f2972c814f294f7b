"""Reloads saved models with plain transformers and compares their outputs; run in a process of its own.

Heads that transformers has no class for are the exception: those folders are opened with tlhub at the end.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"image-classification": ["blue", "green", "red"], "text-classification": ["food", "sport", "weather"],
         "image-regression": ["brightness"], "audio-classification": ["high", "low", "middle"],
         "wake-word": ["other", "high"]}


def opened(auto_model: Any, folder: Path) -> Any:
    """Return a saved model; where an adapter's base lies in a folder beside it, as its README says."""
    if not (folder / "base").is_dir():
        return auto_model.from_pretrained(folder)
    from peft import PeftModel

    return PeftModel.from_pretrained(auto_model.from_pretrained(folder / "base"), folder)


def plain(task: str, folder: Path, values: list[str], continued: int) -> dict[str, np.ndarray]:
    import torch
    import transformers

    if task == "text-generation":
        return next_tokens(folder, values)
    batches: list[Any]
    if task.startswith("image"):
        from PIL import Image

        model = opened(transformers.AutoModelForImageClassification, folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        pictures = [Image.open(value).convert("RGB") for value in values]
        batches = [processor(picture, return_tensors="pt") for picture in pictures]
    elif task.startswith("text"):
        model = opened(transformers.AutoModelForSequenceClassification, folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        batches = [tokenizer(value, return_tensors="pt") for value in values]
    else:
        model = opened(transformers.AutoModelForAudioClassification, folder)
        batches = sounds(transformers.AutoFeatureExtractor.from_pretrained(folder), values, continued)
    model.eval()
    names = NAMES[task]
    assert [model.config.id2label[index] for index in range(len(names))] == names
    with torch.no_grad():
        return {"logits": np.concatenate([model(**batch).logits.float().numpy() for batch in batches])}


def sounds(extractor: Any, values: list[str], continued: int) -> list[Any]:
    """Return sound files as batches of one.

    Args:
        extractor: The checkpoint's own.
        values: The files.
        continued: Up to how many samples silence follows a clip; 0 for none.
    """
    import soundfile

    batches = []
    for value in values:
        wave, rate = soundfile.read(value, dtype="float32")
        assert rate == extractor.sampling_rate
        wave = np.pad(wave, (0, max(0, continued - len(wave))))
        batches.append(extractor(wave, sampling_rate=rate, return_tensors="pt"))
    return batches


def next_tokens(folder: Path, values: list[str]) -> dict[str, np.ndarray]:
    """Return the logits of every next token, and how unlikely each text is between its beginning and its end."""
    import torch
    import transformers

    model = opened(transformers.AutoModelForCausalLM, folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    logits, nll = [], []
    for value in values:
        tokens = tokenizer(value, return_tensors="pt")
        whole = torch.tensor([[tokenizer.bos_token_id, *tokens["input_ids"][0].tolist(), tokenizer.eos_token_id]])
        with torch.no_grad():
            logits.append(model(**tokens).logits[0].float().numpy())
            scores = model(input_ids=whole).logits[0, :-1].float()
        nll.append(float(torch.nn.functional.cross_entropy(scores, whole[0, 1:], reduction="sum")))
    return {"logits": np.concatenate(logits), "nll": np.array(nll)}


def distance(found: dict[str, np.ndarray], folder: Path) -> float:
    """Return the largest difference from what was expected, as a share of the largest number where that is above 1."""
    expected = np.load(folder / "expected.npz")
    assert sorted(expected.files) == sorted(found)
    return max(float(np.abs(found[name] - expected[name]).max() / max(1.0, np.abs(expected[name]).max()))
               for name in expected.files)


def main() -> None:
    """Print as JSON how each cell was reloaded, or how far off it was."""
    runpy.run_path(str(Path(__file__).parents[1] / "standins.py"))
    cells = json.loads(Path(sys.argv[1]).read_text())
    found, custom = {}, {}
    for cell, out in cells.items():
        folder = Path(out)
        if (folder / "model" / "head.json").exists():
            custom[cell] = folder
            continue
        given = json.loads((folder / "values.json").read_text())
        off = distance(plain(cell.split("|")[1], folder / "model", **given), folder)
        found[cell] = "plain transformers" if off < 1e-5 else f"off by {off}"
    assert "tlhub" not in sys.modules
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import tlhub

    for cell, folder in custom.items():
        run = tlhub.load(folder)
        values = json.loads((folder / "values.json").read_text())["values"]
        off = distance({"logits": run.logits(run.inputs(run.task.read(values, pairs=False)))}, folder)
        found[cell] = "tlhub head" if off < 1e-5 else f"off by {off}"
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
