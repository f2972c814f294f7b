from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.sounds import sound, tone
from tlhub.data.sound import MAX_SECONDS, SoundFacts, describe_sounds, look, open_sound, sound_seconds
from tlhub.errors import DataError

FORMATS = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"),
           ("WAV", "DOUBLE"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
           ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "ULAW")]
LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_III", "ULAW", "PCM_U8")


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_every_format_is_decoded_to_the_same_samples(kind, subtype):
    rates = (16000, 48000) if subtype == "OPUS" else (8000, 16000, 44100)
    for rate in rates:
        samples = tone(rate=rate)
        found, at = open_sound(sound(samples, rate, kind, subtype))
        assert at == rate
        assert found.dtype == np.float32
        assert found.shape == samples.shape
        # What an encoder does to the first and last milliseconds is its own affair.
        inner = slice(len(samples) // 4, -len(samples) // 4)
        assert np.abs(found - samples)[inner].max() < (0.1 if subtype in LOSSY else 1e-4)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_header_that_leads_before_the_content_raises_nothing_within_the_library():
    content = bytearray(sound(tone(), kind="AIFF"))
    refused = 0
    for place in range(4, 60):
        changed = content[:place] + b"\xff\xff\xff\xf0" + content[place + 4:]
        try:
            open_sound(bytes(changed))
        except DataError:
            refused += 1
    assert refused > 10


def test_channels_are_averaged():
    left, right = tone(300), tone(700)
    found, _ = open_sound(sound(np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-7)


def test_path_and_content_are_alike(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(sound(tone()))
    assert np.array_equal(open_sound(path)[0], open_sound(path.read_bytes())[0])
    assert sound_seconds(path) == sound_seconds(path.read_bytes()) == pytest.approx(0.3)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty (0 bytes)"),
    (sound(np.zeros(0, np.float32)), "holds no sound (0 samples)"),
    (b"just some words, renamed\n" * 40, "cannot be decoded (Format not recognised)"),
    (sound(tone())[:30], "cannot be decoded ("),
    (sound(np.array([0.1, np.nan, 0.2], np.float32), subtype="FLOAT"), "holds samples that are not numbers"),
    (sound(np.full(20, 1e30, np.float32), subtype="FLOAT"), "holds samples as large as 1e+30, full scale is 1"),
    (sound(tone(), rate=655350), "has 655350 samples a second, the limit is 192000"),
    (sound(np.zeros(int(MAX_SECONDS) * 100 + 100, np.float32), rate=100), "is 601 s long, the limit is 600 s in all"),
    (sound(np.zeros((30100, 2), np.float32), rate=100), "is 301 s long in 2 channels, the limit is 600 s")],
    # Not the content: libsndfile writes the time into it, and every worker has to find the same tests.
    ids=lambda value: value if isinstance(value, str) else "content")
def test_what_cannot_be_used_is_refused_with_its_reason(tmp_path, content, words):
    path = tmp_path / "some.wav"
    path.write_bytes(content)
    for source, name in ((content, "sound "), (path, f"sound '{path}' ")):
        with pytest.raises(DataError) as caught:
            open_sound(source)
        assert str(caught.value).startswith(name)
        assert words in str(caught.value)
        assert "; " in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        open_sound(tmp_path / "none.wav")
    with pytest.raises(DataError, match="cannot be read"):
        sound_seconds(tmp_path / "none.wav")


def test_silent_and_clipped_sounds_are_seen():
    loud = np.clip(3 * tone(50), -1, 1)
    assert look(sound(tone())) == SoundFacts(0.3, 16000, silent=False, clipped=False)
    assert look(sound(np.zeros(800, np.float32))) == SoundFacts(0.05, 16000, silent=True, clipped=False)
    assert look(sound(loud)).clipped
    touching = tone() * 0.5
    touching[100] = 1.0
    assert not look(sound(touching)).clipped


def test_what_is_told_of_sounds():
    plain = dataclasses.asdict(SoundFacts(1.0, 16000, silent=False, clipped=False))
    facts = {"a": plain, "b": plain | {"seconds": 0.05, "rate": 8000}, "c": plain | {"seconds": 31.0, "silent": True},
             "d": plain | {"clipped": True, "silent": True}}
    assert describe_sounds(facts) == [
        "sounds last 0.05 to 31.00 s, median 1.00 s, 0.6 minutes in all, sampled at 16000 Hz (3), 8000 Hz (1)",
        "1 of 4 sounds are shorter than 0.1 s, the first is b",
        "1 of 4 sounds are longer than 30 s, which is more than most checkpoints read, the first is c",
        "2 of 4 sounds are silent, no sample being above -60 dB, the first is c",
        "1 of 4 sounds are clipped, samples in a row being at full scale, the first is d"]
    assert describe_sounds({}) == []
