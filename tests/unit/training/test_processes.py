"""The accelerator of a run: what a launcher may ask for."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from tlhub.config import RunConfig
from tlhub.errors import UsageError
from tlhub.training.processes import make_accelerator

ASKED = {"FSDP": ["--use_fsdp", "--fsdp_version", "2"], "DeepSpeed": ["--use_deepspeed", "--zero_stage", "3"]}


@pytest.mark.parametrize("name", ASKED)
def test_a_launcher_that_divides_the_model_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--num_processes", "2", "--mixed_precision", "no", *ASKED[name], "recipe.py"]
    monkeypatch.setattr("accelerate.commands.launch.default_config_file", "none.yaml")
    arguments = _validate_launch_command(launch_command_parser().parse_args(words))[0]
    arguments.deepspeed_fields_from_accelerate_config = ""
    launched = prepare_deepspeed_cmd_env(arguments)[1] if name == "DeepSpeed" else prepare_multi_gpu_env(arguments)
    for variable in sorted(set(launched) - set(os.environ)):
        monkeypatch.setenv(variable, launched[variable])
    with pytest.raises(UsageError, match=f"asks for {name}, .*recipes/accelerate/ddp.yaml"):
        make_accelerator(RunConfig())


def test_a_launcher_that_copies_the_model_is_not() -> None:
    assert make_accelerator(RunConfig()).num_processes == 1


def test_a_process_that_prepares_data_for_hours_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def accelerator(**options: Any) -> Accelerator:
        given.extend(options["kwargs_handlers"])
        return Accelerator(**options)

    monkeypatch.setattr("tlhub.training.processes.Accelerator", accelerator)
    make_accelerator(RunConfig())
    (group,) = (options for options in given if isinstance(options, InitProcessGroupKwargs))
    assert group.timeout is not None
    assert group.timeout >= timedelta(hours=6)
