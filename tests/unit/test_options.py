import logging

import pytest
import yaml

from tlhub.config import replace
from tlhub.errors import UsageError
from tlhub.options import check_problem, effective, flatten, from_kwargs, identity, parse

BASE = ["text-classification", "--model", "m", "--data", "d"]
RECIPE = {"task": "text-classification", "model": "m", "data": {"source": "d", "max_length": 64},
          "strategy": {"name": "lora", "rank": 4}, "train": {"learning_rate": 0.001, "epochs": 2}}


@pytest.fixture
def recipe(tmp_path):
    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)
    return write


def test_command_line_python_and_yaml_say_the_same(recipe):
    by_line = parse([*BASE, "--strategy", "lora", "--strategy.rank", "4", "--epochs", "2", "--learning_rate", "1e-3",
                     "--data.max_length", "64"])
    by_call = from_kwargs("text-classification", model="m", data={"source": "d", "max_length": 64}, epochs=2,
                          strategy={"name": "lora", "rank": 4}, learning_rate=0.001)
    by_file = parse(["--config", recipe(RECIPE)])
    assert by_line == by_call == by_file


def test_the_command_line_wins_over_the_file(recipe):
    config = parse(["--config", recipe(RECIPE), "--epochs", "5", "--data", "other"])
    assert (config.train.epochs, config.data.source, config.data.max_length) == (5.0, "other", 64)


def test_options_of_a_task_are_named_one_by_one(recipe):
    path = recipe({"task": "wake-word", "model": "m", "data": "d", "task_options": {"keyword": ["marvin"]}})
    config = parse(["--config", path, "--task_options.false_accept_rate", "0.05"])
    assert config.task_options == {"keyword": ["marvin"], "false_accept_rate": 0.05}
    assert parse(["--config", path, "--keyword", "sheila"]).task_options == {"keyword": ["sheila"]}


@pytest.mark.parametrize(("given", "names"), [
    ("7", ["7"]), ("007,yes, on", ["007", "yes", "on"]), ("1e3,null", ["1e3", "null"]), ("[a, b]", ["a", "b"]),
    ("'a,b',c", ["a,b", "c"]), ("größer", ["größer"])])
def test_names_in_a_list_may_look_like_numbers(given, names):
    for words in (["--keyword", given], [f"--keyword={given}"]):
        assert parse(["wake-word", "--model", "m", "--data", "d", *words]).task_options["keyword"] == names


def test_a_strategy_on_the_command_line_drops_what_belongs_to_the_files(recipe, caplog):
    path = recipe(RECIPE)
    with caplog.at_level(logging.INFO, "tlhub"):
        config = parse(["--config", path, "--strategy", "linear_probe"])
    assert config.strategy.name == "linear_probe"
    assert config.train.learning_rate is None
    assert config.data.max_length == 64
    assert len(caplog.records) == 1
    assert "strategy.rank, train.epochs, train.learning_rate" in caplog.text
    assert parse(["--config", path, "--strategy", "full"]).train.epochs == 2.0


def test_a_strategy_named_again_keeps_what_is_named_beside_it(recipe):
    config = parse(["--config", recipe(RECIPE), "--strategy", "lora", "--strategy.rank", "2"])
    assert config.strategy.rank == 2


def test_the_record_of_a_run_repeats_it_elsewhere(recipe):
    path = recipe({**RECIPE, "out": "runs/a", "record": {"versions": {"torch": "2"}}})
    assert parse(["--config", path]).out is None
    assert parse(["--config", path, "--out", "runs/b"]).out == "runs/b"
    assert parse(["--config", recipe({**RECIPE, "out": "runs/a"})]).out == "runs/a"


def test_what_a_run_filled_in_is_chosen_anew_for_another_strategy(recipe, caplog):
    given = {"data": {"max_length": 64}, "train": {"epochs": 2, "learning_rate": None}, "evaluate": {"metrics": []}}
    path = recipe({**RECIPE, "evaluate": {"metrics": ["accuracy"]}, "record": {"given": given}})
    assert parse(["--config", path, "--epochs", "3"]).train.learning_rate == 0.001
    assert parse(["--config", path, "--strategy", "lora"]).train.learning_rate == 0.001
    for words in (["--strategy", "full"], ["--model", "other"], ["--data", "other"]):
        caplog.clear()
        with caplog.at_level(logging.INFO, "tlhub"):
            config = parse(["--config", path, *words])
        assert (config.train.learning_rate, config.evaluate.metrics) == (None, [])
        assert (config.train.epochs, config.data.max_length) == (2.0, 64)
        assert "chosen anew: evaluate.metrics, train.learning_rate" in caplog.text
    assert parse(["--config", path, "--strategy", "full", "--learning_rate", "1"]).train.learning_rate == 1.0


def test_what_is_written_reads_back(recipe):
    config = from_kwargs(**RECIPE, out="runs/a", log={"trackers": ["tensorboard"]})
    assert parse(["--config", recipe(effective(config))]) == config
    assert from_kwargs(**effective(config)) == config


@pytest.mark.parametrize(("words", "message"), [
    (["--strategy", "lara"], "strategy 'lara' is not known; did you mean 'lora'"),
    (["--strategy.rank", "16"], "'strategy.rank' (given: 16) has no effect with strategy 'full' (it has with: lora)"),
    (["--strategy", "lora", "--strategy.method", "ia3", "--strategy.rank", "4"], "with strategy.method 'ia3'"),
    (["--strategy", "linear_probe", "--epochs", "3"], "'train.epochs' (given: 3.0) has no effect with strategy"),
    (["--data.flip", "false"], "has no effect with task 'text-classification' (it has with: image-classification, "),
    (["--keyword", "marvin"], "'task_options.keyword' has no effect in task 'text-classification'"),
    (["--epochs", "0"], "'train.epochs' is 0.0; it has to be more than 0"),
    (["--model", ""], "no model is given"), (["--data", ""], "no data is given")])
def test_mistakes_of_the_command_line(words, message):
    with pytest.raises(UsageError) as caught:
        parse([*BASE, *words])
    assert message in str(caught.value)


def test_a_task_has_to_be_named():
    with pytest.raises(UsageError, match="no task is given; valid: audio-classification, image-classification, "
                                         "image-regression, text-classification, text-generation, wake-word"):
        parse(["--model", "m"])
    with pytest.raises(UsageError, match="did you mean 'text-classification'"):
        from_kwargs("text-clasification", model="m", data="d")


@pytest.mark.parametrize(("content", "message"), [
    ("train: {lerning_rate: 1}", "'train.lerning_rate' in {path} is not known; did you mean 'train.learning_rate'"),
    ("trian: {epochs: 1}", "'trian' in {path} is not known; did you mean 'train'"),
    ("train: 5", "'train' in {path} is 5, but holds options of its own"),
    ("train: {epochs: [1]}", "'train.epochs' in {path} is [1], but needs a number or null"),
    ("seed:", "'seed' in {path} is None, but needs a whole number"),
    ("train: {weight_decay: null, compile: null}", "'train.compile' in {path} is None, but needs true or false"),
    ("model: {5: 3}", "'model.5' in {path} is not known"),
    ("a: [", "'{path}' is not YAML"), ("- x", "'{path}' holds no options"), ("", "'{path}' holds no options")])
def test_mistakes_of_a_file(recipe, content, message):
    path = recipe(content)
    with pytest.raises(UsageError) as caught:
        parse([*BASE, "--config", path])
    assert message.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        parse(["--config", str(tmp_path / "none.yaml")])
    (tmp_path / "latin.yaml").write_bytes("model: caf\xe9".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        parse(["--config", str(tmp_path / "latin.yaml")])


def test_a_plain_string_stands_for_a_sections_main_field():
    assert flatten({"model": "m", "epochs": 3, "train": {"seed": 1}} | {"train": {"epochs": 2}}) == {
        "model.name": "m", "train.epochs": 2}


def test_effective_holds_only_what_has_an_effect():
    values = effective(from_kwargs("text-classification", model="m", data="d", strategy="linear_probe"))
    assert values["strategy"] == {"name": "linear_probe", "features": "auto"}
    assert "epochs" not in values["train"]
    assert "flip" not in values["data"]
    assert "max_length" in values["data"]


def test_identity_leaves_out_how_it_is_computed():
    one = from_kwargs("text-classification", model="m", data="d")
    same = from_kwargs("text-classification", model="m", data="d", out="runs/x", num_processes=2,
                       train={"micro_batch_size": 2}, log={"every": 3}, launch={"num_processes": 2, "workers": 1})
    other = from_kwargs("text-classification", model="m", data="d", seed=1)
    assert identity(one) == identity(same)
    assert identity(one) != identity(other)


@pytest.mark.parametrize(("words", "message"), [
    (["--data.mixup", "0.2", "--data.problem_type", "regression"],
     "'data.mixup' (given: 0.2) has no effect with kind of target 'regression' (it has with: single_label"),
    (["--train.focal_gamma", "3"], "'train.focal_gamma' (given: 3.0) has no effect with train.loss None (it has with: "
                                   "focal)"),
    (["--train.momentum", "0.5"], "has no effect with train.optimizer 'adamw' (it has with: sgd)"),
    (["--model.activation", "gelu"], "has no effect with model.head 'linear'; leave it out"),
    (["--data.randaugment_magnitude", "3"], "has no effect with data.randaugment 0; leave it out"),
    (["--strategy.k", "3"], "has no effect with strategy 'full' (it has with: last_k)")])
def test_options_that_wait_for_others(words, message):
    images = ["image-classification", *BASE[1:]]
    with pytest.raises(UsageError) as caught:
        parse([*images, *words])
    assert message in str(caught.value)


def test_options_that_others_ask_for_are_taken():
    config = parse(["image-classification", *BASE[1:], "--train.loss", "focal", "--train.focal_gamma", "3",
                    "--train.optimizer", "sgd", "--train.momentum", "0.5", "--model.head", "8", "--model.activation",
                    "gelu", "--data.randaugment", "2", "--data.randaugment_magnitude", "3"])
    assert (config.train.focal_gamma, config.train.momentum, config.model.activation) == (3.0, 0.5, "gelu")


def test_the_data_s_kind_of_target_is_checked_when_it_is_known():
    config = parse(["text-classification", *BASE[1:], "--train.label_smoothing", "0.1"])
    check_problem(replace(config, {"data.problem_type": "single_label_classification"}))
    with pytest.raises(UsageError, match=r"'train.label_smoothing' \(given: 0.1\) has no effect with kind of target "
                                         r"'multi_label_classification'"):
        check_problem(replace(config, {"data.problem_type": "multi_label_classification"}))
