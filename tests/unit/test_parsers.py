import pytest

from tlhub.config import SECTIONS
from tlhub.errors import UsageError
from tlhub.parsers import FINETUNE, Command, option_names, suggestion, typed

SMALL = Command("small", "A command.", {"input+": "things"}, ("data",), actions={"size=": "a size"})


def test_only_what_is_named_is_returned():
    given = FINETUNE.arguments(["text-classification", "--model", "m", "--epochs=2", "--overwrite"])
    assert given == {"task": "text-classification", "model": {"name": "m"}, "train": {"epochs": 2.0}, "overwrite": True}


def test_short_options_are_the_fields_they_stand_for():
    assert FINETUNE.arguments(["--strategy", "lora"]) == FINETUNE.arguments(["--strategy.name=lora"])


@pytest.mark.parametrize("words", [["--log.trackers", "a,b"], ["--log.trackers=a,b"], ["--log.trackers", "[a, b]"]])
def test_lists_are_written_with_commas(words):
    assert FINETUNE.arguments(words) == {"log": {"trackers": ["a", "b"]}}


def test_options_of_a_task_are_passed_on():
    for words in (["--keyword", "marvin,up"], ["--keyword=[marvin, up]"], ["--task_options.keyword", "marvin,up"]):
        assert FINETUNE.arguments(words) == {"task_options": {"keyword": ["marvin", "up"]}}


@pytest.mark.parametrize(("words", "message"), [
    (["--lerning_rate", "1"], "'--lerning_rate' is not known to 'tlhub finetune'; did you mean '--learning_rate'"),
    (["--train.lerning_rate", "1"], "did you mean '--train.learning_rate'"),
    (["--learning-rate=1"], "did you mean '--learning_rate'"),
    (["--rank", "8"], "did you mean '--strategy.rank'"),
    (["--zzz", "8"], "--help lists the options"),
    (["--epochs", "many"], "'train.epochs' is 'many', but needs a number or null"),
    (["--max_steps", "1.5"], "'train.max_steps' is '1.5', but needs a whole number or null"),
    (["--evaluate.knn", "perhaps"], "'evaluate.knn' is 'perhaps', but needs true or false"),
    (["--epochs"], "train.epochs: expected one argument"),
    (["a-task", "another"], "unrecognized arguments: another")])
def test_mistakes_are_named_in_one_line(words, message):
    with pytest.raises(UsageError) as caught:
        FINETUNE.arguments(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_takes_only_its_own_options():
    assert SMALL.arguments(["a", "b", "--data", "d", "--size", "3"]) == {"input": ["a", "b"], "data": {"source": "d"},
                                                                        "size": "3"}
    with pytest.raises(UsageError, match="'--epochs' is not known to 'tlhub small'"):
        SMALL.arguments(["a", "--epochs", "3"])


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        FINETUNE.arguments(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    names = [name for name in option_names() if "." in name]
    assert len(names) > 50
    assert [name for name in names if f"--{name}" not in text] == []


def test_typed_reads_what_yaml_holds():
    assert typed({"train.learning_rate": "1e-3", "data.max_length": None, "evaluate.metrics": "accuracy, f1_macro",
                  "strategy.targets": ("query",)}) == {
        "train.learning_rate": 1e-3, "data.max_length": None, "evaluate.metrics": ["accuracy", "f1_macro"],
        "strategy.targets": ["query"]}
    assert typed({"task_options.keyword": "marvin", "task_options.false_accept_rate": "0.05"}) == {
        "task_options": {"keyword": ["marvin"], "false_accept_rate": 0.05}}


@pytest.mark.parametrize(("name", "value", "needs"), [
    ("model.name", 5, "text"), ("train.max_steps", True, "a whole number"), ("train.epochs", [1], "a number"),
    ("seed", "x", "a whole number"), ("log.trackers", 3, "a list of names"),
    ("task_options.false_accept_rate", "x", "a number")])
def test_typed_refuses_other_types(name, value, needs):
    with pytest.raises(UsageError, match=f"option '{name}' in run.yaml is .*, but needs {needs}"):
        typed({name: value}, " in run.yaml")


def test_suggestions_prefer_the_whole_name():
    assert suggestion("trian", ["train.epochs", *SECTIONS]) == "did you mean 'train'?"
    assert suggestion("metrics", option_names()) == "did you mean 'evaluate.metrics'?"
    assert suggestion("qqq", option_names()) == "--help lists the options"
