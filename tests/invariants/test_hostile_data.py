"""Hostile data, one case a line: refused before it is decoded, in one line, with nothing written and nothing run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests import generated, hostile, tiny
from tests.data_files import png, write
from tests.hostile import ANSI, BIDI, CODE, PICKLE, Case, clip, linked, naming, picture, rows, table
from tests.sounds import sound, tone

PICTURES = "data check image-classification --data.max_bad_fraction 0 --data {}"
SOUNDS = "data check audio-classification --data.max_bad_fraction 0 --data {}"
TEXTS = "data check text-classification --data {}"
CORPUS = "data check text-generation --data {}"
CASES_OF_DATA = 150


def parquet(**changes: object) -> bytes:
    stream = pa.BufferOutputStream()
    values = {"text": [f"text {number}" for number in range(40)], "label": ["a", "b"] * 20, **changes}
    pyarrow.parquet.write_table(pa.table(values), stream)
    return stream.getvalue().to_pybytes()


def rows_without_end(folder: Path) -> None:
    """Write a table of which a few hundred bytes stand for millions of rows."""
    pyarrow.parquet.write_table(pa.table({"text": pa.nulls(10**7)}), folder / "train.parquet", row_group_size=10**7)


def saved(folder: Path, **changes: object) -> None:
    made = datasets.Dataset.from_dict({"text": [f"text {number}" for number in range(40)], "label": ["a", "b"] * 20})
    made.save_to_disk(str(folder))
    state = json.loads((folder / "state.json").read_text())
    write(folder / "state.json", json.dumps({**state, **changes}))


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


def names_of_files(name: str) -> hostile.Make:
    return lambda folder: hostile.pictures(folder, png(99), name)


def labelled(name: str) -> hostile.Make:
    def make(folder: Path) -> None:
        hostile.pictures(folder)
        for number in range(6):
            write(folder / name / f"{number}.png", png(200 + number))

    return make


def texts_in_classes(folder: Path) -> None:
    for number in range(24):
        write(folder / "ab"[number % 2] / f"{number}.txt", f"text number {number}")


def chat(*messages: object) -> hostile.Make:
    lines = [json.dumps({"messages": [{"role": "user", "content": f"q {number}"},
                                      {"role": "assistant", "content": f"a {number}"}]}) for number in range(20)]
    return table("\n".join([*lines, json.dumps({"messages": list(messages)})]), "chat.jsonl")


def lines(*records: str) -> hostile.Make:
    good = [json.dumps({"text": f"text {number}", "label": "ab"[number % 2]}) for number in range(40)]
    return table("\n".join([*good, *records]), "train.jsonl")


BOMBS = [
    Case("png-60000", PICTURES, 3, "too many pixels", picture(hostile.png_of(60000, 60000))),
    Case("png-10000", PICTURES, 3, "10000 x 10000 pixels, the limit is", picture(hostile.png_of(10000, 10000))),
    Case("png-texts", PICTURES, 3, "cannot be decoded", picture(hostile.text_bomb)),
    Case("png-profile", PICTURES, 3, "cannot be decoded", picture(hostile.profile_bomb)),
    Case("png-16-bits", PICTURES, 3, "pixels", picture(hostile.png_of(12000, 12000, depth=16))),
    Case("tiff", PICTURES, 3, "too many pixels", picture(hostile.tiff_of(2**20, 2**20), "bad.tif")),
    Case("tiff-of-strips", PICTURES, 3, "pixels", picture(hostile.tiff_of(13000, 13000), "bad.tif")),
    Case("webp", PICTURES, 3, "bad.webp", picture(hostile.webp_of(16383, 16383), "bad.webp")),
    Case("gif", PICTURES, 3, "too many pixels", picture(hostile.with_size("GIF", "6:<HH", 65535, 65535), "bad.gif")),
    Case("bmp", PICTURES, 3, "too many pixels", picture(hostile.with_size("BMP", "18:<ii", 2**30, 2**30), "bad.bmp")),
    Case("jpeg", PICTURES, 3, "too many pixels", picture(hostile.with_size("JPEG", ":>HH", 65500, 65500), "bad.jpg")),
    Case("ppm", PICTURES, 3, "too many pixels", picture(b"P6\n99999 99999\n255\n" + b"\0" * 99, "bad.ppm")),
    Case("bmp-negative", PICTURES, 3, "bad.bmp", picture(hostile.with_size("BMP", "18:<ii", -5, -5), "bad.bmp")),
    Case("png-empty-size", PICTURES, 3, "bad.png", picture(hostile.png_of(0, 0))),
]
PRETENDERS = [
    Case("png-nothing", PICTURES, 3, "is empty", picture(b"")),
    Case("png-cut", PICTURES, 3, "bad.png", picture(png(1)[:60])),
    Case("png-text", PICTURES, 3, "no image in a known format", picture(b"just words " * 99)),
    Case("png-eps", PICTURES, 3, "no image in a known format", picture(hostile.eps)),
    Case("png-svg", PICTURES, 3, "no image", picture(b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>')),
    Case("png-html", PICTURES, 3, "no image in a known format", picture(b"<html><script>1</script></html>")),
    Case("png-pdf", PICTURES, 3, "no image in a known format", picture(b"%PDF-1.7\n1 0 obj<<>>endobj")),
    Case("png-pickle", PICTURES, 3, "no image in a known format", picture(PICKLE)),
    Case("png-zip", PICTURES, 3, "no image in a known format", picture(lambda: hostile.zip_of(Path()))),
    Case("png-psd", PICTURES, 3, "no image", picture(b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 9, 9, 8, 3))),
    Case("png-script", PICTURES, 3, "no image in a known format", picture(b"#!/bin/sh\ntouch ran\n")),
    Case("png-gif", PICTURES, 0, "classes", picture(png(77, kind="GIF"))),
    Case("png-noise", PICTURES, 3, "no image", picture(np.random.default_rng(0).bytes(5000))),
    Case("tiff-cut", PICTURES, 3, "bad.tif", picture(hostile.tiff_of(99, 99)[:150], "bad.tif")),
]
SOUND = [
    Case("wav-nothing", SOUNDS, 3, "is empty", clip(b"")),
    Case("wav-no-samples", SOUNDS, 3, "holds no sound", clip(sound(np.zeros(0, np.float32)))),
    Case("wav-lies", SOUNDS, 0, "classes", clip(hostile.wav_of(0.2, announced=2**32 - 1))),
    Case("wav-rate", SOUNDS, 3, "has 2000000000 samples a second", clip(hostile.wav_of(rate=2 * 10**9))),
    Case("wav-rate-none", SOUNDS, 3, "bad.wav", clip(hostile.wav_of(rate=0))),
    Case("wav-channels", SOUNDS, 3, "bad.wav", clip(hostile.wav_of(0.01, channels=65535))),
    Case("wav-hours", SOUNDS, 3, "s long, the limit is 600", clip(hostile.wav_of(700, rate=16000))),
    Case("wav-nan", SOUNDS, 3, "not numbers", clip(sound(np.full(999, np.nan, np.float32), subtype="FLOAT"))),
    Case("wav-loud", SOUNDS, 3, "as large as 1e+30", clip(sound(np.full(999, 1e30, np.float32), subtype="FLOAT"))),
    Case("flac-lies", SOUNDS, 3, "s long, the limit is 600 s", clip(hostile.flac_of(2**36 - 1), "bad.flac")),
    Case("flac-lies-less", SOUNDS, 3, "bad.flac", clip(hostile.flac_of(9 * 10**6), "bad.flac")),
    Case("flac-cut", SOUNDS, 3, "bad.flac", clip(sound(tone(), kind="FLAC")[:60], "bad.flac")),
    Case("wav-text", SOUNDS, 3, "cannot be decoded", clip(b"just words " * 99)),
    Case("wav-pickle", SOUNDS, 3, "cannot be decoded", clip(PICKLE)),
    Case("wav-picture", SOUNDS, 3, "cannot be decoded", clip(png(1, (99, 99)))),
    Case("mp3-noise", SOUNDS, 3, "bad.mp3", clip(b"ID3\4\0\0\x7f\x7f\x7f\x7f" + b"\xff\xfb" * 99, "bad.mp3")),
    Case("ogg-cut", SOUNDS, 3, "bad.ogg", clip(sound(tone(), kind="OGG")[:200], "bad.ogg")),
    Case("wav-odd-rate", SOUNDS, 0, "classes", clip(sound(tone(rate=44101), rate=44101))),
]
PATHS = [
    Case("path-up", PICTURES, 3, "leads out of the data folder", naming("../../../outside/secret.png")),
    Case("path-up-inside", PICTURES, 3, "leads out", naming("x/../../../../outside/secret.png")),
    Case("path-absolute", PICTURES, 3, "'/etc/passwd' leads out", naming("/etc/passwd")),
    Case("path-drive", PICTURES, 3, "leads out", naming("C:\\Windows\\win.ini")),
    Case("path-drive-slash", PICTURES, 3, "leads out", naming("C:/Windows/win.ini")),
    Case("path-server", PICTURES, 3, "leads out", naming("\\\\server\\share\\x.png")),
    Case("path-backslash", PICTURES, 3, "leads out", naming("..\\..\\x.png")),
    Case("path-http", PICTURES, 3, "is an address", naming("http://localhost/x.png")),
    Case("path-zip", PICTURES, 3, "is an address", naming("zip://x.png::http://localhost/x.zip")),
    Case("path-file", PICTURES, 3, "is an address", naming("file:///etc/passwd")),
    Case("path-file-short", PICTURES, 3, "is an address", naming("file:/etc/passwd")),
    Case("path-hub", PICTURES, 3, "is an address", naming("hf://datasets/x/y/z.png")),
    Case("path-zero", PICTURES, 3, "'a\\x00b.png' leads out", naming("a\0b.png")),
    Case("path-home", PICTURES, 3, "metadata.jsonl:13", naming("~/x.png")),
    Case("path-long", PICTURES, 3, "metadata.jsonl:13", naming("x" * 5000 + ".png")),
    Case("path-folder", PICTURES, 3, "metadata.jsonl:13", naming(".")),
    Case("path-fifo", PICTURES, 3, "is no file", naming("pipe.png", fifo)),
    Case("path-ansi", PICTURES, 3, "metadata.jsonl:13", naming(f"{ANSI}.png")),
    Case("path-link", PICTURES, 3, "leads out", naming("l.png", linked("OUT/secret.png", "l.png", lambda _: None))),
    Case("path-link-folder", PICTURES, 3, "leads out", naming("l/secret.png", linked("OUT", "l", lambda _: None))),
]
LINKS = [
    Case("link-file", PICTURES, 3, "leads out", linked("OUT/secret.png", "a/l.png")),
    Case("link-class", PICTURES, 3, "leads out", linked("OUT", "c")),
    Case("link-class-of-texts", TEXTS, 3, "leads out", linked("OUT", "c", texts_in_classes)),
    Case("link-text", TEXTS, 3, "leads out", linked("OUT/secret.txt", "a/l.txt", texts_in_classes)),
    Case("link-inner", PICTURES, 3, "leads out", linked("OUT", "a/inner")),
    Case("link-split", PICTURES, 3, "leads out",
         linked("OUT", "train", lambda folder: hostile.pictures(folder / "test"))),
    Case("link-root", PICTURES, 3, "leads out", linked("/", "a/root")),
    Case("link-around", PICTURES, 3, "leads out", linked("OUT", "all", lambda _: None)),
    Case("link-metadata", PICTURES, 3, "leads out", linked("OUT/train.csv", "metadata.csv")),
    Case("link-table", TEXTS, 3, "leads out", linked("OUT/train.csv", "train.csv", lambda _: None)),
    Case("link-data", TEXTS, 3, "leads out", linked("OUT", "data", lambda _: None)),
    Case("link-corpus", CORPUS, 3, "leads out", linked("OUT/secret.txt", "train.txt", lambda _: None)),
    Case("link-corpus-folder", CORPUS, 3, "leads out", linked("OUT", "train", lambda _: None)),
    Case("link-sounds", SOUNDS, 3, "leads out", linked("OUT/secret.png", "a/l.wav", hostile.sounds)),
    Case("link-circle", PICTURES, 0, "classes", linked("..", "a/again")),
    Case("link-itself", PICTURES, 0, "classes", linked("me", "a/me")),
    Case("link-nowhere", PICTURES, 0, "classes", linked("OUT/none.png", "a/none.png")),
    Case("link-farm", PICTURES, 0, "classes", hostile.link_farm),
    Case("deep-folders", PICTURES, 3, "folders within folders", hostile.deep_folders),
    Case("link-inside", PICTURES, 0, "classes", linked("../b/1.png", "a/again.png")),
]
ARCHIVES = [
    Case("zip", "data check image-classification --data {}/x.zip", 3, "is not a table",
         lambda folder: write(folder / "x.zip", hostile.zip_of(folder))),
    Case("tar", "data check text-classification --data {}/x.tar.gz", 3, "is not a table",
         lambda folder: write(folder / "x.tar.gz", hostile.tar_of(folder))),
    Case("zip-in-folder", PICTURES, 3, "holds no image data",
         lambda folder: write(folder / "x.zip", hostile.zip_of(folder))),
    Case("zip-in-class", PICTURES, 0, "1 files with other endings ignored",
         lambda folder: hostile.pictures(folder, hostile.zip_of(folder), "x.zip")),
    Case("tar-as-csv", TEXTS, 3, "is not UTF-8", lambda folder: write(folder / "train.csv", hostile.tar_of(folder))),
    Case("zip-as-parquet", TEXTS, 3, "as parquet",
         lambda folder: write(folder / "train.parquet", hostile.zip_of(folder))),
]
TABLES = [
    Case("csv-zero-name", TEXTS, 3, "zero byte", table("te\0xt,label\na,b\n" * 9)),
    Case("csv-long-header", TEXTS, 3, "first line", table("x" * 2**21 + "\na\n")),
    Case("csv-long-name", TEXTS, 3, "first line", table("text,label," + "x" * 200_000 + "\na,b,c\n")),
    Case("csv-utf16", TEXTS, 3, "is not UTF-8", table("text,label\na,b\n".encode("utf-16"))),
    Case("csv-latin", TEXTS, 3, "is not UTF-8: byte 0xe9", table(b"text,label\ncaf\xe9,b\n")),
    Case("csv-doubled", TEXTS, 3, "more than one column named 'text'", table("text,text,label\na,b,c\n")),
    Case("csv-quotes", TEXTS, 3, "train.csv", table('text,label\n"a,b\nc,d\n')),
    Case("csv-too-many", TEXTS, 3, "has 4 values", table("text,label\na,b\na,b,c,d\n")),
    Case("csv-header-alone", TEXTS, 3, "no rows", table("text,label\n")),
    Case("csv-pickle", TEXTS, 3, "is not UTF-8", table(PICKLE)),
    Case("csv-ansi-columns", TEXTS, 3, "x\\x1b[2J\\x1b[31mred, y", table(f"x{ANSI},y,z\n1,2,3\n")),
    Case("csv-ansi-label", TEXTS, 0, "\\x1b[2J\\x1b[31mred", table(rows(label=ANSI))),
    Case("csv-bidi-label", TEXTS, 0, "\\u202egnp.exe", table(rows(label=BIDI))),
    Case("csv-newline-label", TEXTS, 0, "a tlhub: done", table(rows(label="a\ntlhub: done"))),
    Case("csv-ansi-text", TEXTS, 0, "classes", table(rows(text=ANSI))),
    Case("csv-zero-text", TEXTS, 0, "classes", table(rows(text="a\0b"))),
    Case("csv-formula", TEXTS, 0, "=cmd", table(rows(label='=cmd|"/c calc"!A1'))),
    Case("csv-large-field", TEXTS, 0, "classes", table(rows(text="x" * 2**21))),
    Case("csv-many-columns", TEXTS, 0, "classes",
         table("text,label," + ",".join(f"c{n}" for n in range(300))
               + "".join(f"\ntext {n},{'ab'[n % 2]}" + ",1" * 300 for n in range(20)))),
    Case("jsonl-deep", TEXTS, 3, "is not JSON in line 41", lines('{"text":' + "[" * 200_000 + "]" * 200_000 + "}")),
    Case("jsonl-nested", TEXTS, 3, "more than 50 deep", lines('{"text":' + "[" * 200 + "]" * 200 + "}")),
    Case("jsonl-doubled", TEXTS, 3, "'label' is given twice", lines('{"text": "a", "label": "a", "label": "b"}')),
    Case("jsonl-large", TEXTS, 0, "classes", lines('{"text": "a", "label": "a", "number": 1' + "0" * 300 + "}")),
    Case("jsonl-digits", TEXTS, 3, "is not JSON in line 41", lines('{"text": 1' + "0" * 9999 + "}")),
    Case("jsonl-half", TEXTS, 3, "surrogate pair in line 41", lines('{"text": "\\ud800", "label": "a"}')),
    Case("jsonl-list", TEXTS, 3, "each row is an object", lines('["a", "b"]')),
    Case("jsonl-word", TEXTS, 3, "is not JSON in line 41", lines("__import__('os').system('touch ran')")),
    Case("jsonl-nan", TEXTS, 3, "train.jsonl:41", lines('{"text": "x y", "label": NaN}')),
    Case("jsonl-zero-name", TEXTS, 3, "zero byte", lines('{"te\\u0000xt": "x", "label": "a"}')),
    Case("jsonl-object", TEXTS, 0, "classes", lines('{"text": {"a": 1}, "label": "a"}')),
    Case("jsonl-pickle", TEXTS, 3, "is not UTF-8", table(PICKLE, "train.jsonl")),
    Case("parquet-noise", TEXTS, 3, "as parquet", table(b"PAR1" + b"\0" * 99 + b"PAR1", "train.parquet")),
    Case("parquet-cut", TEXTS, 3, "as parquet", table(parquet()[:-30], "train.parquet")),
    Case("parquet-flipped", TEXTS, 3, "as parquet",
         table(parquet()[:-60] + b"\xff" * 52 + parquet()[-8:], "train.parquet")),
    Case("parquet-pickle", TEXTS, 3, "as parquet", table(PICKLE, "train.parquet")),
    Case("parquet-rows", TEXTS, 3, "announces 10000000 rows", rows_without_end),
    Case("parquet-path", PICTURES, 3, "leads out", table(parquet(image=["/etc/passwd"] * 40), "train.parquet")),
    Case("saved-out", TEXTS, 3, "leads out",
         lambda folder: saved(folder, _data_files=[{"filename": "../../../outside/x.arrow"}])),
    Case("saved-absolute", TEXTS, 3, "leads out",
         lambda folder: saved(folder, _data_files=[{"filename": "/etc/passwd"}])),
    Case("saved-none", TEXTS, 3, "cannot be read", lambda folder: saved(folder, _data_files=5)),
    Case("saved-splits", TEXTS, 3, "leads out", table('{"splits": ["../../../outside"]}', "dataset_dict.json")),
    Case("saved-noise", TEXTS, 3, "cannot be read", table("{}", "dataset_dict.json")),
    Case("saved-pickle", TEXTS, 3, "is not UTF-8", table(PICKLE, "dataset_dict.json")),
    Case("script", TEXTS, 3, "is not a table", lambda folder: write(folder / "x.py", CODE), "x.py"),
    Case("fifo", TEXTS, 3, "does not exist", lambda folder: os.mkfifo(folder / "x.csv"), "x.csv"),
]
RECORDS = [
    Case("text-zero", CORPUS, 3, "zero byte", table("a\0b" * 99, "train.txt")),
    Case("text-bytes", CORPUS, 3, "is not UTF-8", table(bytes(range(256)), "train.txt")),
    Case("text-pickle", CORPUS, 3, "is not UTF-8", table(PICKLE, "train.txt")),
    Case("chat-role", CORPUS, 3, "role '\\x1b[2J", chat({"role": ANSI, "content": "x"})),
    Case("chat-number", CORPUS, 3, "chat.jsonl", chat({"role": "user", "content": 5})),
    Case("chat-word", CORPUS, 3, "chat.jsonl", chat("user")),
    Case("chat-fields", CORPUS, 3, "chat.jsonl:21", chat({"speaker": "user", "says": "x"})),
]
NAMES = [
    Case("name-ansi", PICTURES, 0, "classes", names_of_files(f"{ANSI}.png")),
    Case("name-newline", PICTURES, 0, "classes", names_of_files("a\ntlhub: fine.png")),
    Case("name-bytes", PICTURES, 3, "no UTF-8", names_of_files(os.fsdecode(b"caf\xe9.png"))),
    Case("name-bad", PICTURES, 3, "\\x1b[2J", lambda folder: hostile.pictures(folder, b"x", f"{ANSI}.png")),
    Case("class-ansi", PICTURES, 0, "\\x1b[2J\\x1b[31mred", labelled(ANSI)),
    Case("class-bidi", PICTURES, 0, "\\u202egnp.exe", labelled(BIDI)),
]
DATA = [*BOMBS, *PRETENDERS, *SOUND, *PATHS, *LINKS, *ARCHIVES, *TABLES, *RECORDS, *NAMES]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with hostile.working_beside_secrets(tmp_path_factory.mktemp("hostile")) as folder:
        yield folder


def test_the_number_of_cases() -> None:
    assert len(DATA) == len({case.name for case in DATA}) == CASES_OF_DATA


@pytest.mark.parametrize("case", DATA, ids=lambda case: case.name)
def test_hostile_data(work: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    hostile.check(work, case, capsys)


def test_what_a_spreadsheet_takes_for_a_formula_is_left_out_under_an_inert_name(work: Path) -> None:
    from tlhub import cli

    hostile.pictures(work / "formula", b"x", "bad.png")
    (work / "formula" / "a").rename(work / "formula" / "=1+1")
    tiny.checkpoint(work / "vit", "vit")
    words = "finetune image-classification --model vit --strategy linear_probe --data formula --out runs/formula"
    assert cli.main([*words.split(), "--data.max_bad_fraction", "0.2"]) == 0
    assert (work / "runs/formula/quarantine.csv").read_text().splitlines()[1].split(",")[1] == "./=1+1/bad.png"


def test_an_unpickled_case_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE).close()
    assert (tmp_path / "ran").exists()
    generated.write_texts(tmp_path / "texts", {"train": 9})
