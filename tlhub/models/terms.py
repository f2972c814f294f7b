"""The terms of embedded checkpoints, told when one is first used."""

from __future__ import annotations

import logging

from tlhub.builtin import LICENSES, read_card
from tlhub.config import DataConfig
from tlhub.data.cache import cache_root, write_atomically
from tlhub.errors import UsageError

logger = logging.getLogger(__name__)

_DIGITS = 12
"""Characters of a digest that tell two versions of a checkpoint apart."""


def tell_terms(name: str, weight_hash: str) -> None:
    """Say what an embedded checkpoint was trained on and on which terms, once for each version of it.

    That it was said is remembered in the cache folder; where nothing can be written there, it is said each time.

    Args:
        name: Such as `builtin/vision`.
        weight_hash: The digest of its weights.
    """
    # A warning, since one is seen in Python too, where nobody has set up logging. Processes that may not speak must
    # not remember either.
    if not logger.isEnabledFor(logging.WARNING):
        return
    try:
        mark = cache_root(DataConfig()) / "terms" / f"{name.replace('/', '-')}-{weight_hash[:_DIGITS]}"
        if mark.exists():
            return
        write_atomically(mark, b"")
    except (UsageError, OSError):
        pass
    logger.warning("%s was trained on %s; the terms: %s", name, read_card(name).terms, LICENSES)
