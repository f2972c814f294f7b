from tests.quickstart import findings, row
from tlhub.cli import QUICKSTART
from tlhub.options import parse
from tlhub.parsers import FINETUNE
from tlhub.quickstart.words import best, between, command, gain, next_steps, sizes, table


def test_the_table_has_a_line_for_each_strategy_in_order():
    lines = table([findings("image"), findings("corpus")])
    first = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("  strategy")]
    assert first == ["scratch", "linear_probe", "lora", "full", "as", "scratch", "lora", "full"]
    assert lines[0] == ("image-classification: builtin/some on builtin/other, 50 examples to learn from, 90 to score")
    assert lines[4] == ("  lora         0.810  [0.76, 0.85]            +0.210  [+0.05, +0.25]     3,589,130     12.3")
    assert max(map(len, lines)) <= 100


def test_a_gain_is_positive_where_the_score_is_better():
    assert gain(row("full", 0.8), row("scratch", 0.6), lower=False) > 0
    assert gain(row("full", 2.4), row("scratch", 3.2), lower=True) > 0
    assert best(findings("image"))["strategy"] == "lora"
    assert best(findings("corpus"))["strategy"] == "full"


def test_the_best_is_that_of_validation_and_what_is_advised_transfers():
    found = findings("image")
    found["rows"] = [row("scratch", 0.6, validation=0.9), row("lora", 0.5, validation=0.8),
                     row("full", 0.9, validation=0.7)]
    assert best(found)["strategy"] == "scratch"
    assert "--strategy lora" in command(found)
    found["lower_is_better"] = True
    assert best(found)["strategy"] == "full"


def test_intervals_and_sizes_in_words():
    assert between([0.1234, 0.5]) == "[0.12, 0.50]"
    assert between([-0.1, 0.5], signed=True) == "[-0.10, +0.50]"
    assert between(None) == ""
    assert sizes(findings("corpus")) == "9,000 tokens to learn from, 700 to score"


def test_what_to_type_next_can_be_typed():
    every = [findings(kind) for kind in ("image", "text", "audio", "corpus")]
    commands = [line for _, line in next_steps(every, "runs/my quickstart")]
    trainings = [line.split() for line in commands if line.startswith("tlhub finetune")]
    assert len(trainings) == 4
    for words in trainings:
        assert parse(words[2:]).task == words[2]
    assert command(every[2]).endswith("--keyword NAME")
    assert any("'runs/my quickstart/image-classification/lora'" in line for line in commands)
    assert {line.split()[1] for line in commands} == {"finetune", "data", "predict", "models"}


def test_the_command_takes_few_options():
    assert set(QUICKSTART.option_names()) == {"out", "seed", "overwrite", "debug"}
    assert set(QUICKSTART.option_names()) < {*FINETUNE.option_names()}
