"""What is predicted: the kind of target, and the names of its classes, labels or values."""

from __future__ import annotations

from dataclasses import dataclass

from tlhub.config import PROBLEM_TYPES


@dataclass(frozen=True)
class Target:
    """The kind of target, which labels tell by their type, and what its parts are called.

    | problem type | labels |
    |---|---|
    | `config.SINGLE_LABEL` | int64, shape (n,): the index of the class |
    | `config.MULTI_LABEL` | bool, shape (n, c): which of the labels hold |
    | `config.REGRESSION` | float64, shape (n, t): values in the data's own units |
    | `config.NEXT_TOKEN` | int64, shape (n, 2): how many tokens are predicted, and the UTF-8 bytes they stand for |

    Attributes:
        problem_type: One of `config.PROBLEM_TYPES`.
        names: Names of the classes, labels or values, in the order of the model's outputs.
    """

    problem_type: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what no model can be trained for.

        Raises:
            ValueError: The problem type is unknown, or there are no names.
        """
        if self.problem_type not in PROBLEM_TYPES or not self.names:
            raise ValueError(f"a target is one of {', '.join(PROBLEM_TYPES)} with names, not {self!r}")

    def __len__(self) -> int:
        """Return the number of classes, labels or values."""
        return len(self.names)
