"""Stand-ins that let a CPU-only torch work beside torchaudio and torchvision wheels built for CUDA.

Where torch has no CUDA, those wheels' compiled libraries cannot be loaded, and the packages fail on import although
nearly all of their Python code needs no compiled part. The finder here supplies, in exactly that case, the two modules
that fail. It reads version files as text and imports nothing to find out; everywhere else it does nothing.
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

MISSING_PARTS: dict[str, str] = {
    "torchaudio": "forced alignment, RNN-T loss, lfilter's compiled kernel and the CUDA CTC decoder do not run; "
                  "transforms, resampling and models do",
    "torchvision": "nms, RoI operators, deformable convolution and its JPEG/PNG decoders do not run; "
                   "transforms (through Pillow and torch) and classification models do",
}
"""What is lost by each package whose compiled part cannot be loaded."""


LIBRARIES = ("torch", "torchaudio", "torchvision", "transformers", "datasets", "accelerate", "evaluate", "peft",
             "safetensors", "numpy", "timm")
"""The packages whose versions a run records."""


def versions() -> dict[str, str]:
    """Return the versions of tlhub, Python and the installed ones of `LIBRARIES`, without importing them."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("tlhub", *LIBRARIES):
        try:
            found[name] = built_version(name) or importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package without importing it, or None."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def built_version(package: str) -> str:
    """Return the version in a package's own version file, with its local part (`0.28.0+cu130`), or an empty text."""
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", _version_text(package), re.MULTILINE)
    return match.group(1) if match else ""


def torch_accelerator_build() -> str | None:
    """Return `cuda`, `hip` or `xpu` if torch was built for it, or None for a build for the CPU alone."""
    text = _version_text("torch")
    for name in ("cuda", "hip", "xpu"):
        if re.search(rf"^{name}\b[^=\n]*=\s*['\"]", text, re.MULTILINE):
            return name
    return None


def mismatched(package: str) -> bool:
    """Tell whether `package` was built for CUDA while torch was not, by their version files."""
    return "+cu" in built_version(package) and bool(_version_text("torch")) and torch_accelerator_build() is None


class StandInFinder(importlib.abc.MetaPathFinder):
    """A finder for `sys.meta_path` that serves the modules which a mismatch keeps from loading."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a stand-in, or None to leave the import to the other finders."""
        fill = _FILLERS.get(fullname)
        if fill is None or not mismatched(fullname.partition(".")[0]):
            return None
        spec = importlib.machinery.ModuleSpec(fullname, _StandInLoader(fill))
        if fullname == "torchaudio._extension":
            # The real package's other modules (utils) load nothing compiled and stay importable.
            spec.submodule_search_locations = [str(Path(folder) / "_extension") for folder in path or ()]
        return spec


class _StandInLoader(importlib.abc.Loader):
    def __init__(self, fill: Callable[[ModuleType], None]) -> None:
        self.fill = fill

    def exec_module(self, module: ModuleType) -> None:
        self.fill(module)


@contextmanager
def loading() -> Iterator[None]:
    """Load libraries in the block without collecting garbage meanwhile, which takes a sixth of the time less.

    They make millions of objects and hardly any garbage, so that the collector looks at all of them again and again.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def install() -> None:
    """Put the finder before the others, once."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StandInFinder())


def _fill_torchaudio(module: ModuleType) -> None:
    def fail_if_no_align(function: Callable[..., object]) -> Callable[..., object]:
        def unavailable(*_args: object, **_kwargs: object) -> object:
            raise RuntimeError(f"{function.__name__} needs torchaudio's compiled part, which is built for CUDA and "
                               "cannot be loaded beside this build of torch")
        return unavailable

    vars(module).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False,
                        _check_cuda_version=lambda: None, fail_if_no_align=fail_if_no_align)


def _fill_torchvision(module: ModuleType) -> None:
    """Leave the module empty: it only registers shapes of operators that the compiled part would have brought."""


_FILLERS: dict[str, Callable[[ModuleType], None]] = {
    "torchaudio._extension": _fill_torchaudio,
    "torchvision._meta_registrations": _fill_torchvision,
}


def _version_text(package: str) -> str:
    """Return what a package's `version.py` holds, or an empty text."""
    folder = package_folder(package)
    file = folder / "version.py" if folder else None
    return file.read_text(encoding="utf-8") if file and file.is_file() else ""
