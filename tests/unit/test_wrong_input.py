"""Everything wrong that a new user would try, through the command line: one line, the right exit code and status."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import generated, tiny
from tests.wrong import Wrong, said, working_in
from tlhub import cli
from tlhub.errors import DiskFullError, is_disk_full
from tlhub.folder import RunFolder

TEXT = "finetune text-classification --model bert --strategy linear_probe"
IMAGE = "finetune image-classification --model vit --strategy linear_probe"
CASES = 120
ROWS = "".join(f"hello {number},{'ab'[number % 2]}\n" for number in range(40))


USAGE = [
    Wrong("finetun text-classification", 2, "finetun", "did you mean 'finetune'?"),
    Wrong("data chek text-classification --data texts", 2, "data chek", "did you mean 'data check'?"),
    Wrong("finetune text-clasification --model bert --data texts", 2, "text-clasification", "text-classification"),
    Wrong("finetune --model bert --data texts", 2, "no task", "text-classification"),
    Wrong("finetune text-classification --data texts", 2, "no model", "--model NAME"),
    Wrong("finetune text-classification --model bert", 2, "no data", "--data SOURCE"),
    Wrong(f"{TEXT} --data texts --epoch 2", 2, "--epoch", "did you mean '--epochs'?"),
    Wrong(f"{TEXT} --data texts --rank 2", 2, "--rank", "did you mean '--strategy.rank'?"),
    Wrong(f"{TEXT} --data texts --data.label_colum x", 2, "--data.label_colum", "'--data.label_column'"),
    Wrong("finetune text-classification --model bert --data texts --strategy lorra", 2, "lorra", "'lora'"),
    Wrong("finetune text-classification --model bert --data texts --strategy full --strategy.rank 4", 2,
          "'strategy.rank' (given: 4)", "has no effect with strategy 'full'"),
    Wrong(f"{TEXT} --data texts --epochs 4", 2, "'train.epochs' (given: 4.0)", "'linear_probe'"),
    Wrong(f"{TEXT} --data texts --data.flip true", 2, "'data.flip' (given: True)", "image-classification"),
    Wrong("finetune text-classification --model bert --data texts --strategy lora --strategy.method ia3 "
          "--strategy.rank 4", 2, "'strategy.rank' (given: 4)", "'ia3'"),
    Wrong(f"{TEXT} --data texts --keyword x", 2, "task_options.keyword", "text-classification"),
    Wrong(f"{TEXT} --data texts --seed x", 2, "'x'", "a whole number"),
    Wrong(f"{TEXT} --data texts --seed", 2, "--seed", "expected one argument"),
    Wrong(f"{TEXT} --data texts extra", 2, "extra", "--help"),
    Wrong(f"{TEXT} --data texts --data.max_train_examples 2.5", 2, "'2.5'", "a whole number"),
    Wrong(f"{TEXT} --data texts --data.max_train_examples -1", 2, "-1", "at least 1"),
    Wrong(f"{TEXT} --data texts --strategy.features nativ", 2, "'nativ'", "did you mean 'native'?"),
    Wrong("finetune text-classification --model bert --data texts --learning_rate -1", 2, "-1.0", "more than 0"),
    Wrong("finetune text-classification --model bert --data texts --train.compile maybe", 2, "'maybe'", "true or"),
    Wrong("finetune text-classification --model bert --data texts --train.optimizer adams", 2, "'adams'", "'adamw'"),
    Wrong("finetune text-classification --model bert --data texts --model.head wide", 2, "'wide'", "'1024,512'"),
    Wrong("finetune text-classification --model bert --data texts --model.head 0", 2, "'0'", "positive widths"),
    Wrong("finetune text-classification --model bert --data texts --model.head 64,0", 2, "'64,0'", "positive widths"),
    Wrong("finetune image-regression --model vit --data values --data.mixup 0.2", 2, "'data.mixup' (given: 0.2)",
          "no effect with kind of target 'regression'"),
    Wrong("finetune image-regression --model vit --data values --data.cutmix 1", 2, "'data.cutmix' (given: 1.0)",
          "no effect with kind of target 'regression'"),
    Wrong("finetune text-classification --model bert --data texts --model.pool max", 2, "'max'", "valid: "),
    Wrong("finetune text-classification --model bert --data texts --strategy last_k --strategy.k -1", 2, "-1",
          "at least 1"),
    Wrong(f"{TEXT} --data texts --data.problem_type regresion", 2, "'regresion'", "did you mean 'regression'?"),
    Wrong(f"{TEXT} --data texts --num_processes 0", 2, "0", "at least 1"),
    Wrong(f"{TEXT} --data texts --log.trackers zzz", 2, "'zzz'", "tensorboard"),
    Wrong(f"{TEXT} --data texts --log.trackers comet_ml", 2, "'comet_ml'", "is not installed"),
    Wrong("finetune text-classification --config none.yaml", 2, "'none.yaml'", "No such file"),
    Wrong("finetune text-classification --config unknown.yaml", 2, "'strategi' in unknown.yaml", "'strategy'"),
    Wrong("finetune text-classification --config nested.yaml", 2, "'strategy.rnk' in nested.yaml", "'strategy.rank'"),
    Wrong("finetune text-classification --config type.yaml", 2, "in type.yaml is 'three'", "a whole number"),
    Wrong("finetune text-classification --config broken.yaml", 2, "'broken.yaml'", "is not YAML"),
    Wrong("finetune text-classification --config empty.yaml", 2, "'empty.yaml'", "holds no options"),
    Wrong(f"{TEXT} --data texts --out a_file", 2, "'a_file'", "is a file"),
    Wrong(f"{TEXT} --data texts --out a_file/inside", 2, "'a_file/inside'", "Not a directory"),
    Wrong(f"{TEXT} --data texts --out images", 2, "'images'", "holds no tlhub run"),
    Wrong(f"{TEXT} --data texts --out text_run", 2, "'text_run'", "holds a finished run"),
    Wrong(f"{TEXT} --data texts --out unfinished --seed 3", 2, "'unfinished'", "of another configuration"),
    Wrong("evaluate text_run", 2, "no data", "--data SOURCE"),
    Wrong("evaluate text_run --data texts --data.file_column x", 2, "'data.file_column' (given: 'x')", "no effect"),
    Wrong("evaluate text_run --data texts --data.max_bad_fraction 7", 2, "7.0", "at most 1"),
    Wrong("predict text_run", 2, "input", "--help"),
    Wrong("predict text_run hello --batch_size 0", 2, "'0'", "a whole number from 1"),
    Wrong("data check text --data texts", 2, "'text'", "text-classification"),
    Wrong("data check text-classification", 2, "no data", "--data SOURCE"),
    Wrong("data check text-classification --data texts --data.flip true", 2, "'data.flip'", "no effect"),
]

RUNS = [
    Wrong(f"{TEXT} --data texts --evaluate.metrics acuracy", 2, "'acuracy'", "did you mean 'accuracy' or"),
    Wrong(f"{TEXT} --data texts --evaluate.best rmse", 2, "'rmse'", "does not apply to predicted classes"),
    Wrong(f"{TEXT} --data texts --data.cache_dir a_file", 2, "'a_file'", "--data.cache_dir"),
    Wrong(f"{TEXT} --data nowhere", 3, "'nowhere'", "check the"),
    Wrong(f"{TEXT} --data /nowhere/reviews.csv", 3, "'/nowhere/reviews.csv'", "does not exist"),
    Wrong(f"{TEXT} --data someone/reviews", 3, "'someone/reviews'", "check the"),
    Wrong(f"{TEXT} --data a_file", 3, "'a_file'", "is not a table"),
    Wrong(f"{TEXT} --data no_rows.csv", 3, "'no_rows.csv'", "no rows"),
    Wrong(f"{TEXT} --data nothing.csv", 3, "'nothing.csv'", "is empty"),
    Wrong(f"{TEXT} --data no_text.csv", 3, "no_text.csv:2", "no text"),
    Wrong(f"{TEXT} --data one_class.csv", 3, "'label'", "only the class 'a'"),
    Wrong(f"{TEXT} --data nan.csv", 3, "nan.csv:42", "no label"),
    Wrong(f"{TEXT} --data latin.csv", 3, "latin.csv", "is not UTF-8: byte 0xe9"),
    Wrong(f"{TEXT} --data no_label.csv", 3, "a, b", "--data.label_column"),
    Wrong(f"{TEXT} --data texts --data.label_column labell", 3, "'labell'", "did you mean 'label'?"),
    Wrong(f"{TEXT} --data texts --data.text_column txt", 3, "'txt'", "did you mean 'text'?"),
    Wrong(f"{TEXT} --data texts --data.group_column speaker", 3, "'speaker'", "valid: label, text"),
    Wrong(f"{TEXT} --data other_labels", 3, "'politics' is in split 'test'", "food, sport, weather"),
    Wrong(f"{TEXT} --data texts --data.max_train_examples 2", 3, "2", "3 classes"),
    Wrong(f"{TEXT} --data tall.csv", 3, "tall.csv:42", "'score' holds 'tall', which is no finite number (1 of 41 rows"),
    Wrong(f"{TEXT} --data nan_scores.csv", 3, "nan_scores.csv:43", "'score' holds 'NaN', which is no finite number"),
    Wrong(f"{TEXT} --data texts --data.problem_type regression", 3, "test.csv:2", "'label' holds 'weather'"),
    Wrong(f"{TEXT} --data flat.csv --data.problem_type regression", 3, "'score'", "is 1 in all 40 training rows"),
    Wrong(f"{TEXT} --data texts --data.problem_type multi_label_classification", 3, "'weather'",
          "--data.label_separator"),
    Wrong(f"{TEXT} --data tags.csv --data.problem_type multi_label_classification", 3, "';' and ','",
          "--data.label_separator"),
    Wrong(f"{TEXT} --data some_tags.csv", 3, "some_tags.csv:42", "where 'a;b' is several labels, say so with --data"),
    Wrong(f"{TEXT} --data tags.csv --data.label_separator +", 3, "'+'", "its first value is 'a;b'"),
    Wrong("finetune image-regression --model vit --data values --data.metadata words.csv", 3, "words.csv:3",
          "'size' holds 'big', which is no finite number"),
    Wrong("finetune image-regression --model vit --data values --data.metadata gaps.csv", 3, "gaps.csv:3",
          "'size' holds 'nan', which is no finite number"),
    Wrong("finetune text-classification --model bert --data texts --model.sigmoid true", 2, "--model.sigmoid",
          "the data have 3"),
    Wrong("finetune text-classification --model bert --data texts --strategy last_k --strategy.k 9", 2, "9",
          "take at most 2"),
    Wrong("finetune image-classification --model timm/resnett18.a1_in1k --data images", 4, "timm/resnett18.a1_in1k",
          "its nearest are resnet18"),
    Wrong("finetune image-classification --model timm_wrong --data images", 4, "resnett18", "resnet18"),
    Wrong(f"{TEXT} --data flags.csv --data.target_columns [a,b] --data.problem_type multi_label_classification", 3,
          "flags.csv:42", "'b' holds '7', which is neither 0 nor 1"),
    Wrong(f"{TEXT} --data flags.csv --data.target_columns [a,c]", 3, "'c'", "data.target_columns"),
    Wrong(f"{TEXT} --data flags.csv --data.target_columns [a,b] --data.label_column a", 2, "'a'", "leave one out"),
    Wrong(f"{TEXT} --data texts --data.text_pair_column reply", 3, "'reply'", "data.text_pair_column"),
    Wrong(f"{TEXT} --data halves.csv", 3, "'halves.csv:2'", "no second text"),
    Wrong(f"{IMAGE} --data values --data.metadata values.csv", 3, "'size'", "the task image-regression"),
    Wrong("finetune image-regression --model vit --strategy linear_probe --data images", 3, "'blue'", "metadata.csv"),
    Wrong(f"{IMAGE} --data empty_class", 3, "empty_class/train/yellow", "holds no file"),
    Wrong(f"{IMAGE} --data truncated", 3, "'train/red/cut.jpg'", "truncated"),
    Wrong(f"{IMAGE} --data texts", 3, "text, label", "--data.file_column"),
    Wrong("finetune text-classification --model vit --data texts", 4, "'vit'", "no SequenceClassification class"),
    Wrong("finetune image-classification --model bert --data images", 4, "'bert'", "no ImageClassification class"),
    Wrong("finetune text-classification --model images --data texts", 4, "'images'", "no config.json"),
    Wrong("finetune text-classification --model a_file --data texts", 4, "'a_file'", "is a file"),
    Wrong("finetune text-classification --model /no/such --data texts", 4, "'/no/such'", "no folder"),
    Wrong("finetune text-classification --model someone/bert --data texts", 4, "'someone/bert'", "the connection"),
    Wrong("finetune text-classification --model pickled --data texts", 4, "'pickled'", "only pytorch_model.bin"),
    Wrong("finetune text-classification --model damaged --data texts", 4, "'damaged'", "damaged or incomplete"),
    Wrong("finetune text-classification --model no_tokenizer --data texts", 4, "'no_tokenizer'", "no tokenizer"),
    Wrong("finetune text-classification --model bert --model.revision x --data texts", 4, "'x'", "leave it out"),
]

FINISHED = [
    Wrong("predict images hello", 4, "'images'", "nothing by tlhub"),
    Wrong("predict unfinished hello", 4, "'unfinished'", "one that is stopped"),
    Wrong("predict text_run none.txt", 3, "'none.txt'", "is no file"),
    Wrong("predict text_run latin.csv", 3, "latin.csv", "is not UTF-8"),
    Wrong("evaluate images --data texts", 4, "'images'", "nothing by tlhub"),
    Wrong("evaluate text_run --data other_labels", 3, "'politics' of split 'test'", "food, sport, weather"),
    Wrong("evaluate text_run --data texts --data.text_pair_column text", 2, "'text'", "the run reads single texts"),
    Wrong("data check image-regression --data images", 3, "'blue'", "class folders"),
    Wrong("data check text-classification --data tall.csv", 3, "tall.csv:42", "'tall'"),
    Wrong("evaluate text_run --data columns.csv", 3, "x, q, intent", "--data.text_column"),
    Wrong("data check text-classification --data nan.csv", 3, "nan.csv:42", "no label"),
    Wrong("data check image-classification --data truncated", 3, "'train/red/cut.jpg'", "truncated"),
    Wrong("predict image_run none.png", 3, "'none.png'", "no file"),
]


def write(path: str, content: str | bytes) -> None:
    """Write a file and the folders it needs."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with checkpoints and data, right ones and wrong ones, and two finished runs."""
    folder = tmp_path_factory.mktemp("place")
    with working_in(folder):
        _checkpoints()
        _data()
        for words in (f"{TEXT} --data texts --out text_run", f"{IMAGE} --data images --out image_run",
                      f"{TEXT} --data columns.csv --data.text_column q --data.label_column intent --out columns_run"):
            assert cli.main(words.split()) == 0
        shutil.copytree("text_run", "unfinished")
        RunFolder(Path("unfinished")).write_status("stopped", 75)
        yield folder


def _checkpoints() -> None:
    tiny.checkpoint(Path("bert"), "bert")
    tiny.checkpoint(Path("vit"), "vit")
    for name in ("pickled", "damaged", "no_tokenizer"):
        shutil.copytree("bert", name)
    Path("pickled/model.safetensors").rename("pickled/pytorch_model.bin")
    Path("timm_wrong").mkdir()
    shutil.copy("bert/model.safetensors", "timm_wrong")
    write("timm_wrong/config.json", json.dumps({"architecture": "resnett18", "num_classes": 3, "pretrained_cfg": {}}))
    weights = Path("damaged/model.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    for file in Path("no_tokenizer").glob("tokenizer*"):
        file.unlink()


def _data() -> None:
    generated.write_texts(Path("texts"), {"train": 30, "validation": 9, "test": 9})
    generated.write_images(Path("images"), {"train": 30, "validation": 9, "test": 9}, size=16)
    shutil.copytree("texts", "other_labels")
    with Path("other_labels/test.csv").open("a") as file:
        file.write("hello there,politics\n")
    shutil.copytree("images", "empty_class")
    Path("empty_class/train/yellow").mkdir()
    shutil.copytree("images", "truncated")
    write("truncated/train/red/cut.jpg", cut_jpeg())
    write("a_file", "x")
    write("nothing.csv", "")
    write("no_rows.csv", "text,label\n")
    write("no_text.csv", "text,label\n" + ",a\n,b\n" * 20)
    write("one_class.csv", "text,label\n" + ROWS.replace(",b", ",a"))
    write("nan.csv", f"text,label\n{ROWS}last,NaN\n")
    write("latin.csv", f"text,label\n{ROWS}".encode() + b"caf\xe9,a\n")
    write("no_label.csv", "text,a,b\nx y,1,2\nz,3,4\n")
    write("columns.csv", "x,q,intent\n" + "".join(f"z,{line}\n" for line in ROWS.splitlines()))
    scores = "text,score\n" + "".join(f"hello {number},{number / 8}\n" for number in range(40))
    write("tall.csv", f"{scores}last,tall\n")
    write("nan_scores.csv", f"{scores}one,2.5\nlast,NaN\n")
    write("flat.csv", "text,score\n" + ROWS.replace(",a", ",1").replace(",b", ",1"))
    write("tags.csv", "text,label\n" + ROWS.replace(",a", ",a;b").replace(",b", ',"a,b"'))
    write("some_tags.csv", "text,label\n" + ROWS.replace(",a", ",a;b") + "last,\n")
    write("flags.csv", "text,a,b\n" + "".join(f"hello {n},{n % 2},{n // 2 % 2}\n" for n in range(40)) + "last,1,7\n")
    write("halves.csv", "text_a,text_b,label\n" + "one,,a\ntwo,three,b\n" * 20)
    shutil.copytree("images/train", "values")
    sizes = [f"{path.relative_to('values')},{number / 8}" for number, path in enumerate(Path("values").rglob("*.png"))]
    write("values/values.csv", "file_name,size\n" + "\n".join(sizes))
    name = sizes[1].partition(",")[0]
    for file, value in (("words", "big"), ("gaps", "nan")):
        write(f"values/{file}.csv", "\n".join(["file_name,size", sizes[0], f"{name},{value}", *sizes[2:]]))
    write("unknown.yaml", "model: bert\ndata: texts\nstrategi: lora\n")
    write("nested.yaml", "model: bert\ndata: texts\nstrategy: {name: lora, rnk: 3}\n")
    write("type.yaml", "model: bert\ndata: texts\nstrategy: {name: lora, rank: three}\n")
    write("broken.yaml", "model: [bert\n")
    write("empty.yaml", "")


def cut_jpeg() -> bytes:
    """Return the first half of a picture's file."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("whole.jpg")
    content = Path("whole.jpg").read_bytes()
    return content[: len(content) // 2]


def test_the_number_of_cases() -> None:
    assert len(USAGE) + len(RUNS) + len(FINISHED) == CASES
    assert {case.code for case in (*USAGE, *RUNS, *FINISHED)} == {2, 3, 4}


@pytest.mark.parametrize("case", [*USAGE, *FINISHED], ids=lambda case: case.words)
def test_one_line_and_no_run(place: Path, case: Wrong, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted(place.glob("runs/*"))
    line = said(case.words, case.code, capsys)
    assert case.given in line
    assert case.told in line
    assert sorted(place.glob("runs/*")) == runs


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.words)
def test_one_line_and_a_status(place: Path, case: Wrong, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(f"{case.words} --out {tmp_path}/run", case.code, capsys)
    assert case.given in line
    assert case.told in line
    assert RunFolder(tmp_path / "run").status == {"state": "failed", "exit_code": case.code, "reason": line}


def test_one_bad_picture_of_many_is_set_aside(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "images", tmp_path / "many")
    (tmp_path / "many/train/red/cut.jpg").write_bytes((place / "truncated/train/red/cut.jpg").read_bytes())
    words = f"{IMAGE} --data {tmp_path}/many --data.max_bad_fraction 0.03 --out {tmp_path}/run"
    assert cli.main(words.split()) == 0
    rows = (tmp_path / "run/quarantine.csv").read_text().splitlines()
    assert len(rows) == 2
    assert rows[1].startswith("train,train/red/cut.jpg,cannot be decoded")


def test_the_columns_of_the_run_hold_for_other_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("more.csv", "text,label,q,intent\nz,9,hello 1,b\nz,9,hello 2,a\n")
    assert cli.main(["evaluate", "columns_run", "--data", "more.csv"]) == 0
    assert "accuracy" in json.loads(capsys.readouterr().out)["metrics"]
    assert "'9'" in said("evaluate columns_run --data more.csv --data.label_column label", 3, capsys)
    assert "'intent'" in said("evaluate columns_run --data texts", 3, capsys)


def test_stopped_before_training(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tlhub.run.load_checkpoint", stop)
        assert "stopped" in said(f"{TEXT} --data texts --out {tmp_path}/run", 75, capsys)
    status = RunFolder(tmp_path / "run").status
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert cli.main(f"{TEXT} --data texts --out {tmp_path}/run".split()) == 0


def test_a_full_disk_while_results_are_written(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    text = Path.write_text

    def refuse(self: Path, *content: str, **options: str) -> int:
        if self.name.startswith((".metrics", ".status")) and (out / "model").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return text(self, *content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        line = said(f"{TEXT} --data texts --out {out}", 1, capsys)
    assert f"the disk is full, in the run's folder '{out}'" in line
    assert RunFolder(out).status == {"state": "failed", "exit_code": 1, "reason": line}
    assert cli.main(f"{TEXT} --data texts --out {out}".split()) == 0


def test_a_full_disk_while_a_checkpoint_is_written(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import SafetensorError

    from tlhub.training import checkpointing

    out = tmp_path / "run"
    words = (f"finetune text-classification --model bert --data texts --strategy full --max_steps 5 "
             f"--train.checkpoint_every 2 --out {out}")
    save = checkpointing.save_file

    def refuse(tensors: dict[str, object], path: Path) -> None:
        if "step-000000004" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "save_file", refuse)
        line = said(words, 1, capsys)
    assert f"checkpoint '{out}/checkpoints/step-000000004' could not be written (Error while serializing" in line
    assert RunFolder(out).status == {"state": "failed", "exit_code": 1, "reason": line}
    assert [path.name for path in (out / "checkpoints").glob("*step*")] == ["step-000000002"]
    assert not checkpointing.flaw(out / "checkpoints" / "step-000000002")
    assert cli.main(words.split()) == 0


def test_a_disk_that_is_full_from_the_start(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(self: Path, *_: str, **__: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        line = said(f"{TEXT} --data texts --out {tmp_path}/run", 1, capsys)
    assert line.startswith(f"the disk is full (--out '{tmp_path}/run'")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_disk_is_seen_behind_other_errors() -> None:
    def wrapped() -> None:
        try:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        except OSError as error:
            raise DiskFullError("no room") from error

    with pytest.raises(DiskFullError) as caught:
        wrapped()
    assert is_disk_full(caught.value)
    assert not is_disk_full(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))


def test_debug_shows_where(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(f"{TEXT} --data texts --epoch 2 --debug".split()) == 2
    assert "Traceback" in capsys.readouterr().err
    logging.getLogger("tlhub").setLevel(logging.INFO)
