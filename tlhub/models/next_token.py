"""The loss of a language model, computed without ever holding the logits of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from tlhub.errors import CheckpointError, TlhubError
from tlhub.models.heads import language_model, output_layer
from tlhub.models.loading import first_line, quiet
from tlhub.models.pooling import evaluating

AT_ONCE = 512
"""Target tokens whose logits are held at a time."""
EXACT = 1e-6
"""How far the loss may be from the model's own, as a share of it."""
ALIKE = 1e-4
"""How far logits that should be the same may be apart, as a share of the largest."""
_CHECKED_ROWS, _CHECKED_TOKENS = 2, 128
"""How much of the first batch is compared."""
_LARGE = 40.0
"""Deviation of made-up logits, large enough that a soft cap changes them."""
_FORWARD_ERRORS = (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError)


class NextToken(nn.Module):
    """A language model that gives the loss of each example, in place of logits.

    The last layer is applied to a few hundred places at a time, and only to places with a target; for the gradient its
    logits are computed again.

    Args:
        model: A language model of transformers, with adapters or without.
        whole: Take the logits from the model's own forward pass, all at once.
    """

    def __init__(self, model: nn.Module, *, whole: bool) -> None:
        super().__init__()
        self.model = model
        self.whole = whole
        # Modules begin in training mode, and what scores a model puts it back into the mode that it finds.
        self.training = model.training

    def forward(self, input_ids: torch.Tensor, targets: torch.Tensor, owners: torch.Tensor, slots: torch.Tensor,
                places: torch.Tensor, **layout: torch.Tensor) -> SequenceClassifierOutput:
        """Return for each example its summed loss in nats and the number of tokens predicted right.

        Args:
            input_ids: Tokens, int64, shape (r, w).
            targets: The token that each place predicts, int64, shape (r, w); negative for none.
            owners: The example that each place belongs to, int64, shape (r, w), in 0..b-1.
            slots: Of shape (b,); tells how many examples there are.
            places: Where there are targets, int64, shape (m,), row by row: the host knows, and a GPU need not be asked.
            layout: `position_ids` or `attention_mask`, int64, shape (r, w).

        Returns:
            `logits`, float32, shape (b, 2).
        """
        wanted = targets.flatten()[places]
        language = _language(self.model)
        if self.whole:
            states, last = language(input_ids=input_ids, use_cache=False, **layout).logits, nn.Identity()
        else:
            states, last = _backbone_states(language, input_ids, layout), language.get_output_embeddings()
        pieces = zip(*(torch.split(rows, AT_ONCE) for rows in (states.flatten(0, 1)[places], wanted)), strict=True)
        parts = [_score(last, *piece) for piece in pieces]
        each = torch.cat(parts) if parts else states.new_zeros(0, 2, dtype=torch.float32)
        sums = torch.zeros(len(slots), 2, device=each.device).index_add(0, owners.flatten()[places], each)
        return SequenceClassifierOutput(logits=sums)


def _score(last: nn.Module, states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the loss of each place, and 1 where it is predicted right, float32, shape (m, 2)."""
    if not torch.is_grad_enabled():
        return _of_logits(last(states), wanted)
    scored: torch.Tensor = checkpoint(lambda some: _of_logits(last(some), wanted), states, use_reentrant=False,
                                      preserve_rng_state=False)  # nothing in here is drawn
    return scored


def _of_logits(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    right = (logits.detach().argmax(dim=-1) == wanted).float()
    return torch.stack([F.cross_entropy(logits, wanted, reduction="none"), right], dim=1)


def next_token(model: nn.Module, batch: Mapping[str, torch.Tensor], tell: Callable[[str], None]) -> NextToken:
    """Return the model with its loss in pieces, or whole where that would be another loss than the model's own.

    Args:
        model: A language model of transformers, with adapters or without.
        batch: The arguments of `NextToken.forward` for a few examples, on the model's device.
        tell: Tells the user that, and why, logits are held whole.
    """
    reason = _why_whole(model, batch)
    if reason is not None:
        tell(f"the logits of {type(_language(model)).__name__} are held whole: {reason}")
    return NextToken(model, whole=reason is not None)


def _why_whole(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> str | None:
    """Return why the last layer's output is not all of what the model's own loss is made of; None where it is."""
    language = _language(model)
    layout = {name: value[:_CHECKED_ROWS, :_CHECKED_TOKENS] for name, value in batch.items()
              if name in ("position_ids", "attention_mask")}
    input_ids = batch["input_ids"][:_CHECKED_ROWS, :_CHECKED_TOKENS]
    given: list[torch.Tensor] = []
    made_up: list[torch.Tensor] = []

    def replaced(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        given.append(args[0])
        made_up.append(torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output) * _LARGE)
        return made_up[-1]

    with torch.no_grad(), evaluating(model), quiet():
        hook = output_layer(model)[1].register_forward_hook(replaced)
        try:
            logits = language(input_ids=input_ids, use_cache=False, **layout).logits
        finally:
            hook.remove()
        if len(given) != 1 or logits.shape != made_up[0].shape or not torch.equal(logits, made_up[0]):
            return "what its last layer gives is scaled, capped or cut afterwards"
        try:
            states = _backbone_states(language, input_ids, layout)
        except _FORWARD_ERRORS as error:
            return f"its backbone cannot be run by itself ({first_line(error)})"
        if states.shape != given[0].shape or not _alike(states, given[0]):
            return "what its last layer reads is not what its backbone gives"
        return _other_loss(model, input_ids, layout)


def _other_loss(model: nn.Module, input_ids: torch.Tensor, layout: Mapping[str, torch.Tensor]) -> str | None:
    own = float(_language(model)(input_ids=input_ids, labels=input_ids, use_cache=False, **layout).loss)
    targets = F.pad(input_ids[:, 1:], (0, 1), value=-100)
    places = (targets >= 0).flatten().nonzero()[:, 0]
    found = NextToken(model, whole=False)(input_ids, targets, torch.zeros_like(targets), input_ids.new_zeros(1), places,
                                          **layout).logits[0, 0] / len(places)
    return None if abs(float(found) - own) <= EXACT * abs(own) else \
        f"its own loss is {own:.7f}, that of the pieces {float(found):.7f}"


def check_language_model(model: PreTrainedModel, tokenizer: Any, name: str) -> None:
    """Refuse what cannot generate texts: an encoder, a model without its last layer, or one for another tokenizer.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        name: What the user calls the checkpoint.

    Raises:
        CheckpointError: It cannot.
    """
    if language_model(model) is None:
        raise CheckpointError(f"model.name {name!r} is loaded as {type(model).__name__}, whose last layer over the "
                              "vocabulary is not known; take another checkpoint")
    size = _vocabulary(model)
    if len(tokenizer) > size:
        raise CheckpointError(f"the tokenizer of model.name {name!r} has {len(tokenizer)} tokens, and the model reads "
                              f"{size}; its files do not belong together")
    tokens = _made_up_tokens(model, 8)
    other = tokens.clone()
    other[0, 5:] = (other[0, 5:] + 1) % size
    try:
        with torch.no_grad(), quiet():
            before, after = (model(input_ids=ids, use_cache=False).logits[0, :5] for ids in (tokens, other))
    except _FORWARD_ERRORS as error:
        raise CheckpointError(f"model.name {name!r} ({type(model).__name__}) cannot be run on tokens alone "
                              f"({first_line(error)}); take a decoder such as GPT-2") from error
    if not _alike(after, before):
        raise CheckpointError(
            f"model.name {name!r} is an encoder here ({type(model).__name__}): with the tokens from the 6th on changed "
            f"the logits of those before differ by {float((after - before).abs().max()):.2g}, so it sees what it "
            "should predict; take a decoder such as GPT-2, or the task text-classification")


def keeps_documents_apart(model: nn.Module) -> bool:
    """Return whether documents in one row do not see each other where their positions restart.

    Two rows of two documents each have to give the logits that the documents have by themselves, and those of the
    second must stay where the first is another.

    Args:
        model: A language model of transformers, with adapters or without.
    """
    language = _language(model)
    rows = torch.cat([_made_up_tokens(language, 12), _made_up_tokens(language, 12).flip(1)])
    changed = rows.clone()
    changed[0, :5] = (changed[0, :5] + 1) % _vocabulary(language)
    lengths = ((5, 7), (7, 5))
    positions = torch.tensor([[*range(first), *range(second)] for first, second in lengths], device=rows.device)
    with torch.no_grad(), evaluating(model):
        try:
            packed, other = (language(input_ids=ids, position_ids=positions, use_cache=False).logits
                             for ids in (rows, changed))
            alone = torch.stack([torch.cat([language(input_ids=part[None], use_cache=False).logits[0]
                                            for part in row.split(list(size))])
                                 for row, size in zip(rows, lengths, strict=True)])
        except _FORWARD_ERRORS:
            return False
    return _alike(other[0, 5:], packed[0, 5:]) and _alike(packed, alone)


def _language(model: nn.Module) -> Any:
    """Return the plain model; its own forward pass goes through the adapters.

    Raises:
        TlhubError: There is none.
    """
    language = language_model(model)
    if language is None:
        raise TlhubError(f"{type(model).__name__} is no language model; this is a fault of the caller")
    return language


def _backbone_states(language: Any, input_ids: torch.Tensor, layout: Mapping[str, torch.Tensor]) -> torch.Tensor:
    states: torch.Tensor = language.base_model(input_ids=input_ids, use_cache=False, **layout)[0]
    return states


def _vocabulary(model: nn.Module) -> int:
    size: int = _language(model).get_input_embeddings().weight.shape[0]
    return size


def _made_up_tokens(model: nn.Module, count: int) -> torch.Tensor:
    """Return a row of tokens that are all different, where there are so many; int64, shape (1, count)."""
    size = _vocabulary(model)
    step = max(1, size // (count + 1))
    return torch.arange(1, count + 1, device=_language(model).device)[None] * step % size


def _alike(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    difference = (found - wanted).abs().max()
    return bool(difference <= ALIKE * wanted.abs().max().clamp(min=1e-6))
