"""What a checkpoint's files ask for, seen before a library reads them.

Descriptions can name code to be run, other files, and sizes that fill the memory while a model is being built. Weights
are safetensors, of which only the header is read here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tlhub.errors import CheckpointError

SETTINGS = "config.json"
ADAPTER_SETTINGS = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
INDEX = "*.safetensors.index.json"
ADAPTERS = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "RANDLORA", "VERA", "OFT", "BOFT")
"""PEFT's names of the methods that tlhub has."""
_DESCRIPTION = re.compile(
    r"(config|(adapter|audio_tokenizer|feature_extractor|generation|image_processor|preprocessor|processor|tokenizer|"
    r"video_preprocessor)_config|special_tokens_map|added_tokens|chat_template|labels|head)(\..+)?\.json|"
    r".+\.index(\..+)?\.json")
"""Names of the JSON files that libraries read, with their versions, but for those of a vocabulary, which cannot ask for
anything. Others, such as settings of a trainer, are nobody's concern."""
_MOST_BYTES = 2**24
_REPEATED = ((re.compile(r"layer|depth|stage|block_num"), 10**4), (re.compile(r"label|expert|codebook"), 10**6))
"""Names of numbers that something is repeated by, in Python, while a model is described or built, and the most."""
_LARGEST = {"height": 2**14, "width": 2**14, "input_size": 2**14, "n_fft": 2**16, "feature_size": 2**14,
            "num_mel_bins": 2**14, "sampling_rate": 2**18, "chunk_length": 3600, "nb_max_frames": 10**7}
"""Sizes of what an image processor or a feature extractor makes of one input, or holds for that."""
_OF_TIMM = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of `timm.create_model` that make it read other files."""
_OF_LABELS = ("id2label", "label2id")
"""Settings whose names are those of labels: a `player` is no layer, however large its number."""
_WHOLE_NUMBERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


def inspect_checkpoint(folder: Path, name: str) -> None:
    """Check the files of a checkpoint before any library reads them.

    Args:
        folder: Holds them; folders within it are not looked at.
        name: What messages call the checkpoint.

    Raises:
        CheckpointError: A description asks for code or for another kind of weights, is no JSON or of no sensible size,
            or weights are no safetensors, or are missing.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path.name!r} of {name!r} is no file; give a checkpoint with all its files")
        if _DESCRIPTION.fullmatch(path.name) and path.is_file():
            _check_description(path, name)
    for path in folder.glob(INDEX):
        _check_shards(path, name)
    for path in sorted(folder.glob("*.safetensors")):
        for tensor, (kind, shape) in read_header(path, name).items():
            if kind in _WHOLE_NUMBERS and _is_parameter(tensor, shape):
                raise CheckpointError(f"{path.name!r} of {name!r} holds whole numbers ({kind}) as {tensor!r}; take a "
                                      "checkpoint that is not quantised")


def read_header(path: Path, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each tensor of a safetensors file, without reading them.

    Args:
        path: The file.
        name: What messages call the checkpoint.

    Raises:
        CheckpointError: It is no safetensors file, or damaged or incomplete.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {tensor: file.get_slice(tensor) for tensor in file.keys()}  # noqa: SIM118 (no mapping)
            return {tensor: (found.get_dtype(), tuple(found.get_shape())) for tensor, found in slices.items()}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        with path.open("rb") as raw:
            start = raw.read(2)
        reason = " ".join(str(error).split())
        if start[:1] == b"\x80" or start == b"PK":
            raise CheckpointError(f"{path.name!r} of {name!r} is a pickle with another ending; tlhub reads safetensors "
                                  "only: convert the checkpoint, or take a revision that has them") from error
        raise CheckpointError(f"{path.name!r} of {name!r} cannot be read ({reason}); it is damaged or incomplete, "
                              "fetch it again") from error


def _is_parameter(tensor: str, shape: tuple[int, ...]) -> bool:
    """Tell by its name; a bias of several dimensions is a mask of attention, as older files of decoders hold it."""
    last = tensor.rpartition(".")[2]
    return last == "weight" or (last == "bias" and len(shape) == 1)


@dataclass(frozen=True)
class Brought:
    """How much the weights of a checkpoint are.

    Attributes:
        tensors: Their number.
        numbers: How many numbers they hold together.
    """

    tensors: int
    numbers: int


def brought_by(paths: Iterable[Path], name: str) -> Brought:
    """Return how much safetensors files hold.

    Args:
        paths: The files.
        name: What messages call the checkpoint.

    Raises:
        CheckpointError: One of them is no safetensors file.
    """
    shapes = [shape for path in paths for _, shape in read_header(path, name).values()]
    return Brought(len(shapes), sum(map(math.prod, shapes)))


def read_description(path: Path, name: str) -> dict[str, Any]:
    """Return what a JSON file of a checkpoint says.

    Args:
        path: The file.
        name: What messages call the checkpoint.

    Raises:
        CheckpointError: It is no JSON object, holds NaN, or is larger than any description.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"{path.name!r} of {name!r} is {path.stat().st_size / 2**20:.0f} MiB large, the limit is "
                              f"{_MOST_BYTES / 2**20:.0f}; fetch the checkpoint again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_constant)
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path.name!r} of {name!r} cannot be read ({' '.join(str(error).split())}); fetch the "
                              "checkpoint again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name!r} of {name!r} holds a {type(value).__name__}, not settings by name; fetch "
                              "the checkpoint again")
    return value


def _constant(word: str) -> float:
    if word == "NaN":
        raise ValueError("it holds NaN")
    return float(word)


def _check_description(path: Path, name: str) -> None:
    settings = read_description(path, name)
    for key, value in _entries(settings):
        if key == "auto_map" and value:
            raise CheckpointError(
                f"{path.name!r} of {name!r} asks for code of its own to be run ({_named(value)}), which tlhub never "
                "does; take a checkpoint of an architecture that transformers has itself, or, where it has this one, a "
                "copy of the folder without 'auto_map' in that file")
        if key in ("attn_implementation", "_attn_implementation", "experts_implementation") and "/" in str(value):
            raise CheckpointError(f"{path.name!r} of {name!r} asks for compiled code from the Hub ({str(value)!r}), "
                                  f"which tlhub never runs; take {key!r} out of a copy of it")
        limit = _LARGEST.get(key) or next((most for words, most in _REPEATED if words.search(key)), None)
        most = max((number for number in (value if isinstance(value, list) else [value])
                    if isinstance(number, (int, float))), default=0)
        if limit is not None and most > limit:
            raise CheckpointError(f"{path.name!r} of {name!r} says {key!r} is {most:g}, more than {limit}; fetch the "
                                  "checkpoint again")
    if path.name.startswith("config"):
        _check_own(settings, path.name, name)
    if path.name == ADAPTER_SETTINGS:
        _check_adapter(path, settings, name)


def _check_own(settings: dict[str, Any], file: str, name: str) -> None:
    if settings.get("quantization_config"):
        raise CheckpointError(f"{file!r} of {name!r} describes quantised weights; take a checkpoint that is not "
                              "quantised")
    for key, value in _entries(settings):
        if key == "model_args" and isinstance(value, dict) and (other := sorted(value.keys() & set(_OF_TIMM))):
            raise CheckpointError(f"{file!r} of {name!r} makes timm read other files ({other[0]!r}: "
                                  f"{value[other[0]]!r}); take it out of a copy of it")


def _check_adapter(path: Path, settings: dict[str, Any], name: str) -> None:
    kind = settings.get("peft_type")
    if kind not in ADAPTERS:
        raise CheckpointError(f"{path.name!r} of {name!r} describes adapters of the kind {kind!r}; tlhub reads "
                              f"{', '.join(ADAPTERS)}")
    if settings.get("megatron_config") is not None:
        raise CheckpointError(f"{path.name!r} of {name!r} asks for a module of its own to be imported "
                              f"({settings.get('megatron_core')!r}), which tlhub never does; take 'megatron_config' "
                              "out of a copy of it")
    if not (path.parent / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{name!r} holds adapters without {ADAPTER_WEIGHTS!r}; tlhub reads safetensors only: "
                              "convert them")


def _check_shards(path: Path, name: str) -> None:
    shards = read_description(path, name).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise CheckpointError(f"{path.name!r} of {name!r} does not say which file holds which tensor; fetch the "
                              "checkpoint again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{path.name!r} of {name!r} names {shard!r}, which is no safetensors file beside it; "
                                  "fetch the checkpoint again")
        if not (path.parent / shard).is_file():
            raise CheckpointError(f"{name!r} lacks {shard!r}, which {path.name!r} names; fetch the checkpoint again")


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yield every name with its value, also those of settings within settings, but for the names of labels."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += [inner for name, inner in value.items() if name not in _OF_LABELS]
        elif isinstance(value, list):
            waiting += value


def _named(value: Any) -> str:
    first = next(iter(value.values()), None) if isinstance(value, dict) else value
    return str(first[0] if isinstance(first, list) and first else first)
