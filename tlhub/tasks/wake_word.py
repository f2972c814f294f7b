"""Wake words: a keyword, or several, told from everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tlhub.config import SINGLE_LABEL, RunConfig, task_options
from tlhub.problems import Problem
from tlhub.registry import TASKS
from tlhub.tasks.base import AudioTask
from tlhub.wake_word.problem import KeywordSpotting


@TASKS.register("wake-word")
class WakeWord(AudioTask):
    """Clips to keywords or anything else, with any `AutoModelForAudioClassification` checkpoint.

    The checkpoint's last layer goes, and a new one comes for the keywords of `task_options.keyword`.
    """

    problems: ClassVar[tuple[str, ...]] = (SINGLE_LABEL,)

    def problem(self, problem_type: str, known: Mapping[str, Any] | None = None) -> Problem:
        """Return keyword spotting, at the threshold of the finished run where there is one."""
        return KeywordSpotting(known)

    def keywords(self, config: RunConfig) -> tuple[str, ...]:
        """Return the keywords, each once."""
        return tuple(dict.fromkeys(task_options(config).keyword))
