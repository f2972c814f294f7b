"""Make torchaudio and torchvision importable in a process without tlhub, where their wheels do not fit torch's.

Run first in such a process: `runpy.run_path("tests/standins.py")`. It does what `tlhub/environment.py` does and needs
nothing of tlhub; where torch was built for CUDA, or the wheels were not, it does nothing.
"""

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path


def version_text(package):
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return file.read_text() if file and file.is_file() else ""


class StandIn:
    """Finder and loader of the two modules that need the compiled parts."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in ("torchaudio._extension", "torchvision._meta_registrations"):
            return None
        built_for_cuda = re.search(r"^__version__ = .*\+cu", version_text(fullname.partition(".")[0]), re.MULTILINE)
        torch = version_text("torch")
        if not built_for_cuda or not torch or re.search(r"^(cuda|hip|xpu)\b[^=\n]*= *['\"]", torch, re.MULTILINE):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname.endswith("_extension"))

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        vars(module).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False,
                            _check_cuda_version=lambda: None, fail_if_no_align=lambda function: function)


sys.meta_path.insert(0, StandIn())
