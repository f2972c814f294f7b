"""What `tlhub doctor` tells: whether tlhub can work here, and what is missing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tlhub import environment
from tlhub.config import DataConfig


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        topic: What it is about.
        words: What was found.
        fatal: Whether tlhub cannot work because of it.
    """

    topic: str
    words: str
    fatal: bool = False


def examine() -> list[Finding]:
    """Return what was found, in the order in which it is told."""
    findings = [Finding("versions", ", ".join(f"{name} {version}" for name, version in environment.versions().items()))]
    for check in (_imports, _compiled_parts, _devices, _processes, _caches, _hub):
        findings += _guarded(check)
    return findings


def hub_reachable(timeout: float = 2.0) -> bool:
    """Tell whether a connection to the Hub can be opened.

    Args:
        timeout: Seconds to wait.
    """
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        with socket.create_connection((address.hostname or "", port), timeout=timeout):
            return True
    except OSError:
        return False


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return a check's findings; a check that fails is a finding itself."""
    try:
        return check()
    except Exception as error:  # the report has to say what is broken, whatever it is
        return [Finding(check.__name__.strip("_"), f"{type(error).__name__}: {error}", fatal=True)]


def _imports() -> list[Finding]:
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import peft  # noqa: F401
    import torchaudio  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    return [Finding("imports", "torch, torchaudio, torchvision, transformers, datasets, accelerate, evaluate, peft")]


def _compiled_parts() -> list[Finding]:
    findings = [Finding("compiled parts", f"{package} {environment.built_version(package)} does not fit torch "
                                          f"{environment.built_version('torch')}, stand-ins are used: {cost}")
                for package, cost in environment.MISSING_PARTS.items() if environment.mismatched(package)]
    if findings and environment.package_folder("timm"):
        findings.append(Finding("launcher", "`accelerate launch` cannot start beside timm here, since it imports "
                                            "torchvision itself; use `accelerate-launch`, or --num_processes"))
    return findings or [Finding("compiled parts", "all can be loaded")]


def _devices() -> list[Finding]:
    import torch

    from tlhub.training.processes import resolve_precision

    precision = {"no": "fp32"}.get(resolve_precision("auto"), resolve_precision("auto"))
    cpu = Finding("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if not torch.accelerator.is_available():
        return [cpu, Finding("accelerator", "none found, training runs on the CPU"), Finding("precision", precision)]
    kind = torch.accelerator.current_accelerator()
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [cpu, Finding("accelerator", f"{torch.accelerator.device_count()} x {', '.join(names) or kind}"),
            Finding("precision", precision)]


def _processes() -> list[Finding]:
    import torch

    backends = [name for name, there in (("gloo", torch.distributed.is_gloo_available()),
                                         ("nccl", torch.distributed.is_nccl_available())) if there]
    group = f"{os.environ['WORLD_SIZE']} launched" if "WORLD_SIZE" in os.environ else "this one"
    return [Finding("processes", f"{group}; groups through {', '.join(backends) or 'nothing: one process only'}")]


def _caches() -> list[Finding]:
    from huggingface_hub import constants

    from tlhub.data.cache import cache_root

    folders = {"prepared data": cache_root(DataConfig()), "Hub": Path(constants.HF_HUB_CACHE)}
    return [Finding("cache", f"{what}: {folder} ({_writable(folder)})") for what, folder in folders.items()]


def _writable(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        return "cannot be written"
    free = os.statvfs(existing).f_bavail * os.statvfs(existing).f_frsize
    return f"{free / 2**30:.1f} GiB free"


def _hub() -> list[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if offline:
        return [Finding("Hub", "not asked, since HF_HUB_OFFLINE is set; folders and cached checkpoints work")]
    return [Finding("Hub", "can be reached" if hub_reachable() else
                    "cannot be reached; folders and cached checkpoints work")]
