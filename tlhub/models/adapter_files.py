"""The files beside saved adapters: labels, loading lines and the base's weights."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_base import ImageProcessingMixin

from tlhub.builtin import is_builtin
from tlhub.errors import CheckpointError
from tlhub.models.inspection import read_description
from tlhub.models.loading import damage

LABELS = "labels.json"
BASE = "base"
"""Folder for the base of a model that transformers cannot put adapters on by itself."""
README = """# Adapter

A PEFT adapter{head} over {where} (its weights: SHA-256
`{weights}`). To load it, in this folder:

```python
{code}```
"""
EMBEDDED = """from transformers import {model}, {processor}

folder = "."
model = {model}.from_pretrained(folder)
processor = {processor}.from_pretrained(folder)
"""
BESIDE = """from peft import PeftModel
from transformers import {model}, {processor}

folder = "."
base = {model}.from_pretrained(f"{{folder}}/base")
model = PeftModel.from_pretrained(base, folder).eval()
processor = {processor}.from_pretrained(folder)
"""
GENERATOR = """from peft import PeftModel
from transformers import {model}, {processor}

folder = "."
base = {model}.from_pretrained({base}, revision={revision!r}, dtype="float32")
model = PeftModel.from_pretrained(base, folder).eval()
processor = {processor}.from_pretrained(folder)
"""
SEPARATE = """import json

from peft import PeftModel
from transformers import {model}, {processor}

folder = "."
with open(f"{{folder}}/labels.json", encoding="utf-8") as file:
    names = json.load(file)["label_names"]
base = {model}.from_pretrained(
    {base},
    revision={revision!r},
    dtype="float32",
    ignore_mismatched_sizes=True,
    num_labels=len(names),
    id2label=dict(enumerate(names)),
    label2id={{name: index for index, name in enumerate(names)}},
)
model = PeftModel.from_pretrained(base, folder).eval()
processor = {processor}.from_pretrained(folder)
"""
EMBEDDING = "from tlhub.builtin import checkpoint_folder\n"
"""What a base that comes with tlhub, and is not kept beside the adapter, is found by."""


@dataclass(frozen=True)
class Labels:
    """What a saved adapter needs to know of its base.

    Attributes:
        label_names: The labels by class index; none of a language model.
        base: The base's Hub id or folder, or the name of an embedded checkpoint.
        revision: The commit of a Hub base.
        base_weight_hash: SHA-256 over the base's safetensors files.
        auto_model: transformers' class that makes the base.
        problem_type: Kind of target, by transformers' name; None where the model did not say.
    """

    label_names: tuple[str, ...]
    base: str
    revision: str | None
    base_weight_hash: str
    auto_model: str
    problem_type: str | None = None


def write_labels(folder: Path, labels: Labels) -> None:
    """Write `labels.json`."""
    (folder / LABELS).write_text(json.dumps(asdict(labels), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_labels(folder: Path) -> Labels:
    """Read `labels.json`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    name = str(folder)
    if not (folder / LABELS).is_file():
        raise CheckpointError(f"{name!r} holds an adapter without {LABELS}; give the model/ folder of a tlhub run, or "
                              "merge the adapter into its base first")
    with damage(f"the {LABELS} of {name!r} cannot be used", "make the run again"):
        values = read_description(folder / LABELS, name)
        labels = Labels(**{**values, "label_names": tuple(map(str, values["label_names"]))})
    if not all(isinstance(text, str) for text in (labels.base, labels.base_weight_hash, labels.auto_model)):
        raise CheckpointError(f"the {LABELS} of {name!r} cannot be used (what finds the base again is no text); make "
                              "the run again")
    return labels


def auto_processor_of(processor: Any) -> str:
    """Return the name of transformers' auto class that loads this processor."""
    if isinstance(processor, PreTrainedTokenizerBase):
        return "AutoTokenizer"
    return "AutoImageProcessor" if isinstance(processor, ImageProcessingMixin) else "AutoFeatureExtractor"


def write_readme(folder: Path, labels: Labels, processor: Any) -> None:
    """Write README.md with the lines that load the model by transformers and peft alone.

    Args:
        folder: The saved folder, with the base where that is kept beside the adapters.
        labels: What it says of the base.
        processor: The processor that was saved.
    """
    kind = auto_processor_of(processor)
    where = f"`{labels.base}`" + (f" at revision `{labels.revision}`" if labels.revision else "")
    embedded = (folder / "config.json").exists()
    separate = SEPARATE if labels.label_names else GENERATOR
    lines = EMBEDDED if embedded else BESIDE if (folder / BASE).exists() else separate
    if lines is SEPARATE and kind == "AutoTokenizer":
        lines += "model.config.pad_token_id = processor.pad_token_id\n"
    base = repr(labels.base)
    if is_builtin(labels.base) and "{base}" in lines:
        lines, base = f"{EMBEDDING}\n{lines}", f"checkpoint_folder({base})"
    code = lines.format(model=labels.auto_model, processor=kind, base=base, revision=labels.revision)
    head = " with its trained head" if labels.label_names else ""
    text = README.format(head=head, where=where, weights=labels.base_weight_hash, code=code)
    (folder / "README.md").write_text(text, encoding="utf-8")


def link_base(source: Path, folder: Path, head: dict[str, tuple[int, ...]]) -> None:
    """Put the base's weights into `folder`: linked where the file system can, otherwise copied.

    A file whose old head has another shape than the trained one is written anew without it, since transformers would
    refuse to load it.

    Args:
        source: The base's folder.
        folder: The folder of the adapter.
        head: Names and shapes of the head's tensors.
    """
    for path in sorted(source.glob("*.safetensors")):
        target = folder / path.name
        target.unlink(missing_ok=True)
        if dropped := _misfits(path, head):
            with safe_open(path, framework="pt") as file:
                kept = {name: file.get_tensor(name) for name in file.keys() if name not in dropped}  # noqa: SIM118 (no mapping)
            save_file(kept, target, metadata={"format": "pt"})
            continue
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
    for path in source.glob("*.safetensors.index.json"):
        _write_index(path, folder)


def _misfits(path: Path, head: dict[str, tuple[int, ...]]) -> set[str]:
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return {
        name
        for name, shape in shapes.items()
        for own, wanted in head.items()
        if (own == name or own.endswith("." + name) or name.endswith("." + own)) and shape != wanted
    }


def _write_index(path: Path, folder: Path) -> None:
    index = json.loads(path.read_text(encoding="utf-8"))
    present: set[str] = set()
    for file_name in set(index["weight_map"].values()):
        with safe_open(folder / file_name, framework="pt") as file:
            present |= set(file.keys())
    index["weight_map"] = {name: where for name, where in index["weight_map"].items() if name in present}
    (folder / path.name).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
