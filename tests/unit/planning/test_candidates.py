import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests import tiny
from tests.generated import write_corpus, write_sounds, write_table, write_texts
from tests.wrong import working_in
from tlhub import options
from tlhub.data.prepare import prepare
from tlhub.errors import CheckpointError
from tlhub.models.probes import ridge_loo
from tlhub.planning import candidates
from tlhub.planning.candidates import Subject, examine, load
from tlhub.planning.scores import knn_loo, logme
from tlhub.registry import TASKS
from tlhub.training.processes import make_accelerator


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    counts = {"train": 24, "validation": 9}
    write_texts(folder / "texts", counts)
    write_sounds(folder / "sounds", counts)
    tiny.checkpoint(folder / "bert", "bert")
    tiny.checkpoint(folder / "named", "bert", ["a", "b"])
    tiny.checkpoint(folder / "whisper", "whisper")
    write_corpus(folder / "corpus", {"train": 60, "validation": 20})
    (folder / "several").mkdir()
    for split in ("train", "validation"):
        text = (folder / "corpus" / f"{split}.txt").read_text()
        (folder / "several" / f"{split}.csv").write_text("text\n" + text)
    write_table(folder / "two", {split: [{"text": f"{word} {row}", "label": word} for row in range(count)
                                         for word in ("rain", "bread")] for split, count in counts.items()})
    for kind in ("gpt2", "llama"):
        tiny.generator(folder / kind, kind)
    with working_in(folder):
        yield folder


def subject(task, **choices):
    config = options.from_kwargs(task, **{"model": "x", **choices})
    kind = TASKS.get(task)()
    data = prepare(config.data, kind.modality, problems=kind.problems, seed=0, keywords=kind.keywords(config))
    return Subject(config, data, make_accelerator(config))


def test_the_score_is_that_of_the_probe_on_the_best_features(monkeypatch):
    given = subject("text-classification", data="texts")
    found = examine(given, "bert")
    bench = candidates._bench(given, candidates.load(given, "bert", "linear_probe"))
    labels = given.compared.labels
    assert len(labels) == 24
    features = {kind: splits["train"] for kind, splits in bench.features(tuple(found.kinds)).items()}
    scores = {kind: ridge_loo(values, labels, 3) for kind, values in features.items()}
    assert found.kinds == {kind: pytest.approx(result.score) for kind, result in scores.items()}
    assert found.score == max(found.kinds.values()) == found.kinds[found.features]
    assert found.standard_error == pytest.approx(scores[found.features].standard_error, rel=0.15)
    best = features[found.features]
    assert (found.knn, found.logme) == (knn_loo(best, labels, 3), logme(best, labels, 3))
    assert (found.measure, found.pretraining, found.masked) == ("accuracy", "", False)
    assert 0 < found.half <= 1
    assert examine(given, "named").pretraining == "2 labels"
    # The same examples are drawn for every candidate, and the features are those that a run keeps.
    again = dataclasses.replace(examine(given, "bert"), name="again")
    assert again.behind(found) == (0.0, 0.0)
    monkeypatch.setattr("tlhub.models.features._forward", None)
    assert examine(given, "bert").score == found.score


def test_fewer_examples_are_compared_where_there_are_many(monkeypatch):
    monkeypatch.setitem(candidates.MOST_EXAMPLES, "text", 12)
    given = subject("text-classification", data="texts")
    assert np.bincount(given.compared.labels).tolist() == [4, 4, 4]
    assert given.fingerprint != given.data.fingerprint
    assert len(examine(given, "bert").resamples) == 1000


def test_a_keyword_is_found_among_the_others():
    given = subject("wake-word", data="sounds", keyword="high")
    found = examine(given, "whisper")
    bench = candidates._bench(given, candidates.load(given, "whisper", "linear_probe"))
    features = bench.features(tuple(found.kinds))[found.features]["train"]
    result = ridge_loo(features, given.compared.labels, 2)
    wanted = given.compared.labels > 0
    assert found.measure == "average precision"
    assert wanted.sum() == 8
    assert found.score == pytest.approx(average_precision_score(wanted, result.outputs[:, 1] - result.outputs[:, 0]))


def grouped(given, groups):
    """The same, with the training examples in groups."""
    train = dataclasses.replace(given.data.splits["train"], groups=groups)
    data = dataclasses.replace(given.data, splits={**given.data.splits, "train": train})
    return dataclasses.replace(given, data=data)


def test_groups_are_resampled_whole():
    plain = subject("text-classification", data="texts")
    labels = plain.compared.labels
    groups = np.arange(24) // 6
    # Two of four groups are answered rightly: as much is known as from four examples.
    outputs = np.eye(3)[np.where(groups % 2, labels, (labels + 1) % 3)]
    by_group = candidates._on_resamples(grouped(plain, np.array(list("dcba"))[groups]), outputs)
    assert by_group.mean() == pytest.approx(0.5, abs=0.03)
    assert by_group.std() == pytest.approx((0.25 / 4) ** 0.5, rel=0.08)
    assert candidates._on_resamples(plain, outputs).std() == pytest.approx((0.25 / 24) ** 0.5, rel=0.08)
    # Groups of unlike size: the share of right answers among all that were drawn.
    groups = np.repeat([0, 1, 2], [2, 4, 18])
    outputs = np.eye(3)[np.where(groups < 2, labels, (labels + 1) % 3)]
    shares = {0.0, 1.0, 4 / 22, 6 / 24, 8 / 26, 2 / 38, 4 / 40}
    found = candidates._on_resamples(grouped(plain, groups), outputs)
    assert {round(share, 9) for share in found} == {round(share, 9) for share in shares}


def test_more_of_the_same_in_a_group_makes_no_score_surer():
    random = np.random.default_rng(0)
    spoken = [(" ".join(random.choice(tiny.WORDS, 5)), "ab"[number % 2], number) for number in range(12)]
    # The tokenizer does not know the last words, so that the texts of a group are one to the checkpoint.
    write_table(Path("repeated"), {split: [
        {"text": f"{text} {ending}", "label": label, "speaker": f"{split} {number}"}
        for text, label, number in spoken for ending in endings]
        for split, endings in (("train", ("一", "七", "万", "丈", "三", "上")), ("validation", ("下", "不")))})
    given = subject("text-classification", data={"source": "repeated", "group_column": "speaker"})
    found = examine(given, "bert")
    assert 0 < found.score < 1
    assert found.standard_error == pytest.approx((found.score * (1 - found.score) / 12) ** 0.5, rel=0.08)


def test_groups_of_clips_are_resampled_whole():
    given = subject("wake-word", data="sounds", keyword="high")
    labels = given.compared.labels
    random = np.random.default_rng(0)
    outputs = np.stack([np.zeros(24), labels + random.normal(size=24)], axis=1)
    groups = np.repeat(np.arange(6), 4)
    expected = []
    for drawn in random.integers(0, 6, (1000, 6)):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        if labels[rows].any():
            expected.append(average_precision_score(labels[rows], outputs[rows, 1]))
    found = candidates._on_resamples(grouped(given, groups), outputs)
    assert found.std() == pytest.approx(np.std(expected), rel=0.1)
    assert found.mean() == pytest.approx(np.mean(expected), abs=0.02)
    # A resample without a keyword has no score.
    only = np.where(labels > 0, 0, 1 + np.arange(24) % 3)
    assert (candidates._on_resamples(grouped(given, only), outputs) > 0).all()


def test_one_text_does_not_tell_how_sure_a_difference_is():
    one, several = (subject("text-generation", data={"source": source, "block_size": 32})
                    for source in ("corpus", "several"))
    assert (len(one.compared), len(several.compared)) == (1, 20)
    best, other = sorted((examine(one, name) for name in ("gpt2", "llama")), key=lambda found: -found.merit)
    assert np.isnan([best.standard_error, other.behind(best)[1], best.behind(best)[1]]).all()
    assert other.behind(best)[0] > 0
    assert other.within_error(best)
    assert 0 < examine(several, "gpt2").standard_error < 1


def test_options_without_effect_in_a_strategy_are_not_applied_there():
    given = subject("text-classification", data="two", **{
        "model": {"name": "x", "sigmoid": True}, "train": {"gradient_checkpointing": True, "learning_rate": 0.01}})
    before = None
    for strategy, sigmoid, checkpointing, rate in (
            ("linear_probe", False, False, None), ("full", True, True, 0.01), ("head", True, False, 0.01),
            ("lp_ft", False, True, 0.01), ("lora", True, True, 0.01)):
        before = load(given, "bert", strategy, before)
        config = before.config
        assert (config.model.sigmoid, config.train.gradient_checkpointing) == (sigmoid, checkpointing)
        assert config.train.learning_rate == rate
        assert before.checkpoint.model.num_labels == (1 if sigmoid else 2)
    assert examine(given, "bert").measure == "accuracy"


def test_an_unlike_checkpoint_cannot_serve():
    with pytest.raises(CheckpointError, match="of type 'whisper'"):
        examine(subject("text-classification", data="texts"), "whisper")
