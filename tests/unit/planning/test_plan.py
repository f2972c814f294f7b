from pathlib import Path

import numpy as np
import pytest
from scipy.stats import weightedtau

from tests import tiny
from tests.generated import write_texts
from tests.wrong import said, working_in
from tlhub.config import RunConfig, replace
from tlhub.errors import UsageError
from tlhub.planning import plan
from tlhub.planning.advice import Advice
from tlhub.planning.candidates import BITS, Candidate
from tlhub.planning.estimates import Cost
from tlhub.planning.tables import lines

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(size=1000)


def candidate(name, score, *, error=0.01, size=1000, shared=1.0, **changes):
    """A candidate whose score, when the examples are resampled, moves with those of the others to a share."""
    noise = shared * NOISE + (1 - shared) * RANDOM.normal(size=1000)
    return Candidate(name, size, "", False, **{"measure": "accuracy", "score": score,
                                               "resamples": score + error * noise, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_texts(folder / "texts", {"train": 24, "validation": 6})
    tiny.checkpoint(folder / "bert", "bert")
    tiny.checkpoint(folder / "vit", "vit")
    Path(folder / "full").mkdir()
    Path(folder / "full" / "plan.json").write_text("{}")
    with working_in(folder):
        yield folder


@pytest.mark.parametrize(("words", "code", "told"), [
    ("--data texts --model bert,vit --strategy lora", 2, "'--strategy' is not known to 'tlhub plan'"),
    ("--data texts --model , --out x", 2, "--model ',' names no checkpoint"),
    ("--data texts --model bert,vit --model.revision main", 2, "--model.revision 'main' is given for 2 checkpoints"),
    ("--data texts --model bert --train.loss mse --out x", 2, "--train.loss 'mse'"),
    ("--data texts --model bert --out full", 2, "--out 'full' holds a plan; name another folder, or pass --overwrite"),
    ("--data texts --model bert --out texts --overwrite", 2, "'texts' is not empty and holds more than a plan"),
    ("--data nowhere --model bert --out x --overwrite", 3, "nowhere"),
    ("--data texts --model vit --out x --overwrite", 4, "'vit' is of type 'vit'"),
    ("--data texts --model vit,none --out x --overwrite", 4, "none of the 2 checkpoints can serve text-classification"),
])
def test_a_user_s_mistake_is_one_line(made, capsys, words, code, told):
    assert told in said(f"plan text-classification {words}", code, capsys)


def test_names_are_separated_by_commas_but_a_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan.candidate_names("a/b, c,a/b,") == ["a/b", "c"]
    Path("a,b").mkdir()
    assert plan.candidate_names("a,b") == ["a,b"]
    with pytest.raises(UsageError, match="names no checkpoint"):
        plan.candidate_names(" , ")


def test_the_difference_counts_that_the_same_examples_show():
    best, near = candidate("best", 0.90), candidate("near", 0.88)
    gap, error = near.behind(best)
    assert (gap, best.behind(best)) == (pytest.approx(0.02), (0.0, 0.0))
    assert error < 1e-9  # they rise and fall together, so that a small difference is sure
    assert not near.within_error(best)
    apart = candidate("apart", 0.895, shared=0.0)
    assert apart.behind(best)[1] == pytest.approx(0.01 * 2**0.5, rel=0.1)
    assert apart.within_error(best)
    assert best.standard_error == pytest.approx(0.01, rel=0.1)
    low, high = (candidate(name, bits, measure=BITS) for name, bits in (("low", 1.5), ("high", 1.6)))
    assert high.behind(low)[0] == pytest.approx(0.1)
    assert low.within_error(high)


def test_what_is_worth_running():
    best = candidate("best", 0.9, size=100)
    near, far = candidate("near", 0.899, shared=0.0), candidate("far", 0.5, size=120)
    large = candidate("large", 0.4, size=200)

    def kept(*ranked, largest=best):
        return [(found.name, reason.split()[0]) for found, reason in plan._worth_running(ranked, largest)]

    assert kept(best) == [("best", "the")]
    assert kept(best, far, largest=far) == [("best", "the")]  # size says nothing among equals
    assert kept(best, near, far) == [("best", "the"), ("near", "within")]
    assert kept(best, near, far, large, largest=large) == [("best", "the"), ("near", "within"), ("large", "the")]
    assert [name for name, _ in kept(best, near, near, near, large, largest=large)] == ["best", "near", "large"]
    assert [name for name, _ in kept(best, near, near, near)] == ["best", "near", "near"]


def test_the_command_repeats_what_was_given():
    advice = Advice("linear_probe", "", "", {})
    config = replace(RunConfig(task="wake-word"), {
        "model.name": "a,b", "data.source": "my clips", "data.group_column": "speaker", "seed": 3, "out": "plans/x",
        "task_options": {"keyword": ["hey you", "stop"]}, "train.epochs": 5.0, "train.label_smoothing": 0.1,
        "launch.num_processes": 1})
    assert plan.command(config, "b", advice) == (
        "tlhub finetune wake-word --model b --data 'my clips' --strategy linear_probe --data.group_column speaker "
        "--train.label_smoothing 0.1 --keyword 'hey you,stop' --seed 3")
    advice = Advice("full", "", "", {"train.micro_batch_size": "4"})
    assert plan.command(config, "b", advice) == (
        "tlhub finetune wake-word --model b --data 'my clips' --strategy full --data.group_column speaker --epochs 5 "
        "--train.label_smoothing 0.1 --keyword 'hey you,stop' --seed 3 --train.micro_batch_size 4")


def test_orders_are_compared_where_there_are_enough_candidates():
    each = [candidate(name, score, size=size, knn=score, logme=-score)
            for name, score, size in (("a", 0.9, 5), ("b", 0.8, 5), ("c", 0.7, 9))]
    assert plan._agreement(each[:2]) == {}
    assert plan._agreement(each) == {
        "size": pytest.approx(weightedtau([3, 2, 1], [5, 5, 9]).statistic), "kNN": 1.0, "LogME": -1.0}


def test_a_plan_in_words():
    best = candidate("a/b", 0.912, features="mean", knn=0.9, logme=0.25, size=3_600_000)
    second = candidate("c", 0.912 - 0.005, features="native", shared=0.0, size=4000)
    costs = (Cost("linear_probe", 51, seconds=4.2, peak=600 * 2**20),
             Cost("lora", 7219, 180, 8, 400.0, 2.0, 2**31, None, 2), Cost("full", fits=False, reason="too large"),
             Cost("last_k", reason="the blocks are not known"), Cost("scratch", 9, 10, 8, 7300.0, 1.0, None, 4, 4))
    kept = plan.Kept(best, "the best score", costs, Advice("lora", "full", "it is so", {}), "tlhub finetune it")
    found = plan.Plan(Path("plans/x"), "wake-word", "data", 480, 400, 7, True, (best, second), ("a/b", "c"),
                      {"d": "it is an encoder"}, {"size": 0.5}, (kept,), 2**34, "cpu", 3.0)
    text = "\n".join(lines(found))
    whole = " ".join(text.split())
    for words in ("480 training examples, 7 of the rarest class", "compared on 400", "from all others of other groups",
                  "0.912 ± 0.010", "0.005 ± 0.01", "(within one error)", "left out: d: it is an encoder", "size +0.50",
                  "16.0 GiB", "*  lora", "180 x 8", "7 min", "2.0 GiB  extrapolated from 2 examples at a time",
                  "does not fit: too large", "the blocks are not known", "2.0 h", "?", "micro_batch_size 4", "600 MiB",
                  "4 s", "take lora and compare it with full: it is so.", "plan: plans/x/plan.json",
                  "  tlhub finetune it"):
        assert words in text or words in whole, words
    assert max(map(len, text.splitlines())) < 140
    content = plan.content(found)
    assert [row["name"] for row in content["candidates"]] == ["a/b", "c"]
    assert [row["within_one_error"] for row in content["candidates"]] == [True, True]
    assert content["kept"][0]["costs"][1]["steps"] == 180
