import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import weightedtau

from tests import tiny
from tests.generated import write_sounds, write_texts
from tests.wrong import said, working_in
from tlhub import cli, options
from tlhub.config import RunConfig, replace
from tlhub.errors import (
    CheckpointError,
    DataError,
    DiskFullError,
    LostDataError,
    StoppedError,
    TlhubError,
    UsageError,
)
from tlhub.folder import finite
from tlhub.planning import plan, tables
from tlhub.planning.advice import Advice
from tlhub.planning.candidates import BITS, Candidate
from tlhub.planning.costs import DoesNotFitError
from tlhub.planning.estimates import Cost, Estimates
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
    tiny.checkpoint(folder / "whisper", "whisper")
    write_sounds(folder / "sounds", {"train": 24, "validation": 6})
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
    many = [f"a-checkpoint-with-a-name-{number}" for number in range(400)]
    assert plan.candidate_names(",".join(many)) == many
    assert plan.candidate_names("~nobody-of-this-name/x") == ["~nobody-of-this-name/x"]
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
    close = candidate("close", 0.8985, size=200, shared=0.0)  # within one error, and the largest, in every place
    for place in range(4):
        others = [near] * 3
        others.insert(place, close)
        assert ("close", "the" if place > 1 else "within") in kept(best, *others, largest=close), place
        assert len(kept(best, *others, largest=close)) == 3
    nobody = candidate("nobody", 0.9, size=100, resamples=np.full(1000, np.nan))
    assert kept(nobody, far) == [("nobody", "the"), ("far", "one")]  # how sure the difference is is not known


def test_a_checkpoint_that_fails_does_not_end_the_plan(made, monkeypatch, caplog):
    config = options.from_kwargs("text-classification", data="texts", model="good,bad,fine")
    errors = {}

    def examine(subject, name):
        if name in errors:
            raise errors[name]
        return candidate(name, {"good": 0.9, "fine": 0.899, "bad": 0.95}[name], shared=0.0)

    def kept(subject, found, reason):
        if found.name in errors:
            raise errors[found.name]
        return plan.Kept(found, reason, (), Advice("lora", "", "so", {}), "tlhub finetune")

    monkeypatch.setattr(plan, "examine", examine)
    monkeypatch.setattr(plan, "_kept", kept)

    def found(number):
        return plan.plan(replace(config, {"out": f"failing-{number}"}))

    # A checkpoint can be too large to be scored, or to be trained; texts can be too few for its blocks alone.
    wide = RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
    for number, error in enumerate((TlhubError("memory does not suffice"), wide, CheckpointError("no"), UsageError("n"),
                                    DataError("less than one block"), DoesNotFitError("no"))):
        errors = {"bad": error}
        made_plan = found(number)
        assert [one.name for one in made_plan.ranked] == ["good", "fine"]
        assert "memory does not suffice" in made_plan.skipped["bad"] if error is wide else made_plan.skipped == {
            "bad": str(error)}
        assert "bad is left out" in caplog.text
        caplog.clear()
    # What ends every other candidate's examination too, or is nobody's fault, is told at once.
    for error in (LostDataError("gone"), DiskFullError("full"), StoppedError("stop"), KeyError("a fault")):
        errors = {"bad": error}
        with pytest.raises(type(error)):
            found("at-once")
    errors = {name: DataError("too few") for name in ("good", "bad", "fine")}
    with pytest.raises(DataError, match=r"none of the 3 checkpoints can serve text-classification: too few$"):
        found("none")
    errors["bad"] = CheckpointError("no")
    with pytest.raises(CheckpointError, match="too few; no"):
        found("none")


def test_a_checkpoint_that_cannot_be_tried_does_not_end_the_plan(made, monkeypatch, caplog):
    config = options.from_kwargs("text-classification", data="texts", model="good,bad,fine")
    scores, errors = {"good": 0.9, "bad": 0.901, "fine": 0.899}, {}
    monkeypatch.setattr(plan, "examine", lambda subject, name: candidate(name, scores[name], shared=0.0))

    def kept(subject, found, reason):
        if found.name in errors:
            raise errors[found.name]
        return plan.Kept(found, reason, (), Advice("lora", "", "so", {}), "tlhub finetune")

    monkeypatch.setattr(plan, "_kept", kept)
    for number, error in enumerate((TlhubError("memory does not suffice"), MemoryError())):
        errors = {"bad": error}
        found = plan.plan(replace(config, {"out": f"untried-{number}"}))
        assert [one.name for one in found.ranked] == ["bad", "good", "fine"]
        assert [one.candidate.name for one in found.kept] == ["good", "fine"]
        assert "memory does not suffice" in found.skipped["bad"]
        assert "bad is left out" in caplog.text
        assert any(line.startswith("left out: bad: memory") for line in lines(found))
        caplog.clear()
    errors = {"bad": DiskFullError("full")}
    with pytest.raises(DiskFullError):
        plan.plan(replace(config, {"out": "untried"}))
    errors = {name: TlhubError(f"not {name}") for name in scores}
    with pytest.raises(TlhubError, match="not bad"):
        plan.plan(replace(config, {"out": "untried"}))
    caplog.clear()
    errors = {"good": TlhubError("not this one")}
    with pytest.raises(TlhubError, match="not this one"):
        plan.plan(replace(config, {"out": "untried", "model.name": "good"}))
    assert "left out" not in caplog.text


def test_a_plan_that_fails_leaves_things_as_they_were(made, capsys):
    kept = made / "full" / "plan.json"
    for words, code in (("--data nowhere --model bert", 3), ("--data texts --model vit", 4)):
        said(f"plan text-classification {words} --out full --overwrite", code, capsys)
        assert kept.read_text() == "{}"
        said(f"plan text-classification {words} --out new/folder", code, capsys)
        assert not (made / "new").exists()
        (made / "plans").mkdir(exist_ok=True)
        said(f"plan text-classification {words}", code, capsys)
        assert list((made / "plans").iterdir()) == []
        (made / "empty").mkdir(exist_ok=True)
        said(f"plan text-classification {words} --out empty", code, capsys)
        assert (made / "empty").is_dir()
    assert said("plan text-classification --data texts --model bert --out full", 2, capsys).startswith("--out 'full'")


def test_a_plan_takes_the_place_of_the_one_before(made, monkeypatch, capsys):
    (made / "again").mkdir()
    (made / "again" / "plan.json").write_text("{}")
    monkeypatch.setattr(plan, "_kept", lambda subject, found, reason: plan.Kept(
        found, reason, (), Advice("lora", "", "so", {}), "tlhub finetune it"))
    words = "plan text-classification --data texts --model bert --out again"
    assert cli.main([*words.split(), "--overwrite"]) == 0
    assert [path.name for path in (made / "again").iterdir()] == ["plan.json"]
    assert '"bert"' in (made / "again" / "plan.json").read_text()
    assert cli.main(words.split()) == 2


def test_the_advice_goes_by_what_a_run_fills_in(made, monkeypatch):
    given = []

    def advise(situation, costs, config):
        given.append(config)
        return Advice("full", "", "", {})

    monkeypatch.setattr(plan, "advise", advise)
    monkeypatch.setattr(Estimates, "all", lambda self: [])
    monkeypatch.setattr(plan, "examine", lambda subject, name: candidate(name, 0.9))
    plan.plan(options.from_kwargs("wake-word", data="sounds", model="whisper", keyword="high", out="woken"))
    assert [config.train.class_weights for config in given] == ["balanced"]


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
    unknown = [candidate(name, bits, measure=BITS, resamples=np.full(1000, np.nan)) for name, bits in (("a/b", 1.0),
                                                                                                      ("c", 1.5))]
    one_text = dataclasses.replace(found, ranked=tuple(unknown), kept=())
    whole = " ".join("\n".join(lines(one_text)).split())
    assert "1.000 ± ?" in whole
    assert "1.500 ± ? 0.500 ± ?" in whole
    assert "within" not in whole
    rows = finite(plan.content(one_text))["candidates"]
    assert [(row["standard_error"], row["behind_standard_error"]) for row in rows] == [(None, None)] * 2
    content = plan.content(found)
    assert [row["name"] for row in content["candidates"]] == ["a/b", "c"]
    assert [row["within_one_error"] for row in content["candidates"]] == [True, True]
    assert content["kept"][0]["costs"][1]["steps"] == 180


@pytest.mark.parametrize(("largest", "asked", "fitting", "told"), [
    (32, None, None, False), (8, None, None, True), (8, 8, None, False), (4, 8, None, True), (4, 8, 4, False),
    (2, 8, 4, True), (None, None, None, False)])
def test_a_cost_is_extrapolated_where_less_was_tried_than_a_run_takes_at_a_time(largest, asked, fitting, told):
    cost = Cost("full", 9, 10, 32, 60.0, 1.0, 2**31, fitting, largest, at_once=asked)
    assert (f"extrapolated from {largest} examples at a time" in tables._remark(cost)) == told
