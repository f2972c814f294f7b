"""Linear probing, then fine-tuning (Kumar et al. 2022, "Fine-tuning can distort pretrained features")."""

from __future__ import annotations

import numpy as np

from tlhub.models.freezing import freeze_stem
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench, probe_features
from tlhub.strategies.linear_probe import with_fitted_head


@STRATEGIES.register("lp_ft")
class LpFt(Strategy):
    """Trains everything from the linear probe's head, so that no random head disturbs the backbone at the start.

    The probe itself is kept where validation finds nothing better.
    """

    def fit(self, bench: Workbench) -> Fitted:
        """Fit the head to the frozen features, then train the whole model.

        Raises:
            CheckpointError: The stem is to be frozen, and the architecture's blocks are not known.
        """
        kind, features = probe_features(bench)
        labels = bench.inputs["train"].labels
        if np.issubdtype(labels.dtype, np.floating):
            # The head has to give what training goes on from.
            labels = bench.outputs.standardise(labels)
        model = with_fitted_head(bench, kind, features["train"], labels)
        if bench.config.strategy.freeze_stem:
            freeze_stem(model, "lp_ft")
        bench.train(model, bench.inputs, from_start=True)
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
