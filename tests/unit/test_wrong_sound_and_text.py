"""Everything wrong that a new user would try with sounds, wake words and generation, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import tiny
from tests.sounds import tone, write_sound
from tests.wrong import Wrong, said, working_in
from tlhub import cli
from tlhub.folder import RunFolder

SOUND = "finetune audio-classification --model wav2vec2 --strategy linear_probe"
WAKE = "finetune wake-word --model wav2vec2 --strategy linear_probe"
TEXT = "finetune text-generation --model gpt2 --strategy full --max_steps 1"
CASES = 43
ROLES = ("user", "assistant")

USAGE = [
    Wrong(f"{WAKE} --data words", 2, "no keyword", "--keyword NAME"),
    Wrong(f"{SOUND} --data words --keyword computer", 2, "'task_options.keyword'", "'audio-classification'"),
    Wrong(f"{WAKE} --data words --keyword computer --task_options.prompts x", 2, "'task_options.prompts'", "wake-word"),
    Wrong(f"{WAKE} --data words --keyword computer --task_options.false_accept_rate 2", 2,
          "'task_options.false_accept_rate' is 2.0", "less than 1"),
    Wrong(f"{WAKE} --data words --keyword computer --task_options.false_acept_rate 0.1", 2,
          "--task_options.false_acept_rate", "did you mean '--task_options.false_accept_rate'"),
    Wrong(f"{WAKE} --data words --keyword computer --data.problem_type regression", 2, "'data.problem_type'",
          "has no effect with task 'wake-word'"),
    Wrong(f"{SOUND} --data words --data.max_seconds 0", 2, "'data.max_seconds' is 0.0", "at least 0.1"),
    Wrong(f"{SOUND} --data words --data.shift 0.1", 2, "'data.shift'", "has no effect with strategy 'linear_probe'"),
    Wrong("finetune audio-classification --model wav2vec2 --data words --strategy full --data.time_mask_share 0.2", 2,
          "'data.time_mask_share'", "has no effect with data.time_masks 0"),
    Wrong(f"{SOUND} --data words --data.flip true", 2, "'data.flip'", "has no effect with task 'audio-classification'"),
    Wrong("finetune text-generation --model gpt2 --data corpus --strategy linear_probe", 2, "'linear_probe'",
          "keeps the checkpoint's own last layer; take one of: full"),
    Wrong("finetune text-generation --model gpt2 --data corpus --strategy head", 2, "'head'", "own last layer"),
    Wrong("finetune text-generation --model gpt2 --data corpus --strategy lp_ft", 2, "'lp_ft'", "own last layer"),
    Wrong(f"{TEXT} --data corpus --model.head 20", 2, "'model.head'", "has no effect with task 'text-generation'"),
    Wrong(f"{TEXT} --data corpus --data.label_column x", 2, "'data.label_column'", "'text-generation'"),
    Wrong(f"{TEXT} --data corpus --data.block_size 1", 2, "'data.block_size' is 1", "at least 2"),
    Wrong(f"{TEXT} --data corpus --train.class_weights balanced", 2, "'train.class_weights'", "'text-generation'"),
    Wrong("predict sound_run nothere.wav", 3, "'nothere.wav'", "no file and no folder"),
    Wrong("predict sound_run empty", 3, "'empty'", "holds no sounds"),
    Wrong("predict sound_run renamed.wav", 3, "renamed.wav", "cannot be decoded"),
    Wrong("predict sound_run words/test/alexa/0.wav --max_new_tokens 5", 2, "max_new_tokens", "audio-classification"),
    Wrong("predict text_run Once --max_new_tokens 0", 2, "max_new_tokens", "at least 1"),
    Wrong("predict text_run Once --num_return_sequences 3 --do_sample false", 2, "num_return_sequences"),
]

RUNS = [
    Wrong(f"{WAKE} --data words --keyword computr", 3, "'computr'", "did you mean 'computer'"),
    Wrong(f"{WAKE} --data words --keyword computer,alexa", 3, "'alexa', 'computer'", "no other class"),
    Wrong(f"{SOUND} --data zero --data.max_bad_fraction 0", 3, "alexa/0.wav", "holds no sound (0 samples)"),
    Wrong(f"{SOUND} --data renamed --data.max_bad_fraction 0", 3, "alexa/1.wav", "cannot be decoded"),
    Wrong(f"{SOUND} --data huge --data.max_bad_fraction 0", 3, "alexa/2.wav", "is 9375 s long, the limit is 600 s"),
    Wrong(f"{SOUND} --data corpus", 3, "corpus'", "holds no audio data"),
    Wrong(f"{SOUND} --data words/train/alexa/0.wav", 3, "'words/train/alexa/0.wav'", "is not a table"),
    Wrong("finetune audio-classification --model gpt2 --data words --strategy full", 4, "'gpt2'",
          "has no AudioClassification class"),
    Wrong(f"{SOUND} --data words --strategy.features native", 4, "'native'", "whose features are: mean"),
    Wrong("finetune audio-classification --model deaf --data words --strategy full", 4, "'deaf'", "AutoFeatureExtract"),
    Wrong(f"{TEXT} --data nothing", 3, "'train.txt'", "no text"),
    Wrong(f"{TEXT} --data words", 3, "words'", "holds no corpus data"),
    Wrong(f"{TEXT} --data misspelt.jsonl", 3, "misspelt.jsonl:1: message 1 has the role 'usr'", "did you mean 'user'"),
    Wrong(f"{TEXT} --data chat.jsonl", 3, "gpt2'", "no chat template"),
    Wrong(f"{TEXT} --data unanswered.jsonl", 3, "unanswered.jsonl:1", "assistant"),
    Wrong(f"{TEXT} --data binary.txt", 3, "binary.txt", "UTF-8"),
    Wrong(f"{TEXT} --data corpus --data.text_column tex", 3, "'tex'", "did you mean 'text'"),
    Wrong(f"{TEXT} --data corpus --data.block_size 4000", 2, "4000", "more than the 70 tokens"),
    Wrong("finetune text-generation --model bert --data corpus --strategy full", 4, "'bert'", "is an encoder"),
    Wrong("finetune text-generation --model wav2vec2 --data corpus --strategy full", 4, "'wav2vec2'",
          "has no CausalLM class"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with checkpoints and data, right ones and wrong ones, and two finished runs."""
    folder = tmp_path_factory.mktemp("place")
    with working_in(folder):
        for kind in ("wav2vec2", "gpt2", "bert"):
            tiny.checkpoint(Path(kind), kind)
        shutil.copytree("wav2vec2", "deaf")
        for name in ("preprocessor_config.json", "processor_config.json"):
            Path("deaf", name).unlink(missing_ok=True)
        write_sounds()
        write_corpora()
        for words in (f"{SOUND} --data words --out sound_run", f"{TEXT} --data corpus --out text_run"):
            assert cli.main(f"{words} --evaluate.resamples 2".split()) == 0
        yield folder


def write_sounds() -> None:
    """Write class folders of tones, and copies with one clip that cannot be used."""
    for split, count in (("train", 12), ("validation", 3), ("test", 3)):
        for label, pitch in (("computer", 300), ("alexa", 900)):
            for number in range(count):
                write_sound(Path("words", split, label, f"{number}.wav"), tone(pitch + 10 * number + len(split), 0.12))
    for name in ("zero", "renamed", "huge"):
        shutil.copytree("words", name)
    soundfile.write("zero/train/alexa/0.wav", np.zeros(0, np.float32), 16000)
    Path("renamed/train/alexa/1.wav").write_text("not a sound\n" * 50)
    Path("renamed.wav").write_text("not a sound\n" * 50)
    Path("empty").mkdir()
    silence_of_hours(Path("huge/train/alexa/2.wav"), seconds=9375)


def silence_of_hours(path: Path, seconds: int) -> None:
    """Write a WAV file of silence (300 MB at 9375 s), of which the disk keeps the header alone."""
    soundfile.write(path, np.zeros(0, np.int16), 16000, subtype="PCM_16")
    header, size = bytearray(path.read_bytes()), 2 * 16000 * seconds
    place = header.index(b"data") + 4
    header[place:place + 4] = size.to_bytes(4, "little")
    header[4:8] = (len(header) - 8 + size).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)


def write_corpora() -> None:
    """Write texts, and records with each kind of mistake."""
    lines = [f"Line {number} of a small play about rain and sun.\n" for number in range(60)]
    Path("corpus").mkdir()
    for split, part in (("train", lines[:40]), ("validation", lines[40:50]), ("test", lines[50:])):
        Path("corpus", f"{split}.txt").write_text("".join(part))
    Path("nothing").mkdir()
    Path("nothing/train.txt").write_text(" \n")
    Path("binary.txt").write_bytes(bytes(range(128, 256)) * 8)
    for name, roles in (("misspelt", ("usr", "assistant")), ("chat", ROLES), ("unanswered", ("user", "user"))):
        records = [{"messages": [{"role": role, "content": f"{role} {number}"} for role in roles]}
                   for number in range(24)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_number_of_cases() -> None:
    assert len(USAGE) + len(RUNS) == CASES
    assert {case.code for case in (*USAGE, *RUNS)} == {2, 3, 4}


@pytest.mark.parametrize("case", USAGE, ids=lambda case: case.words)
def test_one_line_and_no_run(place: Path, case: Wrong, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(case.words, case.code, capsys)
    assert case.given in line
    assert case.told in line
    assert not list(place.glob("runs/*"))


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.words)
def test_one_line_and_a_status(place: Path, case: Wrong, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(f"{case.words} --out {tmp_path}/run", case.code, capsys)
    assert case.given in line
    assert case.told in line
    assert RunFolder(tmp_path / "run").status == {"state": "failed", "exit_code": case.code, "reason": line}


def test_data_check_tells_what_cannot_be_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for name, words in (("zero", "holds no sound"), ("renamed", "cannot be decoded"), ("huge", "is 9375 s long")):
        line = said(f"data check audio-classification --data {name} --data.max_bad_fraction 0", 3, capsys)
        assert words in line
        assert cli.main(f"data check audio-classification --data {name} --data.max_bad_fraction 0.1".split()) == 0
        assert words in capsys.readouterr().out
        seen += 1
    assert seen == 3
