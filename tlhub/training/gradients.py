"""The gradients of global batches: in as many passes as memory allows, summed over the processes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tlhub.data.batches import micro_batches, share
from tlhub.data.portions import within_memory
from tlhub.errors import TlhubError
from tlhub.models.running_statistics import RunningStatistics
from tlhub.seeding import derive
from tlhub.training.job import Job, Progress
from tlhub.training.window import Sums

_BUCKET = 2**23
"""Numbers that are sent between processes at a time."""

logger = logging.getLogger(__name__)


class BatchGradients:
    """Adds up the gradients of a global batch, and applies them unless they are not finite.

    Where memory runs out on any process, all of them begin the batch again in passes of half as many examples. They
    can only agree on that while none waits for the gradients of the others, so these are sent when every pass is done.
    On GPUs, where sending meanwhile is worth the trouble, DDP does so for batches like those that fitted before.

    Args:
        job: What is trained.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._bare: nn.Module = job.model.module if isinstance(job.model, DistributedDataParallel) else job.model
        self._parameters = job.parameters
        self._statistics = RunningStatistics(self._bare)
        self._overlaps = _sends_meanwhile(job)
        self._hosts = torch.distributed.new_group(backend="gloo") if self._overlaps else None
        self._fitted: dict[int, int] = {}

    def compute(self, progress: Progress, epoch: int, batch: np.ndarray) -> Sums:
        """Leave the gradients of a global batch in the parameters, the same on every process.

        Where its loss is not finite, neither are they.

        Args:
            progress: Before the step; its `micro_batch` is lowered where memory runs out.
            epoch: The epoch.
            batch: The global batch.

        Raises:
            TlhubError: Memory does not suffice for one example at a time.
        """
        self._statistics.keep()
        sums = self._within_memory(progress, epoch, batch)
        some = next((parameter.grad for parameter in self._parameters if parameter.grad is not None), None)
        if some is not None:
            some[(0,) * some.ndim] += sums.loss * 0.0
        return sums

    def _within_memory(self, progress: Progress, epoch: int, batch: np.ndarray) -> Sums:
        while True:
            size = self._size(progress, batch)
            # Memory grows with the examples of a pass, their length, and with what is trained.
            trained = sum(parameter.requires_grad for parameter in self._parameters) if self._overlaps else 0
            extent = size * self._length(batch)
            if self._overlaps and extent <= self._fitted.get(trained, 0):
                return self._meanwhile(progress.step, epoch, batch, size)
            sums = within_memory(partial(self._passes, progress.step, epoch, batch, size, self._bare))
            if self._all_have(sums is not None):
                assert sums is not None
                if self._job.optimizer.state:  # before the first step, more memory is free than after it
                    self._fitted[trained] = max(extent, self._fitted.get(trained, 0))
                return self._summed(sums)
            self._begin_again(progress, size)

    def apply(self) -> torch.Tensor:
        """Step the optimizer unless a gradient is not finite, decided on the device; return their norm, shape ()."""
        job = self._job
        norm = job.accelerator.clip_grad_norm_(self._parameters, job.train.clip_norm or float("inf"))
        assert norm is not None
        inner = job.optimizer.optimizer
        fused = bool(inner.defaults.get("fused"))
        bad = ~torch.isfinite(norm)
        if job.accelerator.scaler is None and fused:
            # Fused optimizers change nothing where `found_inf` is 1, as they do under a gradient scaler.
            inner.found_inf = bad.float()
        # The others have to wait for the host's answer.
        if fused or job.accelerator.scaler is not None or not bool(bad):
            job.optimizer.step()
        job.optimizer.zero_grad()
        self._statistics.put_back(bad)
        detached: torch.Tensor = norm.detach()
        return detached

    def _size(self, progress: Progress, batch: np.ndarray) -> int:
        """Return the most examples that a process may take in one pass."""
        most = -(-len(batch) // self._job.accelerator.num_processes)
        return min(size for size in (most, self._job.train.micro_batch_size, progress.micro_batch) if size)

    def _length(self, batch: np.ndarray) -> int:
        lengths = self._job.inputs.lengths
        return 1 if lengths is None else int(lengths[batch % len(lengths)].max())

    def _passes(self, step: int, epoch: int, batch: np.ndarray, size: int, model: nn.Module) -> Sums:
        """Add up this process's gradients; DDP, as the model, adds those of the others to them in the last pass."""
        job, accelerator = self._job, self._job.accelerator
        # Dropout is a function of (seed, step, process), so resuming needs no generator's state.
        torch.manual_seed(derive(job.seed, "dropout", step, accelerator.process_index))
        total = job.objective.weight(batch, epoch)
        mine = share(batch, accelerator.process_index, accelerator.num_processes)
        # A process without examples takes part with one that counts nothing, since the others wait for its gradients.
        scale, parts = (1.0 / total, micro_batches(mine, size)) if len(mine) else (0.0, [batch[:1]])
        # DDP averages over processes; the loss is already divided by the whole batch's weight.
        averaged = accelerator.num_processes if model is not self._bare else 1
        losses, right = [], torch.zeros((), device=accelerator.device)
        for number, part in enumerate(parts, start=1):
            wait = model is not self._bare and number < len(parts)
            with accelerator.no_sync(model) if wait else nullcontext():
                output = model(**job.inputs.batch(part, epoch, accelerator.device))
                loss = job.objective.loss(output, part, epoch) * scale
                accelerator.backward(loss * averaged)
            losses.append(loss.detach())
            right += job.objective.right(output, part) * float(len(mine) > 0)
        each = torch.stack(losses)
        return Sums(each.sum(), right, parts, each)

    def _meanwhile(self, step: int, epoch: int, batch: np.ndarray, size: int) -> Sums:
        """Compute and send gradients at the same time."""
        sums = within_memory(partial(self._passes, step, epoch, batch, size, self._job.model))
        if sums is None:
            raise TlhubError(f"out of memory in step {step + 1}, with {size} examples at a time as in steps before it; "
                             "lower --train.micro_batch_size, and the same command goes on")
        _add_up([sums.loss, sums.right])
        return sums

    def _all_have(self, mine: bool) -> bool:
        """Return whether every process is done with its passes, and give each the gradients that any of them has."""
        if self._job.accelerator.num_processes == 1:
            return mine
        # Parameters that no process used must stay without a gradient: optimizers pass over them.
        flags = torch.tensor([not mine, *(parameter.grad is not None for parameter in self._parameters)]).int()
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._hosts)
        failed, *used = flags.tolist()
        for parameter, present in zip(self._parameters, used, strict=True):
            if present and parameter.grad is None and not failed:
                parameter.grad = torch.zeros_like(parameter)
        return not failed

    def _summed(self, sums: Sums) -> Sums:
        if self._job.accelerator.num_processes > 1:
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            _add_up([sums.loss, sums.right, *gradients])
        return sums

    def _begin_again(self, progress: Progress, size: int) -> None:
        """Take back what the passes have changed, and halve them."""
        self._job.optimizer.zero_grad()
        self._statistics.put_back()
        if size == 1:
            raise TlhubError(f"memory does not suffice for one example at a time in step {progress.step + 1}; pass "
                             "--train.gradient_checkpointing True, shorten the examples, or take a smaller checkpoint "
                             "or a strategy that trains less of it")
        progress.micro_batch = size // 2
        if self._job.accelerator.is_main_process:
            logger.warning("out of memory in step %d with %d examples at a time: the batch is begun again with %d, and "
                           "so are those after it; what is trained stays the same", progress.step + 1, size, size // 2)


def _sends_meanwhile(job: Job) -> bool:
    return isinstance(job.model, DistributedDataParallel) and job.accelerator.device.type != "cpu"


@torch.no_grad()
def _add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Add tensors up over the processes, in place."""
    kinds: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for same in kinds.values():
        ends = np.cumsum([tensor.numel() for tensor in same])
        for _, bucket in itertools.groupby(zip(same, ends, strict=True), key=lambda item: int(item[1]) // _BUCKET):
            some = [tensor for tensor, _ in bucket]
            joined = torch.cat([tensor.reshape(-1) for tensor in some])
            torch.distributed.all_reduce(joined)
            for tensor, part in zip(some, torch.split(joined, [tensor.numel() for tensor in some]), strict=True):
                tensor.copy_(part.view_as(tensor))
