import re
from html.parser import HTMLParser

import pytest

from tests.quickstart import FACTS, example, findings
from tlhub.quickstart.gallery import gallery
from tlhub.quickstart.page import write_page

KINDS = ("image", "audio", "text", "corpus")
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Notes what a page is made of, and that every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(tmp_path):
    return write_page(tmp_path / "index.html", [findings(kind) for kind in KINDS], FACTS).read_text(encoding="utf-8")


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_beside_it(page):
    reader = read(page)
    loaded = [value for _, name, value in reader.attributes if name in ("src", "href", "srcset", "data", "poster")]
    assert len(loaded) >= 8
    assert all(value.startswith(("data:", "#")) for value in loaded)
    assert "script" not in reader.tags
    assert not re.search(r"https?:|@import|url\(", page)
    assert not any(name.startswith("on") for _, name, _ in reader.attributes)


def test_every_task_has_its_section_scores_and_examples(page):
    reader = read(page)
    sections = [value for tag, name, value in reader.attributes if tag == "section" and name == "id"]
    assert sections == ["image-classification", "wake-word", "text-classification", "text-generation", "next"]
    links = {value[1:] for tag, name, value in reader.attributes if tag == "a" and name == "href"}
    assert links == set(sections) - {"next"}
    assert reader.tags.count("table") == reader.tags.count("svg") == 4
    assert reader.tags.count("audio") == reader.tags.count("img") == 2
    text = "".join(reader.text)
    assert "15 runs on 4 tasks in 2 min 11 s" in text
    for words in ("0.810", "+0.210", "[+0.05, +0.25]", "3.6 M", "as it is", "tlhub finetune wake-word",
                  "Some Pictures (research only)"):
        assert words in text


def test_what_comes_from_data_is_text_and_no_markup():
    hostile = '<script>alert("x")</script>&amp;<b'
    found = findings("text")
    found["exhibit"]["drawn"] = [example(hostile, text=hostile)]
    reader = read(gallery(found))
    assert "script" not in reader.tags
    assert "".join(reader.text).count(hostile) == 3
    found = findings("corpus")
    found["exhibit"]["drawn"] = [{"prompt": hostile, "before": hostile, "after": {"full": hostile}}]
    assert "".join(read(gallery(found)).text).count(hostile) == 3


def test_bars_are_as_long_as_the_scores_with_their_intervals(page):
    widths = [float(width) for width in re.findall(r'class="fill" style="width:([\d.]+)%', page)]
    assert len(widths) == 16
    assert widths[:4] == [60.0, 72.0, 81.0, 80.0]
    assert max(widths[12:]) <= 100
    whiskers = re.findall(r'class="whisker" style="left:([\d.]+)%;width:([\d.]+)%', page)
    assert len(whiskers) == 15
    assert tuple(map(float, whiskers[0])) == (55.0, 9.0)
