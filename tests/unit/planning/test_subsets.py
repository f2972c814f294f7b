import numpy as np

from tlhub.data.prepare import Examples
from tlhub.planning.subsets import excerpts, some, strata, subset


def examples(inputs, labels=None, groups=None):
    labels = np.zeros(len(inputs), np.int64) if labels is None else labels
    return Examples(inputs, labels, [f"row {number}" for number in range(len(inputs))], groups)


def test_a_subset_holds_the_classes_in_their_proportions():
    labels = np.repeat([0, 1, 2], [80, 19, 1])
    given = examples([str(number) for number in range(100)], labels, np.arange(100))
    found = subset(given, 20, seed=0, purpose="test")
    assert np.bincount(found.labels).tolist() == [15, 4, 1]
    rows = [int(text) for text in found.inputs]
    assert found.ids == [f"row {row}" for row in rows]
    assert found.groups.tolist() == rows
    assert labels[rows].tolist() == found.labels.tolist()
    assert [subset(given, 20, seed=seed, purpose="test").inputs == found.inputs for seed in (0, 1)] == [True, False]
    assert len(subset(given, 2, seed=0, purpose="test")) == 3  # one of each class at least
    assert subset(given, 100, seed=0, purpose="test") is given


def test_values_and_several_labels_have_strata_of_their_own():
    values = np.random.default_rng(0).normal(size=(200, 1)) ** 3
    drawn = values[some(values, 40, seed=0, purpose="test"), 0]
    assert len(drawn) == 40
    edges = np.quantile(values, np.linspace(0, 1, 11)[1:-1])
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=10)
    assert counts.min() >= 3
    assert counts.max() <= 5
    several = np.array([[True, False], [True, True], [False, False], [True, False]])
    assert strata(several).tolist() == [0, 1, 2, 0]


def test_excerpts_are_short_texts_whole_and_stretches_of_long_ones():
    short = [f"text {number} of a few words" for number in range(30)]
    found = excerpts(examples(short), 200, seed=0, purpose="test")
    assert set(found.inputs) <= set(short)
    assert 200 <= sum(map(len, found.inputs)) < 230
    assert found.ids == [f"row {short.index(text)}" for text in found.inputs]
    book = " ".join(f"word{number}" for number in range(20_000))
    found = excerpts(examples([book, "a poem"]), 12_000, seed=0, purpose="test")
    assert all(text in book or text == "a poem" for text in found.inputs)
    assert len(set(found.inputs)) == len(found) >= 3
    assert max(map(len, found.inputs)) == 4000
    words = set(book.split())
    assert all(text.split()[0] in words for text in found.inputs if text != "a poem")
    assert [excerpts(examples([book]), 12_000, seed=seed, purpose="test").inputs == excerpts(
        examples([book]), 12_000, seed=0, purpose="test").inputs for seed in (0, 1)] == [True, False]


def test_prompts_and_conversations_are_taken_whole():
    pairs = [("a question of some length", "an answer")] * 20
    assert excerpts(examples(pairs), 100, seed=0, purpose="test").inputs == pairs[:3]
    talks = [[{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "good day"}]] * 20
    assert excerpts(examples(talks), 100, seed=0, purpose="test").inputs == talks[:4]
