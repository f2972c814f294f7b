"""Fuzz the readers of `targets.py` for a long time, by hand, and keep what is found.

    python tests/fuzz/run.py --minutes 10                 # every reader in turn, by mutations of good contents
    python tests/fuzz/run.py --engine atheris --only yaml # one reader, guided by the code that is reached

Contents that a reader does not refuse as it should are written to `--out`, one file each, with the fault. What has been
mended belongs to `tests/fuzz/found/<reader>/`, which `tests/invariants/test_fuzz.py` reads again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

if "atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["tlhub", "yaml", "safetensors", "soundfile", "jsonargparse"]):
        from tests.fuzz import targets
else:
    from tests.fuzz import targets


def main() -> int:
    """Fuzz, and return 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all readers together")
    parser.add_argument("--only", nargs="*", default=[*targets.TARGETS], choices=[*targets.TARGETS], help="readers")
    parser.add_argument("--engine", choices=("mutation", "atheris"), default="mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.engine == "atheris" and len(given.only) == 1:
        return guided(given.only[0], given.minutes, given.seed, given.out)
    found = 0
    for name in given.only:
        minutes = given.minutes / len(given.only)
        if given.engine == "atheris":  # which ends its process, so that each reader needs one
            words = [sys.executable, __file__, "--engine", "atheris", "--only", name, "--minutes", str(minutes),
                     "--seed", str(given.seed), "--out", str(given.out)]
            found += subprocess.run(words, check=False).returncode != 0
        else:
            found += mutations(name, minutes, given.seed, given.out)
    return 1 if found else 0


def mutations(name: str, minutes: float, seed: int, out: Path) -> int:
    """Give a reader changed contents, and return how many kinds of faults there were."""
    random = np.random.default_rng([seed, *name.encode()])
    contents = targets.TARGETS[name][1]()
    begun, tried, faults = time.monotonic(), 0, {}
    while time.monotonic() - begun < 60 * minutes:
        content = targets.mutated(contents[int(random.integers(len(contents)))], random, contents)
        fault = targets.judge(name, content)
        tried += 1
        if fault and fault[:60] not in faults:
            faults[fault[:60]] = fault
            keep(out, name, content, fault)
    seconds = round(time.monotonic() - begun, 1)
    print(json.dumps({"reader": name, "contents": tried, "seconds": seconds, "faults": len(faults)}), flush=True)
    return len(faults)


def guided(name: str, minutes: float, seed: int, out: Path) -> int:
    """Fuzz one reader by atheris, which looks for contents that reach new code."""
    kept = out / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(targets.TARGETS[name][1]()):
        (kept / f"seed-{number}").write_bytes(content)
    faults: dict[str, str] = {}

    def one(content: bytes) -> None:
        fault = targets.judge(name, content)
        if fault and fault[:60] not in faults:
            faults[fault[:60]] = fault
            keep(out, name, content, fault)

    options = [sys.argv[0], f"-max_total_time={max(1, round(60 * minutes))}", f"-seed={seed + 1}", "-rss_limit_mb=0",
               "-max_len=20000", "-timeout=60", "-print_final_stats=1", f"-artifact_prefix={out}/{name}-", str(kept)]
    atheris.Setup(options, one)
    atheris.Fuzz()
    return 1 if faults else 0


def keep(out: Path, name: str, content: bytes, fault: str) -> None:
    """Write a content and its fault to files."""
    digest = hashlib.sha1(content).hexdigest()[:12]
    (out / f"{name}-{digest}").write_bytes(content)
    (out / f"{name}-{digest}.txt").write_text(fault + "\n")
    print(f"{name}: {fault[:300]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
