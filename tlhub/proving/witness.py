"""Looks on while a run trains, and keeps what has to be compared: nothing of it comes from the loop's own audit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tlhub.errors import StoppedError
from tlhub.models.freezing import FIRM
from tlhub.training.loop import Callback, Job, Progress, Report
from tlhub.training.optimizers import state_tensors


class InterruptedOnPurposeError(StoppedError):
    """A witness stopped the run that it looks on."""


class Witness(Callback):
    """A callback that keeps losses, and digests of tensors before and after training.

    Args:
        stop_after: The step after which the run is stopped; None for never.

    Attributes:
        first_step: The step that this sitting began after; None where nothing is trained by gradient.
        device: Where training was.
        steps: Loss and gradient norm of each step.
        passes: Forward passes of each step.
        before: Digest of each of the trained model's tensors when training began, by `id`.
        after: The same when it ended.
        declared: Parameters, by `id`, that asked for a gradient at any time.
        firm: Those whose gradient was at any time no trifle beside the model's largest.
        optimizer: Digests of the optimizer's state at the end.
        model: The whole model as it is saved; None before there is a result.
        outputs: Its final outputs by split.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.first_step: int | None = None
        self.device = "cpu"
        self.steps: dict[int, tuple[float, float]] = {}
        self.passes: dict[int, int] = {}
        self.before: dict[int, str] = {}
        self.after: dict[int, str] = {}
        self.declared: set[int] = set()
        self.firm: set[int] = set()
        self.optimizer: dict[str, str] = {}
        self.model: nn.Module | None = None
        self.outputs: Mapping[str, np.ndarray] = {}
        self._tensors: list[torch.Tensor] = []
        self._counted = 0
        self._hook: RemovableHandle | None = None

    def on_start(self, job: Job, progress: Progress) -> None:
        """Take the digests that later ones are compared with."""
        self.first_step, self.device = progress.step, job.accelerator.device.type
        model: nn.Module = job.accelerator.unwrap_model(job.model)
        self._tensors = [*model.parameters(), *model.buffers()]
        self.before = self._digests()
        self._hook = job.model.register_forward_pre_hook(self._count)

    def on_gradients(self, job: Job, progress: Progress) -> None:
        """Note which parameters are declared trainable, and which of them are reached."""
        asking = [tensor for tensor in self._tensors if tensor.requires_grad]
        self.declared |= {id(tensor) for tensor in asking}
        peaks = {id(tensor): float(tensor.grad.detach().abs().max()) for tensor in asking
                 if tensor.grad is not None and tensor.grad.numel()}
        largest = max(peaks.values(), default=0.0)
        self.firm |= {key for key, peak in peaks.items() if peak > FIRM * largest}

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        """Keep the loss and the gradient's norm."""
        self.steps[report.step] = (report.loss, report.grad_norm)

    def on_step(self, job: Job, progress: Progress) -> None:
        """Note the forward passes, and stop the run where that was asked for.

        Raises:
            InterruptedOnPurposeError: It is so.
        """
        self.passes[progress.step], self._counted = self._counted, 0
        if progress.step == self.stop_after:
            raise InterruptedOnPurposeError(f"stopped on purpose after step {progress.step}")

    def on_end(self, job: Job, progress: Progress) -> None:
        """Take the digests of what training left."""
        if self._hook is not None:
            self._hook.remove()
        self.after = self._digests()
        self.optimizer = digests(state_tensors(job.optimizer).items())

    def on_result(self, model: nn.Module, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep the model and what it gave."""
        self.model, self.outputs = model, outputs

    def _count(self, module: nn.Module, args: object) -> None:
        self._counted += torch.is_grad_enabled()  # without gradients it is a validation

    def _digests(self) -> dict[int, str]:
        return {id(tensor): digest(tensor) for tensor in self._tensors}


def digests(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """Return the digests of named tensors."""
    return {name: digest(tensor) for name, tensor in tensors}


def digest(tensor: torch.Tensor) -> str:
    """Return SHA-256 over a tensor's type, shape and bits; the same in any memory layout."""
    plain = tensor.detach().cpu()
    plain = (torch.view_as_real(plain) if plain.is_complex() else plain).contiguous()
    found = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return a model's parameters and buffers with their names."""
    return [*model.named_parameters(), *model.named_buffers()]
