"""All proofs for one configuration, in a folder that says how they ended."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tlhub.config import RunConfig
from tlhub.environment import versions
from tlhub.errors import CheckpointError, DataError, StoppedError, TlhubError, UsageError
from tlhub.folder import finite, result_folder
from tlhub.options import check
from tlhub.proving.agreement import prove_accumulation, prove_processes, prove_resume
from tlhub.proving.artefact import Reloaded, prove_labels, prove_reload, reload
from tlhub.proving.proof import FAILS, Finding, Proof, attempt
from tlhub.proving.tensors import prove_tensors
from tlhub.proving.trials import BATCH, COMPARED, STEPS, Subject, Trial, carry_out, examine, without_notes

logger = logging.getLogger(__name__)

RESULT = "proof.json"
_RUNS = "proof-runs"
"""Emptied before new ones: not the name of a folder in which somebody has runs."""


@dataclass(frozen=True)
class Report:
    """What was proven, and where it is written down."""

    folder: Path
    proofs: tuple[Proof, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the proofs that failed."""
        return tuple(proof.name for proof in self.proofs if proof.finding.outcome == FAILS)


def prove(config: RunConfig, *, overwrite: bool = False) -> Report:
    """Attempt every proof for a configuration, on a little of its data, and write `proof.json`.

    The small runs are removed where all proofs hold, and kept to be looked at otherwise.

    Args:
        config: As for `tlhub finetune`; `out` names the folder of the proofs, otherwise `proofs/<task>-<n>`.
        overwrite: Replace the proofs in the folder.

    Raises:
        TlhubError: The configuration, the data or the checkpoint cannot be used, or it was asked to stop.
    """
    started = time.perf_counter()
    check(config)
    folder = result_folder(config, RESULT, parent="proofs", noun="proofs", others=_RUNS, overwrite=overwrite)
    logger.info("small runs of %d steps of %d examples, %d steps where processes and accumulation are compared", STEPS,
                BATCH, COMPARED)
    with without_notes():
        proofs = _Proofs(examine(config), folder / _RUNS).all()
    report = Report(folder, proofs)
    content = {
        "task": config.task, "model": config.model.name, "data": config.data.source, "strategy": config.strategy.name,
        "holds": not report.failed, "seconds": round(time.perf_counter() - started, 2),
        "proofs": [{"name": proof.name, "seconds": round(proof.seconds, 2), **asdict(proof.finding)}
                   for proof in proofs],
        "versions": versions()}
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RESULT).write_text(text + "\n", encoding="utf-8")
    if not report.failed:
        shutil.rmtree(folder / _RUNS, ignore_errors=True)
    return report


class _Proofs:
    """The proofs of one configuration; what several of them look at is made once.

    Args:
        subject: What is proven something of.
        runs: Where the small runs go.
    """

    def __init__(self, subject: Subject, runs: Path) -> None:
        self.subject = subject
        self.runs = runs
        self._whole: Trial | TlhubError = TlhubError("there was no run")
        self._reloaded: Reloaded | None = None

    def all(self) -> tuple[Proof, ...]:
        """Attempt them in order.

        Raises:
            TlhubError: As `begin`.
        """
        bodies: dict[str, Callable[[], Finding]] = {
            "tensors": lambda: prove_tensors(self.subject, self._run()),
            "resume": lambda: prove_resume(self.subject, self._run(), self.runs / "stopped"),
            "processes": lambda: prove_processes(self.subject, self.runs),
            "accumulation": lambda: prove_accumulation(self.subject, self.runs),
            "reload": self._reload,
            "labels": self._labels,
        }
        logger.info("a run that is left alone")
        self.begin()
        found: list[Proof] = []
        for name, body in bodies.items():
            logger.info("%s (%d of %d)", name, len(found) + 1, len(bodies))
            found.append(attempt(name, body))
        return tuple(found)

    def begin(self) -> None:
        """Carry out the run that is left alone; one that breaks off makes every proof fail which looks at it.

        Raises:
            TlhubError: The configuration, the data or the checkpoint cannot be used, or it was asked to stop.
        """
        try:
            self._whole = carry_out(self.subject, self.runs / "whole", {})
        except (UsageError, DataError, CheckpointError, StoppedError):
            raise
        except Exception as error:
            self._whole = TlhubError(f"the run itself failed: {error or type(error).__name__}")

    def _run(self) -> Trial:
        if isinstance(self._whole, Trial):
            return self._whole
        raise self._whole

    def _reload(self) -> Finding:
        self._reloaded = reload(self.subject, self._run(), self.runs / "reloaded")
        return prove_reload(self.subject, self._reloaded)

    def _labels(self) -> Finding:
        if self._reloaded is None:
            return Finding(FAILS, "not shown, since the saved model could not be used")
        return prove_labels(self.subject, self._run(), self._reloaded)
