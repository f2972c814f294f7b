import pytest

from tlhub.yaml_files import parse, read_mapping

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
REFUSED = {
    "[" * 100_000: "more than 50 deep",
    "\n".join(" " * depth + "a:" for depth in range(3000)): "more than 50 deep",
    BOMB: "stand for more than 1000000 values",
    MERGES: "stand for more than 1000000 values",
    "a: &a [*a]": "holds itself",
    "a: !!python/object/apply:os.system [x]": "is not YAML: could not determine a constructor",
    "a: !!python/name:os.system": "is not YAML",
    "a: 2001-13-45": "month must be",
    "a: 9" + "9" * 5000: "4300 digits",
    "a: !!int ''": "index",
    "? [a]\n: b": "is not YAML",
    "a: \x1b[2J": "is not YAML",
    "a: \0": "is not YAML",
    "a: [": "is not YAML",
    "a: 1\n---\nb: 2": "is not YAML",
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_would_harm_is_refused_in_one_line(text, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are what differs)
        parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_number_of_cases():
    assert len(REFUSED) == 15


def test_plain_values_and_anchors_are_read():
    assert parse("a: &a {x: 1}\nb: {<<: *a, y: [2.5, true, null, 'z']}\nc: *a") == {
        "a": {"x": 1}, "b": {"x": 1, "y": [2.5, True, None, "z"]}, "c": {"x": 1}}
    assert parse("") is None


def test_files(tmp_path):
    path = tmp_path / "a.yaml"
    for content, words in ((b"\xff\xfe\x00", "UTF-8"), (b"- a", "by name"), (b"1: a", "by name"),
                           (b"#" * (2**24 + 1), "larger than 16 MiB")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_mapping(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_mapping(str(path)) == {"a": 1}
    path.write_bytes(b"")
    assert read_mapping(path) == {}
