import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tlhub import environment

REPOSITORY = Path(__file__).parents[2]
# What has to work, here and in a fresh process.
USES = """
import torch, torchaudio, torchvision
from torchvision.transforms import v2
wave = torch.zeros(1, 16000)
assert torchaudio.transforms.MelSpectrogram(16000, n_mels=40)(wave).shape == (1, 40, 81)
assert torchaudio.transforms.Resample(16000, 8000)(wave).shape == (1, 8000)
assert torchaudio.compliance.kaldi.fbank(wave).shape[1] == 23
assert v2.RandomResizedCrop(8)(torch.zeros(3, 16, 16, dtype=torch.uint8)).shape == (3, 8, 8)
from transformers import AutoImageProcessor, ViTForImageClassification
import evaluate
"""


def write_package(root, name, version_text):
    folder = root / name
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('read as text only')\n")
    (folder / "version.py").write_text(version_text)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Lay out torch and torchvision with given version files, ahead of the installed ones."""

    def lay_out(torch_text, wheel_version):
        write_package(tmp_path, "torch", torch_text)
        write_package(tmp_path, "torchvision", f"__version__ = '{wheel_version}'\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torch", "torchvision")]:
            monkeypatch.delitem(sys.modules, name)

    return lay_out


CPU = "from typing import Optional\n__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA = "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
ROCM = "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n"


@pytest.mark.parametrize(
    ("torch_text", "wheel_version", "expected"),
    [
        (CPU, "0.28.0+cu130", True),
        (CUDA, "0.28.0+cu130", False),
        (CPU, "0.28.0+cpu", False),
        (CPU, "0.28.0", False),
        (ROCM, "0.28.0+cu130", False),
        ("", "0.28.0+cu130", False),
    ],
)
def test_only_the_mismatch_is_detected(installed, torch_text, wheel_version, expected):
    installed(torch_text, wheel_version)
    assert environment.mismatched("torchvision") is expected
    found = environment.StandInFinder().find_spec("torchvision._meta_registrations")
    assert (found is not None) is expected


def test_other_imports_are_left_alone(installed):
    installed(CPU, "0.28.0+cu130")
    finder = environment.StandInFinder()
    for name in ("torchvision", "torchvision.ops", "torch", "tlhub", "torchaudio.functional"):
        assert finder.find_spec(name) is None


def test_a_package_that_is_not_there_is_no_mismatch():
    assert environment.package_folder("no_such_package") is None
    assert not environment.mismatched("no_such_package")


def test_the_finder_is_installed_once():
    environment.install()
    environment.install()
    assert sum(isinstance(finder, environment.StandInFinder) for finder in sys.meta_path) == 1


def test_versions_name_what_is_installed():
    versions = environment.versions()
    assert {"python", "tlhub", "torch", "transformers", "peft"} <= set(versions)
    assert all(versions.values())


def test_audio_and_vision_work_in_a_process_that_imported_tlhub_first():
    """In this one, as `tests/conftest.py` does; fresh ones are tried in tests/invariants/test_fresh_process.py."""
    exec(USES, {})


def test_importing_tlhub_imports_nothing_heavy():
    code = "import sys, tlhub; print({'torch', 'transformers', 'numpy', 'jsonargparse'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.skipif(not environment.mismatched("torchaudio"), reason="torchaudio fits torch here")
def test_what_needs_the_compiled_part_says_so():
    import torch
    import torchaudio

    with pytest.raises(RuntimeError, match="compiled part"):
        torchaudio.functional.forced_align(torch.zeros(1, 4, 3), torch.zeros(1, 2, dtype=torch.int32))


def test_garbage_is_not_collected_while_libraries_are_loaded():
    assert gc.isenabled()
    with environment.loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), environment.loading():
        raise ImportError("no such library")
    assert gc.isenabled()
    gc.disable()
    try:
        with environment.loading():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
