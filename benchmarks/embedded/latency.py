r"""How long the embedded checkpoint of sound takes for one clip, on one core.

    python benchmarks/embedded/latency.py --data FOLDER

A clip of `wakewords` as it is recorded, from its samples to its scores: log-mel features and the forward pass, one clip
at a time, one thread, in single precision. Median and 95th percentile over all clips of the test split of one keyword,
after a few that are not counted. Written as JSON beside this file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

import tlhub
from tlhub.builtin import checkpoint_folder
from tlhub.environment import versions

KEYWORD, UNCOUNTED = "view_glass", 5


@torch.inference_mode()
def durations(folder: Path) -> list[float]:
    """Return the milliseconds that each clip of a folder took."""
    import transformers  # behind tlhub, whose finder has to be there first

    checkpoint = checkpoint_folder("builtin/audio")
    model = transformers.AutoModelForAudioClassification.from_pretrained(checkpoint).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.ogg"))]
    found = []
    for clip in [*clips[:UNCOUNTED], *clips]:
        started = time.perf_counter()
        inputs = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        model(**inputs)
        found.append(1e3 * (time.perf_counter() - started))
    return found[UNCOUNTED:]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = durations(given.data / "wakewords" / "test" / KEYWORD)
    result = {"versions": versions(), "clips": len(found), "median_ms": round(float(np.median(found)), 2),
              "p95_ms": round(float(np.percentile(found, 95)), 2)}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{len(found)} clips: median {result['median_ms']} ms, 95% below {result['p95_ms']} ms; "
          f"tlhub {tlhub.__version__}")


if __name__ == "__main__":
    main()
