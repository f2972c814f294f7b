"""How a finished run reads other data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tlhub.errors import DataError
from tlhub.finished import Run
from tlhub.options import from_kwargs


@pytest.mark.parametrize(("source", "kept"), [("builtin/wake_word", True), ("builtin/digits", False), ("here", True),
                                              ("there", False)])
def test_a_table_that_other_data_lack_is_left_out_and_told(source: str, kept: bool, tmp_path: Path,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    """It is looked for where the data lie, also where they have a name of tlhub's own."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "metadata.csv").write_text("")
    place = source if source.startswith("builtin/") else str(tmp_path / source)
    run: Any = Run.__new__(Run)
    run.config = from_kwargs("image-classification", model="-", data={"source": "clips", "metadata": "metadata.csv",
                                                                      "label_column": "kind"})
    with caplog.at_level(logging.INFO, logger="tlhub"):
        section = run._data_section(place, {})
    assert (section.metadata, section.label_column) == (("metadata.csv", "kind") if kept else (None, None))
    assert ("its folders are taken for classes" in caplog.text) != kept


def test_a_misspelt_name_is_told() -> None:
    run: Any = Run.__new__(Run)
    run.config = from_kwargs("image-classification", model="-", data="clips")
    with pytest.raises(DataError, match=r"'builtin/digit' is no data set that tlhub brings; valid: builtin/digits"):
        run._data_section("builtin/digit", {})
