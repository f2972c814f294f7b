"""What the quickstart runs: four tasks, the strategies of each, and the budget that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CONTROL = "scratch"
"""The strategy that every other one is compared with."""
STRATEGIES = (CONTROL, "linear_probe", "lora", "full")


Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Show:
    """One task of the quickstart.

    Attributes:
        task: What is predicted.
        title: What the page calls it.
        question: What is asked of an example, in a sentence.
        model: The checkpoint.
        data: The data.
        metric: What the strategies are compared by, on the test split.
        options: Options that all runs have, by section of the configuration.
        training: Further ones of the runs that are trained by gradient: the same number of steps for all.
        own: Further ones of single strategies, by strategy: a learning rate that was tuned for it.
        strategies: In the order in which they are told; the first is the control.
    """

    task: str
    title: str
    question: str
    model: str
    data: str
    metric: str
    options: Sections = field(default_factory=dict)
    training: Sections = field(default_factory=dict)
    own: Mapping[str, Sections] = field(default_factory=dict)
    strategies: tuple[str, ...] = STRATEGIES

    def request(self, strategy: str, folder: Path, seed: int) -> dict[str, Any]:
        """Return the keyword arguments of `tlhub.finetune` for one run, all plain values.

        Args:
            strategy: How to transfer.
            folder: Of the whole quickstart; the run's own lies in it.
            seed: Of the run.
        """
        sections: dict[str, dict[str, Any]] = {"model": {"name": self.model}, "data": {"source": self.data}}
        chosen = [self.options, {} if strategy == "linear_probe" else self.training, self.own.get(strategy, {})]
        for name, values in [item for part in chosen for item in part.items()]:
            sections[name] = {**sections.get(name, {}), **values}
        return {"task": self.task, "strategy": strategy, **sections, "out": str(self.run_folder(strategy, folder)),
                "seed": seed}

    def run_folder(self, strategy: str, folder: Path) -> Path:
        """Return where the run of a strategy lies in the folder of the quickstart."""
        return folder / self.task / strategy

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Show:
        """Return the show that `plain` gave, perhaps by way of JSON."""
        return cls(**{**values, "strategies": tuple(values["strategies"])})


def _rate(value: float) -> Sections:
    """Return the option of a learning rate; `benchmarks/quickstart/run.py` compares it with others by validation."""
    return {"train": {"learning_rate": value}}


SHOWS = (
    Show("image-classification", "Pictures", "Which digit did somebody write?",
         "builtin/vision", "builtin/digits", "accuracy",
         {"data": {"max_train_examples": 50}},
         # A digit in a mirror is no digit.
         {"data": {"flip": False, "crop": "padded"},
          "train": {"epochs": 20.0, "batch_size": 10, "evaluate_every": 20}},
         {"scratch": _rate(1e-3), "lora": _rate(3e-3), "full": _rate(1e-3)}),
    Show("wake-word", "A wake word", "Did a voice that was never heard before say “hey tilly”?",
         "builtin/audio", "builtin/wake_word", "average_precision",
         {"data": {"max_train_examples": 64}, "task_options": {"keyword": ["hey_tilly"]}},
         {"train": {"epochs": 8.0, "batch_size": 8, "evaluate_every": 16}}),
    Show("text-classification", "Messages", "What does a customer want?",
         "builtin/text", "builtin/messages", "accuracy",
         {},
         # A decoder's last token tells what follows; the probe finds the mean of the tokens by itself.
         {"model": {"pool": "mean"}, "train": {"epochs": 4.0, "batch_size": 8, "evaluate_every": 62}},
         {"scratch": _rate(1e-3), "lora": _rate(3e-3), "full": _rate(1e-3)}),
    Show("text-generation", "Texts that go on", "What comes next in the reference of Python?",
         "builtin/text", "builtin/python_reference", "bits_per_byte",
         {"data": {"max_evaluation_examples": 24}},
         {"train": {"max_steps": 40, "batch_size": 8, "evaluate_every": 10}},
         {"scratch": _rate(2e-3), "lora": _rate(3e-3), "full": _rate(1e-3)},
         strategies=tuple(name for name in STRATEGIES if name != "linear_probe")),
)
"""The tasks of the quickstart, those that take longest first."""
