r"""Make the data sets that tlhub brings along: `builtin/digits`, `builtin/messages`, `builtin/wake_word`.

    python recipes/pretraining/make_data.py --out data

The result is the same to the byte with the same versions of the libraries (`constraints.txt`) and, for the wake word,
of espeak-ng and opusenc (Debian packages `espeak-ng` and `opus-tools`), which the README beside the data names. `--only
digits,messages` needs neither of the two. `builtin/python_reference` is not made here: every Python has its text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from making import digits, messages, wake_word

MAKERS: dict[str, Callable[[Path], None]] = {
    "digits": digits.make,
    "messages": messages.make,
    "wake_word": wake_word.make,
}


def main() -> None:
    """Make the sets that are asked for, each in a folder of its own, and print how large each is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to put them in")
    parser.add_argument("--only", default=",".join(MAKERS), help=f"some of {', '.join(MAKERS)}; all by default")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = sorted(set(names) - set(MAKERS))
    if unknown:
        parser.error(f"--only {arguments.only!r}: there is no {', '.join(unknown)}; choose from {', '.join(MAKERS)}")
    for name in names:
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        MAKERS[name](folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        print(f"{name}: {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")


if __name__ == "__main__":
    main()
