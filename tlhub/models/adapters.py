"""Adapters by PEFT: putting them on, saving them so that plain transformers and peft load them, merging them."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard

import peft
import torch
import transformers
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.peft import PeftAdapterMixin
from transformers.pytorch_utils import Conv1D

from tlhub.config import StrategyConfig
from tlhub.errors import CheckpointError, UsageError
from tlhub.models.adapter_conversions import START, name_magnitudes, pissa_as_lora, vera_as_lora
from tlhub.models.adapter_files import BASE, Labels, link_base, read_labels, write_labels, write_readme
from tlhub.models.adapter_targets import choose_targets, match_targets, modules_beside
from tlhub.models.bounds import bounded
from tlhub.models.heads import PooledClassifier, language_model
from tlhub.models.inspection import ADAPTER_WEIGHTS, brought_by, inspect_checkpoint
from tlhub.models.loading import damage, first_line, quiet, read_settings, seeded, set_labels
from tlhub.models.origin import GENERATION_SETTINGS, Origin, resolve_base, weight_hash
from tlhub.models.timm_models import TIMM
from tlhub.seeding import derive

RANDLORA_SCALE = 20
"""randlora's alpha in ranks, from PEFT's default (640 for rank 32)."""


def add_adapter(
    model: nn.Module, strategy: StrategyConfig, *, seed: int, new_parameters: Collection[str] = ()
) -> PeftModel:
    """Put adapters on a model's blocks; the head and what the checkpoint lacks are trained beside them.

    Args:
        model: The model; it is changed in place and lives on inside the returned one.
        strategy: Method, rank, scale, dropout and targets.
        seed: The run's seed; the adapters' start depends on nothing else.
        new_parameters: Names of the parameters that the checkpoint did not bring.

    Returns:
        The model with adapters, `requires_grad` set for them and for what is trained beside them.

    Raises:
        UsageError: The method does not fit the model, or a target is not in it.
    """
    method = strategy.method
    if isinstance(model, PooledClassifier):
        new_parameters = [model.own_name(name) for name in new_parameters]
    if strategy.targets:
        targets = match_targets(model, method, strategy.targets)
    else:
        targets = choose_targets(model, method, new_parameters)
    beside = modules_beside(model, new_parameters)
    modules = dict(model.named_modules())
    settings = _peft_config(strategy, [modules[name] for name in targets], seed)
    settings.target_modules = set(targets)
    settings.modules_to_save = beside
    with seeded(derive(seed, "adapter")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adapted = PeftModel(model, settings, autocast_adapter_dtype=False)
        except (ValueError, TypeError, NotImplementedError, RuntimeError, AssertionError, AttributeError) as error:
            raise UsageError(
                f"strategy.method {method!r} of rank {strategy.rank} cannot adapt {type(model).__name__}: "
                f"{first_line(error)}; take another method or rank"
            ) from error
    if method == "pissa":
        _keep_start(adapted)
    return adapted


def _peft_config(strategy: StrategyConfig, layers: list[nn.Module], seed: int) -> Any:
    method, rank, dropout = strategy.method, strategy.rank, strategy.adapter_dropout
    alpha = strategy.alpha if strategy.alpha is not None else rank
    transposed = all(isinstance(layer, Conv1D) for layer in layers)
    size, key = _block_size(layers, rank), derive(seed, "projection") % 2**31
    low_rank = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "fan_in_fan_out": transposed}
    kronecker = {"r": rank, "alpha": alpha, "module_dropout": dropout}
    shared = {"r": rank, "projection_prng_key": key, "fan_in_fan_out": transposed}
    scale = strategy.alpha if strategy.alpha is not None else RANDLORA_SCALE * rank
    # AdaLoRA without a budget schedule keeps every rank: it is the parametrisation by singular values alone.
    kept = {"init_r": rank, "target_r": rank, "total_step": 1}
    choices: dict[str, tuple[Any, dict[str, Any]]] = {
        "lora": (peft.LoraConfig, low_rank),
        "dora": (peft.LoraConfig, {**low_rank, "use_dora": True}),
        "rslora": (peft.LoraConfig, {**low_rank, "use_rslora": True}),
        "pissa": (peft.LoraConfig, {**low_rank, "init_lora_weights": "pissa"}),
        "adalora": (peft.AdaLoraConfig, {**{name: low_rank[name] for name in low_rank if name != "r"}, **kept}),
        "loha": (peft.LoHaConfig, kronecker),
        "lokr": (peft.LoKrConfig, kronecker),
        "ia3": (peft.IA3Config, {"feedforward_modules": [], "fan_in_fan_out": transposed}),
        "vera": (peft.VeraConfig, {**shared, "vera_dropout": dropout}),
        "randlora": (peft.RandLoraConfig, {**shared, "randlora_alpha": scale, "randlora_dropout": dropout}),
        "oft": (peft.OFTConfig, {"r": 0, "oft_block_size": size, "module_dropout": dropout}),
        "boft": (peft.BOFTConfig, {"boft_block_size": size, "boft_block_num": 0, "boft_dropout": dropout}),
    }
    kind, fields = choices[method]
    return kind(**fields)


def _block_size(layers: list[nn.Module], rank: int) -> int:
    """Return the largest power of two up to `rank` that divides every layer's inputs: orthogonal blocks tile them."""
    inputs = [
        layer.in_channels * math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else layer.in_features
        for layer in layers
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    size = 1
    while size * 2 <= rank and all(width % (size * 2) == 0 for width in inputs):
        size *= 2
    return size


def is_adapted(model: nn.Module) -> TypeGuard[PeftModel]:
    """Return whether adapters are on the model."""
    return isinstance(model, PeftModel)


def _keep_start(model: PeftModel) -> None:
    """Keep PiSSA's first factors, so that a saved adapter can be given relative to the untouched base."""
    modules: Any = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    for module in modules:
        if "default" in module.lora_A:
            for letter, factors in (("A", module.lora_A), ("B", module.lora_B)):
                start = factors["default"].weight.detach().clone()
                module.register_buffer(f"{START}_{letter}", start, persistent=False)


def save_adapter(
    model: PeftModel, processor: Any, folder: Path, *, origin: Origin, save_base: bool, label_names: tuple[str, ...]
) -> None:
    """Save adapters, head and processor so that plain transformers and peft load them.

    Over a local or embedded base the folder gets config.json and the base weights (linked where the file system can),
    and `AutoModelFor….from_pretrained(folder)` gives the whole model; for models with adapters of their own kind, which
    that function would look for, they lie in a folder in it. Over a Hub base, or without `save_base`, it has neither.
    A README.md has the lines that load it, and `labels.json` the labels and the base's hash.

    Args:
        model: The model with adapters.
        processor: Its processor.
        folder: Where to save; made if need be.
        origin: The checkpoint under the adapters.
        save_base: Whether a local or embedded base is kept beside the adapters.
        label_names: The labels by class index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wrapper: Any = model
    base = wrapper.get_base_model()
    settings = copy.deepcopy(model.peft_config["default"])
    state, settings = _portable(model, settings)
    # peft knows no name of tlhub's own.
    settings.base_model_name_or_path = origin.name if origin.kind == "hub" else str(origin.folder)
    settings.revision = origin.revision
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with quiet():
        processor.save_pretrained(folder)
    labels = Labels(label_names, origin.lasting_name, origin.revision, origin.weight_hash, auto_model_of(base),
                    base.config.problem_type)
    write_labels(folder, labels)
    if needs_base(base, origin) or (origin.kind != "hub" and save_base):
        set_labels(base.config, label_names)
        base.config.architectures = [type(base).__name__]
        base.config.dtype = torch.float32
        place = folder / BASE if _has_own_adapters(base) else folder
        base.config.save_pretrained(place)
        if language_model(base) is not None:
            base.generation_config.save_pretrained(place)
        with plain_folder(origin, labels.auto_model) as source:
            link_base(source, place, _shapes_beside(base, settings.modules_to_save or []))
    write_readme(folder, labels, processor)


def _has_own_adapters(model: nn.Module) -> bool:
    """Return whether transformers takes every adapter of the class for one of another kind (wav2vec2's languages)."""
    return type(model).load_adapter is not PeftAdapterMixin.load_adapter  # type: ignore[attr-defined]


def needs_base(model: nn.Module, origin: Origin) -> bool:
    """Return whether adapters over this checkpoint can only be kept with its weights beside them.

    timm's processors are saved within the model's config.json alone, and below adapters there has to be a plain model.
    """
    config: Any = model.config
    return config.model_type == TIMM or (origin.folder / "adapter_config.json").exists()


def _portable(model: PeftModel, settings: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Return tensors and configuration that both peft and transformers alone load onto the untouched base.

    PiSSA and VeRA are given as the LoRA that they equal: the first changes the base, the second shares tensors between
    layers, which transformers cannot put on by itself.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    if settings.peft_type == peft.PeftType.VERA:
        layers: Any = [pair for pair in model.named_modules() if isinstance(pair[1], peft.tuners.vera.VeraLayer)]
        scaled = {
            name: (layer.vera_A["default"][:, : layer.in_features], layer.vera_B["default"][: layer.out_features],
                   layer.vera_lambda_d["default"], layer.vera_lambda_b["default"])
            for name, layer in layers
        }
        plain = peft.LoraConfig(
            r=settings.r, lora_alpha=settings.r, target_modules=settings.target_modules,
            modules_to_save=settings.modules_to_save, fan_in_fan_out=settings.fan_in_fan_out,
        )
        return vera_as_lora(state, scaled), plain
    if settings.peft_type == peft.PeftType.LORA and settings.init_lora_weights == "pissa":
        state = pissa_as_lora(state, dict(model.named_buffers()))
        settings.r, settings.lora_alpha, settings.init_lora_weights = 2 * settings.r, 2 * settings.lora_alpha, True
    return name_magnitudes(state), settings


def _shapes_beside(base: nn.Module, beside: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the head's tensors under the names that they have without adapters."""
    shapes = {}
    for name, parameter in base.named_parameters():
        plain = name.replace(".modules_to_save.default", "")
        if plain != name and any(plain.startswith(path + ".") for path in beside):
            shapes[plain] = tuple(parameter.shape)
    return shapes


def auto_model_of(model: nn.Module) -> str:
    """Return the name of transformers' auto class that makes models of this class.

    Raises:
        CheckpointError: There is none.
    """
    for name in ("AutoModelForSequenceClassification", "AutoModelForImageClassification",
                 "AutoModelForAudioClassification", "AutoModelForCausalLM"):
        mapping = getattr(transformers, name)._model_mapping
        if isinstance(model, PreTrainedModel) and type(model.config) in mapping:
            made = mapping[type(model.config)]
            if isinstance(model, made if isinstance(made, tuple) else (made,)):
                return name
    raise CheckpointError(f"transformers has no auto class for {type(model).__name__}; no plain model can be saved")


def load_adapter(folder: Path, *, auto_model: str) -> PeftModel:
    """Load what `save_adapter` wrote, the adapters on their base.

    Args:
        folder: The saved folder.
        auto_model: transformers' class for the base.

    Raises:
        CheckpointError: The base is missing or another one, or a file is damaged.
    """
    labels = read_labels(folder)
    with _base_folder(folder, labels) as (origin, base_folder), quiet():
        settings = read_settings(origin, auto_model)
        set_labels(settings, labels.label_names, labels.problem_type)
        with damage(f"the adapter in {str(folder)!r} cannot be loaded", "fetch it again, or make the run again"):
            processor_pad = _padding(folder) if labels.label_names else None
            if processor_pad is not None:
                settings.pad_token_id = processor_pad
            with bounded(str(folder), brought_by(base_folder.glob("*.safetensors"), str(folder))):
                base = getattr(transformers, auto_model).from_pretrained(
                    base_folder, config=settings, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                    ignore_mismatched_sizes=True, trust_remote_code=False,
                )
            return PeftModel.from_pretrained(base, str(folder), autocast_adapter_dtype=False).eval()


def _padding(folder: Path) -> int | None:
    if not (folder / "tokenizer_config.json").exists():
        return None
    padding: int | None = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).pad_token_id
    return padding


@contextmanager
def _base_folder(folder: Path, labels: Labels) -> Iterator[tuple[Origin, Path]]:
    """Give the base's files: those beside the adapter, without the adapter, or those of the base's own place."""
    if (folder / BASE / "config.json").exists():
        inspect_checkpoint(folder / BASE, str(folder))
        yield Origin(str(folder), "local", None, weight_hash(folder / BASE), folder / BASE), folder / BASE
        return
    if (folder / "config.json").exists():
        with TemporaryDirectory() as plain:
            for path in folder.resolve().iterdir():
                weights = ".safetensors" in path.name and path.name != ADAPTER_WEIGHTS
                if weights or path.name in ("config.json", GENERATION_SETTINGS):
                    (Path(plain) / path.name).symlink_to(path)
            yield Origin(str(folder), "local", None, weight_hash(Path(plain)), Path(plain)), Path(plain)
        return
    origin = resolve_base(labels.base, labels.revision, labels.base_weight_hash, str(folder))
    yield origin, origin.folder


@contextmanager
def plain_folder(origin: Origin, auto_model: str) -> Iterator[Path]:
    """Give a folder with the origin as one plain checkpoint: adapters merged in where it has some."""
    if not (origin.folder / "adapter_config.json").exists():
        yield origin.folder
        return
    with TemporaryDirectory() as folder:
        merged = merge(load_adapter(origin.folder, auto_model=auto_model))
        with quiet():
            merged.save_pretrained(folder)
        yield Path(folder)


def merge(model: PeftModel) -> Any:
    """Fold adapters and trained head into the plain model, in place, and return it.

    The head is put back first, since peft's own way of it fails for several methods where the head is no single layer.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save["default"])
    whole: Any = model
    return whole.merge_and_unload()
