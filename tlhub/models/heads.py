"""Heads: finding a model's last layer, writing fitted weights into it, and heads of tlhub's own."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from tlhub.errors import CheckpointError
from tlhub.models.loading import seeded
from tlhub.models.pooling import backbone_name, backbone_of, drop_pooler, evaluating, keep_backbone, pool, run
from tlhub.models.timm_models import inner, is_timm, keep_features
from tlhub.seeding import derive

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
"""What `model.activation` names."""


def output_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the linear layer that gives the logits.

    Its input is what `native` features are. In a model with adapters it is the trained copy of the layer. A language
    model's gives the logits of the next token; its weights may be those of the embedding.

    Raises:
        CheckpointError: The model ends in no such layer.
    """
    language: Any = language_model(model)
    if language is not None:
        last = language.get_output_embeddings()
        return next(name for name, module in model.named_modules() if module is last), last
    classes = number_of_labels(model)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not found:
        raise CheckpointError(f"{type(model).__name__} has no linear layer with {classes} outputs; take another model")
    return found[-1]


def language_model(model: nn.Module) -> PreTrainedModel | None:
    """Return the model of transformers that gives the logits of the next token; None in one that gives other things.

    Args:
        model: A model of transformers, with adapters or without, or a `PooledClassifier`.
    """
    plain: Any = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    return plain if plain is not None and plain.get_output_embeddings() is not None else None


def number_of_labels(model: nn.Module) -> int:
    """Return how many logits the model gives, from its configuration."""
    config: Any = model.config
    return int(config.num_labels)


def output_parameters(model: nn.Module) -> frozenset[str]:
    """Return the full names of the output layer's parameters."""
    name, layer = output_layer(model)
    return frozenset(f"{name}.{short}" for short, _ in layer.named_parameters())


def native_features_possible(model: nn.Module, new_parameters: Collection[str]) -> bool:
    """Return whether nothing but the output layer is drawn at random, so that its input comes from the checkpoint.

    Args:
        model: The model with its head, untrained.
        new_parameters: Names of the parameters that the checkpoint did not bring.
    """
    return drawn_parameters(model, new_parameters) <= output_parameters(model)


def drawn_parameters(model: nn.Module, new_parameters: Collection[str]) -> frozenset[str]:
    """Return which new parameters of an untrained model are drawn at random.

    Those that are alike everywhere are not, such as the ones and zeros of AST's norm before the last layer.
    """
    return frozenset(name for name, value in model.named_parameters()
                     if name in new_parameters and not bool((value == value.flatten()[0]).all()))


@dataclass(frozen=True)
class HeadForm:
    """What a head of tlhub's own looks like.

    Attributes:
        widths: Hidden widths; none gives a single linear layer.
        activation: After each hidden layer: a name of `ACTIVATIONS`.
        dropout: Probability, after each activation.
    """

    widths: tuple[int, ...] = ()
    activation: str = "relu"
    dropout: float = 0.0

    def build(self, in_features: int, outputs: int, *, bias: bool = True) -> nn.Sequential:
        """Return the head with fresh weights, from features (b, in_features) to (b, outputs).

        Args:
            in_features: Width of the features.
            outputs: Number of outputs.
            bias: Whether the output layer has a bias; the hidden ones do.
        """
        sizes = [in_features, *self.widths]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[self.activation]()]
            layers += [nn.Dropout(self.dropout)] if self.dropout > 0 else []
        return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs, bias=bias))


def feature_width(model: PreTrainedModel, kind: str, sample: Mapping[str, torch.Tensor] | None = None) -> int:
    """Return the width D of a kind of features.

    Args:
        model: The model with its head.
        kind: One of `features.FEATURES`, or `flatten`.
        sample: Keyword arguments for one example, for a dry run; `flatten` needs it, since it depends on the size.
    """
    if kind == "native":
        return output_layer(model)[1].in_features
    if kind == "flatten":
        assert sample is not None
        backbone = backbone_of(model)
        with torch.no_grad(), evaluating(model):
            outputs = run(backbone, {name: value.to(model.device) for name, value in sample.items()}, layers=False)
        return pool(backbone, outputs, kind, None).shape[1]
    if is_timm(model):
        return int(inner(model).num_features)
    settings = model.config.to_dict()
    widths = [settings[name] for name in ("hidden_size", "dim", "n_embd", "d_model") if name in settings]
    return int(widths[0] if widths else settings["hidden_sizes"][-1])


def backbone_width(model: PreTrainedModel) -> int:
    """Return the width of the backbone's hidden states; where the configuration does not name it, what the head reads.

    What the last layer reads may be narrower: wav2vec2 has a projector in between.
    """
    named: int | None = getattr(model.config, "hidden_size", None)
    return named or output_layer(model)[1].in_features


class PooledClassifier(nn.Module):
    """A backbone, one way of pooling what it gives, and a head that transformers has no class for.

    Args:
        model: A model with transformers' own head, which is taken off: for `native` its last layer only, for the
            other kinds everything above the hidden states.
        kind: How features are made: `native`, or one of `pooling.pooled_kinds`.
        head: From features (B, D) to outputs (B, c).
        form: What the head looks like, to make it again.

    Attributes:
        base_model_prefix: Where the backbone is; transformers and peft ask for it.
        headed: The class of the model with transformers' own head.
    """

    base_model_prefix = "backbone"

    def __init__(self, model: PreTrainedModel, kind: str, head: nn.Sequential, form: HeadForm) -> None:
        super().__init__()
        self.kind = kind
        self.form = form
        self.config = model.config
        self.headed = type(model)
        whole = kind == "native" or is_timm(model) or model.base_model is model
        self._prefix = "" if whole else model.base_model_prefix + "."
        self._inside = backbone_name(model) if whole and kind != "native" and not is_timm(model) else ""
        if kind == "native":
            name, _ = output_layer(model)
            model.set_submodule(name, nn.Identity())
            self.backbone: nn.Module = model
        elif is_timm(model):
            self.backbone = keep_features(model)
        else:
            self.backbone = keep_backbone(model, self._inside) if whole else drop_pooler(model.base_model)
        self.head = head

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Return the outputs (B, c) for the model's keyword arguments."""
        return SequenceClassifierOutput(logits=self.head(self.features(**inputs)))

    def features(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return what the head reads, (B, D)."""
        if self.kind == "native":
            logits: torch.Tensor = self.backbone(**inputs).logits
            return logits
        outputs = run(self.inside(), inputs, layers=self.kind == "layer_mean")
        return pool(self.inside(), outputs, self.kind, inputs.get("attention_mask"))

    def inside(self) -> nn.Module:
        """Return what makes the hidden states: the backbone itself, or what is left in a model without its head."""
        return self.backbone.get_submodule(self._inside)

    def own_name(self, name: str) -> str:
        """Return the name that a parameter of the model with transformers' head has in here, if it is still there."""
        return "backbone." + name.removeprefix(self._prefix)


def pooled_classifier(model: PreTrainedModel, kind: str, form: HeadForm, *, seed: int,
                      sample: Mapping[str, torch.Tensor] | None = None) -> PooledClassifier:
    """Return the model with a fresh head of tlhub's own over one kind of features.

    Args:
        model: The model with transformers' head, which is taken off; it lives on inside the returned one.
        kind: `native`, or one of `pooling.pooled_kinds`.
        form: What the head looks like.
        seed: The run's seed.
        sample: Keyword arguments for one example; needed for `flatten`.
    """
    with seeded(derive(seed, "head")):
        head = form.build(feature_width(model, kind, sample), number_of_labels(model))
    return PooledClassifier(model, kind, head, form).eval()


def write_output_layer(model: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Put a fitted linear head into the model.

    Args:
        model: The model.
        weight: Shape (classes, D).
        bias: Shape (classes,), or None for a layer without one.

    Raises:
        CheckpointError: The shapes, or the presence of a bias, do not fit the layer.
    """
    name, layer = output_layer(model)
    if tuple(weight.shape) != tuple(layer.weight.shape) or (bias is None) != (layer.bias is None):
        raise CheckpointError(
            f"a head of shape {tuple(weight.shape)} with{'out' if bias is None else ''} bias does not fit the layer "
            f"{name!r} of shape {tuple(layer.weight.shape)} with{'out' if layer.bias is None else ''} bias"
        )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
