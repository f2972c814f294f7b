"""Handwritten digits from scikit-learn, as PNG pictures in one parquet file a split."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

_MARGIN = 1
"""White pixels around each digit, which reaches the edge of its 8 x 8 and would lose strokes to a central crop."""
_FEATURES = {"image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"}}
"""What `datasets` reads from the file's metadata, so that it shows pictures."""
_SHARES = {"test": 500, "validation": 200}


def make(folder: Path) -> None:
    """Write `train.parquet`, `validation.parquet` and `test.parquet` with the columns `image` and `label`."""
    digits = load_digits()
    ink = np.pad(digits.images, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    pixels = (255 - np.rint(ink * (255 / 16))).astype(np.uint8)
    rest = np.arange(len(pixels))
    for split, count in _SHARES.items():
        rest, chosen = train_test_split(rest, test_size=count, random_state=0, stratify=digits.target[rest])
        _write(folder / f"{split}.parquet", pixels[np.sort(chosen)], digits.target[np.sort(chosen)])
    _write(folder / "train.parquet", pixels[np.sort(rest)], digits.target[np.sort(rest)])


def _write(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    pictures = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png", optimize=True)
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    image = pa.array(pictures, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": image, "label": pa.array([str(label) for label in labels])})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
    pq.write_table(table, path, compression="zstd")
    counts = np.bincount(labels)
    print(f"{path.name}: {len(pictures)} pictures, of each class {min(counts)} to {max(counts)}")
