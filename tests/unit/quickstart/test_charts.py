import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from tests.quickstart import row
from tlhub.quickstart.charts import learning_curves

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(rows):
    text = learning_curves(rows, "a <title>").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(text)


def points(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_every_strategy_has_a_line_and_a_name():
    picture = drawn([row("scratch", 0.5), row("linear_probe", 0.7), row("full", 0.9)])
    lines = picture.findall(f"{SPACE}polyline")
    assert [line.get("class") for line in lines] == ["curve s-scratch", "curve s-linear_probe dashed", "curve s-full"]
    names = {text.text for text in picture.findall(f"{SPACE}text") if "end" in text.get("class")}
    assert names == {"scratch", "linear probe", "full"}
    assert picture.get("aria-label") == "a <title>"


def test_higher_scores_are_higher_up_and_all_lies_inside():
    picture = drawn([row("scratch", 0.5), row("full", 0.9)])
    lower, higher = map(points, picture.findall(f"{SPACE}polyline"))
    assert all(one[0] == other[0] and one[1] > other[1] for one, other in zip(lower, higher, strict=True))
    width, height = map(float, picture.get("viewBox").split()[2:])
    assert all(0 <= x <= width and 0 <= y <= height for line in (lower, higher) for x, y in line)


@pytest.mark.parametrize("scores", [(0.5, 0.5, 0.5, 0.5), (0.0, 0.001, 0.002, 0.003), (1.0, 0.99, 0.2, 0.0)])
def test_names_do_not_overlap(scores):
    picture = drawn([row(name, score, curve=[[1, score]]) for name, score in zip("abcd", scores, strict=True)])
    heights = sorted(float(text.get("y")) for text in picture.findall(f"{SPACE}text") if "end" in text.get("class"))
    assert len(heights) == 4
    assert all(after - before >= 14.9 for before, after in itertools.pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < float(picture.get("viewBox").split()[3])


def test_one_probe_alone_is_drawn():
    assert len(drawn([row("linear_probe", 0.7)]).findall(f"{SPACE}polyline")) == 1
