"""Logits of a whole split, exact whatever the number of processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from tlhub.data.batches import Inputs, evaluation_batches, share
from tlhub.data.portions import Portions
from tlhub.models.freezing import BatchNorm


@torch.no_grad()
def predict_logits(model: nn.Module, inputs: Inputs, accelerator: Accelerator, *, batch_size: int = 64,
                   between: Callable[[], None] | None = None, portions: Portions | None = None) -> np.ndarray:
    """Return the logits of every example once, in the order of the split.

    Each process takes every n-th example of a batch; what it computed is put back by global index, so nothing is
    counted twice. Dropout is off.

    Args:
        model: Returns an object with `logits` (b, c) for a batch of `inputs`.
        inputs: The split.
        accelerator: The processes to share the work with.
        batch_size: Examples of one forward pass over all processes.
        between: Called before each batch, equally often on every process; may raise to give up.
        portions: Knows from earlier calls how many examples memory suffices for; None where there were none.

    Returns:
        float32, shape (n, c), the same on every process.

    Raises:
        TlhubError: Memory does not suffice for one example at a time.
    """
    bare, portions = accelerator.unwrap_model(model), portions or Portions()
    was_training = bare.training
    bare.eval()
    _share_statistics(bare, accelerator)

    def compute(part: np.ndarray) -> np.ndarray:
        with accelerator.autocast():
            output = bare(**inputs.batch(part, None, accelerator.device))
        found: np.ndarray = output.logits.float().cpu().numpy()
        return found

    done: list[tuple[np.ndarray, np.ndarray]] = []
    try:
        for batch in evaluation_batches(len(inputs), inputs.lengths, batch_size):
            if between is not None:
                between()
            done += portions.run(share(batch, accelerator.process_index, accelerator.num_processes), compute)
    finally:
        bare.train(was_training)
    return _collect([part for part, _ in done], [logits for _, logits in done], accelerator, len(inputs))


def _share_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's BatchNorm statistics: each has gathered its own since the last step began."""
    if accelerator.num_processes > 1:
        for module in model.modules():
            if isinstance(module, BatchNorm):
                for buffer in module.buffers(recurse=False):
                    broadcast(buffer, from_process=0)


def _collect(indices: list[np.ndarray], logits: list[np.ndarray], accelerator: Accelerator, count: int) -> np.ndarray:
    width = torch.tensor([logits[0].shape[1] if logits else 0, sum(len(part) for part in indices)],
                         device=accelerator.device)
    shapes = accelerator.gather(width[None]).cpu().numpy()
    result = np.zeros((count, int(shapes[:, 0].max())), dtype=np.float32)
    longest = int(shapes[:, 1].max())
    table = np.full((longest, result.shape[1] + 1), -1.0, dtype=np.float64)
    if indices:
        rows = np.concatenate(indices)
        table[:len(rows), 0] = rows
        table[:len(rows), 1:] = np.concatenate(logits)
    gathered = accelerator.gather(torch.from_numpy(table).to(accelerator.device)).cpu().numpy()
    gathered = gathered[gathered[:, 0] >= 0]
    result[gathered[:, 0].astype(np.int64)] = gathered[:, 1:]
    return result
