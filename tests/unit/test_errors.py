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
