import pytest

from tlhub import errors


@pytest.mark.parametrize(("name", "code"), [("TlhubError", 1), ("UsageError", 2), ("DataError", 3),
                                            ("CheckpointError", 4), ("StoppedError", 75)])
def test_exit_codes_are_those_that_are_promised(name, code):
    assert vars(errors)[name].exit_code == code
    assert issubclass(vars(errors)[name], errors.TlhubError)


def test_nearest_names_what_is_close():
    assert errors.nearest("lorra", ["lora", "full"]) == "did you mean 'lora'?"


def test_nearest_lists_everything_where_nothing_is_close():
    assert errors.nearest("xyz", ["lora", "full"]) == "valid: full, lora"


def test_what_a_terminal_obeys_is_written_out():
    hostile = {"\x1b[2J": "\\x1b[2J", "a\x00b": "a\\x00b", "\x9b31m": "\\x9b31m", "\u202eexe.gpj": "\\u202eexe.gpj",
               "\u2066x": "\\u2066x", "\r": "\\r", "\n": "\\n", "\ud800": "\\ud800", "\U000e0041": "\\U000e0041"}
    assert {text: errors.printable(text) for text in hostile} == hostile
    assert errors.printable("Łódź 東京 \U0001f600") == "Łódź 東京 \U0001f600"
