"""Sounds that nobody speaks, each kind by a formula with random numbers, so that features serve more than speech."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pretraining.acoustics import RATE, generator

LONGEST = 3.0
"""Seconds."""
_Draw = np.random.Generator


def _time(draw: _Draw, shortest: float = 1.0) -> np.ndarray:
    return np.arange(int(draw.uniform(shortest, LONGEST) * RATE)) / RATE


def _noise(draw: _Draw, size: int, slope: float, low: float = 20.0, high: float = 8000.0) -> np.ndarray:
    """Return noise of standard deviation 1 whose amplitude goes with frequency to the power of -slope."""
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    gain = np.maximum(frequencies, 20.0) ** -slope * (frequencies >= low) * (frequencies <= high)
    noise = np.fft.irfft(np.fft.rfft(draw.standard_normal(size)) * gain, size)
    return noise / max(float(noise.std()), 1e-9)


def _smooth(draw: _Draw, size: int, speed: float) -> np.ndarray:
    """Return a curve from 0 to 1 that changes about `speed` times a second."""
    points = max(4, int(size / RATE * speed * 2))
    return np.interp(np.linspace(0, points - 1, size), np.arange(points), draw.random(points))


def _glide(pitch: np.ndarray) -> np.ndarray:
    """Return the phase of a tone whose pitch in Hz is given for each sample."""
    return 2 * np.pi * np.cumsum(pitch) / RATE


def _harmonics(phase: np.ndarray, slope: float, count: int = 30) -> np.ndarray:
    """Return overtones that fall with their number to the power of -slope."""
    top = max(1, min(count, int(7500 / max(1e-9, float(np.diff(phase).max(initial=1e-9)) * RATE / 2 / np.pi))))
    return np.asarray(sum(np.sin(n * phase) * n ** -slope for n in range(1, top + 1)))


def _events(draw: _Draw, size: int, times: np.ndarray, shape: Callable[[], np.ndarray]) -> np.ndarray:
    """Return short sounds that begin at given times, in seconds, louder and softer."""
    out = np.zeros(size)
    for time in times:
        start, part = int(time * RATE), shape()
        if 0 <= start < size:
            part = part[:size - start]
            out[start:start + len(part)] += part * 10 ** draw.uniform(-0.6, 0)
    return out


def _decay(draw: _Draw, seconds: float) -> np.ndarray:
    time = np.arange(int(4 * seconds * RATE)) / RATE
    return np.exp(-time / seconds) * np.minimum(1, time / draw.uniform(0.0005, 0.01))


def _poisson(draw: _Draw, rate: float, seconds: float) -> np.ndarray:
    return np.sort(draw.uniform(0, seconds, max(1, draw.poisson(rate * seconds))))


def _regular(draw: _Draw, rate: float, seconds: float) -> np.ndarray:
    times = np.arange(draw.uniform(0, 1 / rate), seconds, 1 / rate)
    return times + draw.normal(0, 0.02 / rate, len(times))


def _hiss(slope: float, low: float, high: float, changes: float, depth: float) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of noise of one colour and band, which swells."""
    def make(draw: _Draw) -> np.ndarray:
        size = len(_time(draw))
        swell = 1 - depth + depth * _smooth(draw, size, changes * draw.uniform(0.7, 1.4)) ** 2
        return _noise(draw, size, slope, low, high * draw.uniform(0.8, 1.2)) * swell
    return make


def _grains(rate: float, seconds: float, low: float, high: float, regular: bool = False,
            bed: float = 0.0) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of many short noises, over a bed of noise."""
    def make(draw: _Draw) -> np.ndarray:
        size = len(_time(draw))
        often = rate * draw.uniform(0.6, 1.7)
        times = (_regular if regular else _poisson)(draw, often, size / RATE)

        def grain() -> np.ndarray:
            envelope = _decay(draw, seconds * draw.uniform(0.5, 2))
            return envelope * _noise(draw, len(envelope), 0.3, low, high)
        sound = _events(draw, size, times, grain)
        return sound + bed * draw.uniform(0.3, 1) * float(np.abs(sound).max()) * _noise(draw, size, 0.6) * 0.3
    return make


def _strokes(rate: float, seconds: float, low: float, high: float, overtones: tuple[float, ...],
             regular: bool) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of struck things: bells, glasses, wood."""
    def make(draw: _Draw) -> np.ndarray:
        size = len(_time(draw))
        times = (_regular if regular else _poisson)(draw, rate * draw.uniform(0.7, 1.5), size / RATE)
        pitch = np.exp(draw.uniform(np.log(low), np.log(high)))

        def stroke() -> np.ndarray:
            envelope = _decay(draw, seconds * draw.uniform(0.6, 1.6))
            time = np.arange(len(envelope)) / RATE
            return np.asarray(sum(np.sin(2 * np.pi * pitch * ratio * time) * envelope ** (1 + 0.4 * place) / (place + 1)
                                  for place, ratio in enumerate(overtones) if pitch * ratio < RATE / 2))
        return _events(draw, size, times, stroke)
    return make


def _calls(low: float, high: float, seconds: float, rate: float, bend: float, roughness: float,
           slope: float) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of animals' calls: rows of gliding harmonic tones with some breath in them."""
    def make(draw: _Draw) -> np.ndarray:
        size = len(_time(draw))
        base, turn = np.exp(draw.uniform(np.log(low), np.log(high))), bend * draw.uniform(0.5, 1.5)

        def call() -> np.ndarray:
            time = np.linspace(0, 1, int(seconds * draw.uniform(0.6, 1.6) * RATE))
            near = base * draw.uniform(0.93, 1.07)
            pitch = near * 2 ** (turn * (np.sin(np.pi * time * draw.uniform(0.6, 1.1)) - 0.5))
            voice = _harmonics(_glide(pitch), slope)
            voice = voice / np.abs(voice).max() + roughness * 0.3 * _noise(draw, len(time), 0.4, 300, 6000)
            return voice * np.sin(np.pi * time) ** draw.uniform(0.3, 1)
        return _events(draw, size, _regular(draw, rate * draw.uniform(0.6, 1.6), size / RATE), call)
    return make


def _machine(low: float, high: float, slope: float, breath: float, shake: float) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of engines: overtones of a low pitch that wanders, with noise in the same rhythm."""
    def make(draw: _Draw) -> np.ndarray:
        size = len(_time(draw, 1.5))
        pitch = np.exp(draw.uniform(np.log(low), np.log(high))) * (1 + shake * (_smooth(draw, size, 1.5) - 0.5))
        phase = _glide(pitch)
        sound = _harmonics(phase, slope * draw.uniform(0.8, 1.2), 60)
        rhythm = (0.5 + 0.5 * np.sin(phase)) ** draw.uniform(1, 6)
        return sound / sound.std() + breath * rhythm * _noise(draw, size, draw.uniform(0.2, 0.8)) * 2
    return make


def _tone(low: float, high: float, glide: float, wobble: float, overtones: float) -> Callable[[_Draw], np.ndarray]:
    """Return a maker of steady or gliding tones, pure (overtones 0) or rich."""
    def make(draw: _Draw) -> np.ndarray:
        time = _time(draw, 0.4)
        pitch = np.exp(draw.uniform(np.log(low), np.log(high)))
        pitch = pitch * 2 ** (glide * draw.uniform(0.5, 1.5) * time / time[-1])
        pitch = pitch * 2 ** (wobble * draw.uniform(0.5, 1.5) * np.sin(2 * np.pi * draw.uniform(2, 7) * time))
        phase = _glide(np.minimum(pitch, 7000))
        return np.sin(phase) if not overtones else _harmonics(phase, 1 / overtones)
    return make


MAKERS: dict[str, Callable[[_Draw], np.ndarray]] = {
    "white noise": _hiss(0.0, 20, 8000, 1, 0.1),
    "pink noise": _hiss(0.5, 20, 8000, 1, 0.1),
    "brown noise": _hiss(1.0, 20, 8000, 1, 0.1),
    "high noise": _hiss(0.0, 3000, 8000, 1, 0.1),
    "low noise": _hiss(0.3, 20, 500, 1, 0.1),
    "band noise": _hiss(0.2, 700, 1800, 1, 0.1),
    "slow waves": _hiss(0.5, 20, 6000, 0.4, 0.95),
    "gusts": _hiss(0.8, 20, 1500, 1.5, 0.95),
    "fast flutter": _hiss(0.3, 100, 8000, 9, 0.95),
    "few clicks": _grains(4, 0.002, 500, 8000),
    "many clicks": _grains(25, 0.002, 500, 8000),
    "patter": _grains(150, 0.004, 1500, 8000, bed=1),
    "bubbles": _grains(12, 0.02, 200, 900),
    "crackle": _grains(12, 0.004, 800, 8000, bed=1),
    "rumble and pops": _grains(5, 0.03, 60, 1500, bed=2),
    "slow ticks": _grains(2, 0.004, 1500, 8000, regular=True),
    "fast ticks": _grains(7, 0.004, 1500, 8000, regular=True),
    "knocks": _grains(3, 0.02, 80, 700, regular=True),
    "rattle": _grains(28, 0.006, 800, 8000, regular=True),
    "chopper": _grains(12, 0.03, 30, 900, regular=True, bed=2),
    "sawing": _grains(2.2, 0.15, 700, 7000, regular=True),
    "burst": _grains(0.8, 0.15, 300, 8000),
    "puffs": _grains(2, 0.1, 100, 2500),
    "bell": _strokes(0.8, 0.6, 300, 1500, (1, 2.0, 2.4, 3.0, 4.5, 5.3), False),
    "chimes": _strokes(4, 0.25, 1200, 3000, (1, 2.76, 5.4), False),
    "wood": _strokes(5, 0.03, 300, 1200, (1, 2.57, 4.2), False),
    "plucked": _strokes(3, 0.2, 100, 500, (1, 2, 3, 4, 5, 6, 7, 8), True),
    "drops": _strokes(6, 0.02, 700, 2500, (1,), False),
    "bark": _calls(250, 700, 0.12, 2.2, 0.5, 1.0, 0.7),
    "chirp": _calls(2000, 4500, 0.07, 6, 0.5, 0.1, 2.5),
    "cry": _calls(300, 600, 0.7, 1.0, 0.5, 0.3, 0.6),
    "crow": _calls(400, 900, 0.5, 1.1, 0.8, 0.5, 0.4),
    "low call": _calls(90, 200, 0.6, 1.0, 0.3, 0.5, 0.8),
    "squeak": _calls(900, 2000, 0.2, 2.0, 0.7, 0.2, 1.0),
    "grunts": _calls(60, 140, 0.2, 2.5, 0.3, 1.2, 0.6),
    "idling engine": _machine(18, 40, 0.6, 0.6, 0.2),
    "motor": _machine(70, 180, 0.5, 0.4, 0.3),
    "fast motor": _machine(200, 450, 0.4, 0.5, 0.4),
    "hum": _machine(48, 62, 1.2, 0.1, 0.0),
    "whine": _machine(900, 2000, 1.0, 0.4, 0.3),
    "low tone": _tone(80, 300, 0, 0, 0),
    "middle tone": _tone(400, 1200, 0, 0, 0),
    "high tone": _tone(2000, 5000, 0, 0, 0),
    "buzz": _tone(80, 400, 0, 0, 2.0),
    "rising": _tone(200, 800, 2.0, 0, 0.5),
    "falling": _tone(1000, 3500, -2.0, 0, 0.5),
    "siren": _tone(500, 1100, 0, 0.5, 0.7),
    "vibrato": _tone(250, 700, 0, 0.08, 1.0),
}
"""By its name, what makes a kind of sound from random numbers."""


def artificial(name: str, number: int) -> np.ndarray:
    """Return one sound of a kind, float32, shape (t,), its largest sample 1.

    Args:
        name: A key of `MAKERS`.
        number: Which one.
    """
    sound = MAKERS[name](generator("artificial", name, number))
    return (sound / max(float(np.abs(sound).max()), 1e-9)).astype(np.float32)
