"""Loads a saved model as somebody without tlhub would, and runs it: a script for a process of its own.

    python fresh.py SPEC.json

It imports nothing of tlhub, except for a head that transformers has no class for; then it says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def main(spec: dict[str, Any]) -> None:
    """Run the model on every example, and write what it gives, the names of its outputs and how it was loaded."""
    _load_file(spec["environment"]).install()
    model, how = _open(spec)
    if how != "tlhub":
        assert "tlhub" not in sys.modules
    model.eval()
    tensors = load_file(spec["inputs"])
    outputs, inputs = {}, []
    processor = None if how == "tlhub" else _processor(spec)
    for number in range(spec["examples"]):
        batch = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{number}/")}
        with torch.no_grad():
            outputs[str(number)] = model(**batch).logits.float().contiguous()
        if processor is not None and spec["values"]:
            inputs.append(_distance(_processed(processor, spec, spec["values"][number]), batch))
    save_file(outputs, spec["outputs"])
    result = {"how": how, "names": _names(Path(spec["model"]), model), "inputs": inputs}
    Path(spec["result"]).write_text(json.dumps(result), encoding="utf-8")


def _load_file(path: str) -> Any:
    """Import a file by its place."""
    found = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _open(spec: dict[str, Any]) -> tuple[Any, str]:
    """Return the model, and by what it was loaded: an adapter by the lines that its own README gives."""
    folder = Path(spec["model"])
    if (folder / "head.json").exists():
        sys.path.insert(0, spec["root"])
        importlib.import_module("tlhub")
        saving = importlib.import_module("tlhub.models.saving")
        return saving.load_saved(folder, spec["auto_model"], spec["auto_processor"])[0], "tlhub"
    if (folder / "adapter_config.json").exists():
        lines = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(encoding="utf-8"), re.S | re.M)
        os.chdir(folder)
        given: dict[str, Any] = {}
        exec(compile(lines[0], "README.md", "exec"), given)
        return given["model"], "the lines of its README"
    transformers = importlib.import_module("transformers")
    return getattr(transformers, spec["auto_model"]).from_pretrained(folder), "transformers"


def _processor(spec: dict[str, Any]) -> Any:
    transformers = importlib.import_module("transformers")
    return getattr(transformers, spec["auto_processor"]).from_pretrained(spec["model"])


def _processed(processor: Any, spec: dict[str, Any], value: Any) -> dict[str, torch.Tensor]:
    """Return what the processor makes of a text, a pair of texts, or a picture."""
    if spec["modality"] == "image":
        with importlib.import_module("PIL.Image").open(value) as picture:
            made: dict[str, torch.Tensor] = dict(processor(picture, return_tensors="pt"))
            return made
    texts = value if isinstance(value, list) else [value]
    limit = spec["max_length"] or processor.model_max_length
    return dict(processor(*texts, truncation=limit < 10**9, max_length=min(limit, 10**9), return_tensors="pt"))


def _distance(made: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> float:
    """Return how far what the processor makes is from what tlhub made; infinite where it cannot be compared."""
    names = set(made) & {"input_ids", "pixel_values"}
    if any(made[name].shape != batch[name].shape for name in names):
        return float("inf")
    far = torch.cat([(made[name].double() - batch[name].double()).abs().flatten() for name in names])
    return float("inf") if far.isnan().any() else float(far.max())


def _names(folder: Path, model: Any) -> list[str]:
    """Return the names of the outputs in their order, from the file that holds them."""
    for name in ("head.json", "labels.json"):
        if (folder / name).exists():
            return list(json.loads((folder / name).read_text(encoding="utf-8"))["label_names"])
    named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
    names = [named[key] for key in sorted(named, key=int)]
    loaded = [model.config.id2label[index] for index in range(len(names))]
    return names if names == loaded else [f"{one} or {other}" for one, other in zip(names, loaded, strict=True)]


if __name__ == "__main__":
    sys.path.pop(0)  # this file's own folder, whose modules are not meant to be found
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
