import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests import tiny
from tests.generated import write_sounds, write_texts
from tests.wrong import working_in
from tlhub import options
from tlhub.data.prepare import prepare
from tlhub.errors import CheckpointError
from tlhub.models.probes import ridge_loo
from tlhub.planning import candidates
from tlhub.planning.candidates import Subject, examine
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
    with working_in(folder):
        yield folder


def subject(task, **choices):
    config = options.from_kwargs(task, model="x", **choices)
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


def test_an_unlike_checkpoint_cannot_serve():
    with pytest.raises(CheckpointError, match="of type 'whisper'"):
        examine(subject("text-classification", data="texts"), "whisper")
