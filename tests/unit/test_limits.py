import pytest

from tlhub.config import TASK_OPTIONS, RunConfig, replace
from tlhub.errors import UsageError
from tlhub.limits import NUMBERS, check_values


def test_the_defaults_are_accepted():
    check_values(RunConfig())


def with_number(name, value):
    """Return a configuration with one number, of the task that has it."""
    section, _, key = name.partition(".")
    if section == "task_options":
        task = next(task for task, cls in TASK_OPTIONS.items() if key in cls.__annotations__)
        return RunConfig(task=task, task_options={key: value})
    other = "data.test_fraction" if name != "data.test_fraction" else "data.validation_fraction"
    return replace(RunConfig(), {name: value, other: 0.0})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_limit_is_held(name):
    low, high, ends = NUMBERS[name]
    for value, inside in (
        (low - 1, False),
        (low, ends[0] == "["),
        (min(low + 0.5, high) if "." in str(low / 3) else low + 1, True),
    ):
        config = with_number(name, value)
        if inside and value < high:
            check_values(config)
        elif not inside:
            with pytest.raises(UsageError, match=rf"option '{name}' is .*; it has to be (at least|more than) {low}"):
                check_values(config)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(UsageError, match="learning_rate"):
        check_values(replace(RunConfig(), {"train.learning_rate": float("nan")}))
    with pytest.raises(UsageError, match="epochs"):
        check_values(replace(RunConfig(), {"train.epochs": float("inf")}))


def test_a_choice_is_refused_with_the_closest_one():
    with pytest.raises(UsageError, match=r"option 'train\.schedule' is 'cosin'; did you mean 'cosine'"):
        check_values(replace(RunConfig(), {"train.schedule": "cosin"}))


def test_fractions_have_to_leave_training_data():
    with pytest.raises(UsageError, match="leave nothing to train on"):
        check_values(replace(RunConfig(), {"data.validation_fraction": 0.6, "data.test_fraction": 0.4}))
