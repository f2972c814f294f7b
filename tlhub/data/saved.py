"""Data sets saved by `datasets`, read from nothing but their own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from tlhub.data.files import check_inside
from tlhub.data.tables import first_line, read_json
from tlhub.errors import DataError

_DIVIDED = "dataset_dict.json"
_WHOLE = "dataset_info.json"
_STATE = "state.json"


def is_saved(root: Path) -> bool:
    """Return whether a folder is what `save_to_disk` of `datasets` writes."""
    return any((root / name).is_file() for name in (_DIVIDED, _WHOLE))


def read_saved(root: Path) -> datasets.Dataset | datasets.DatasetDict:
    """Read what `save_to_disk` of `datasets` wrote.

    Args:
        root: The folder, resolved.

    Raises:
        DataError: It is damaged, or names a file outside of it.
    """
    try:
        splits = read_json(root / _DIVIDED)["splits"] if (root / _DIVIDED).is_file() else [""]
        for split in splits:
            _check_files(root, root / split)
        return datasets.load_from_disk(str(root))
    except DataError:
        raise
    except Exception as error:  # descriptions that are not what `datasets` wrote raise every kind of error there
        raise DataError(f"saved data set '{root}' cannot be read ({type(error).__name__}: {first_line(error)}); save "
                        "it again") from None


def _check_files(root: Path, folder: Path) -> None:
    """Check that all that a split consists of lies in the data folder; `datasets` joins the names as they are."""
    for name in ("", _STATE, _WHOLE):
        check_inside(root, folder / name)
    state: Any = read_json(folder / _STATE)
    for file in state["_data_files"]:
        check_inside(root, folder / file["filename"])
