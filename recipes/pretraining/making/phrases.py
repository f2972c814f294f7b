"""What is said in `builtin/wake_word`, and in which voices."""

from __future__ import annotations

KEYWORD = "hey tilly"

NEAR_MISSES = (
    "hey billy", "hey silly", "hey telly", "hey tiny", "hey tim", "hey tulip", "hey there", "hey hey", "hey", "tilly",
    "tilly tilly", "tilly hey", "hi dilly", "hay in the barn", "hey italy", "until he", "they tell me", "hey tea",
    "hey molly", "hey julia", "hey you", "hey wait", "day by day", "a city",
)
"""Like the keyword in sound, or a part of it, or its parts in another order."""
NEW_NEAR_MISSES = (
    "hey lily", "hey taylor", "hey tommy", "say till eight", "tilly wait", "hate chilli", "hey teddy", "a tiny",
    "hey sue", "hey man", "they will", "pretty",
)
"""The same, in the test split alone."""
OTHERS = (
    "good morning", "what time is it", "see you later", "play some music", "thank you", "close the door",
    "ten past four", "call my mother", "not today", "where are you", "next song please", "set a timer",
    "it is raining", "how are you", "stop", "maybe tomorrow", "open the window", "read the news", "I don't know",
    "over there", "lights out", "turn it off", "never mind", "one more coffee", "louder", "who was that",
    "good night", "half an hour", "my keys", "dinner is ready",
)
"""Everyday phrases."""
NEW_OTHERS = (
    "wake me at six", "where is my phone", "excuse me", "no problem", "a bit warmer", "come in", "start again",
    "two tickets", "it is late", "put it down", "what a day", "next week", "all right then", "look outside",
)
"""The same, in the test split alone."""

VOICES = {
    "train": (
        "Alex", "Alicia", "Andrea", "Andy", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Lee", "Marco",
        "Mario", "Michael", "adam", "anika", "antonio", "belinda", "benjamin", "miguel", "aunty", "edward", "edward2",
        "john", "iven", "iven2", "linda", "max", "michel", "norbert", "pablo", "robert", "steph", "steph2",
        "victor", "klatt2",
    ),
    "validation": (
        "Annie", "Mike", "caleb", "david", "marcelo", "quincy", "shelby", "travis",
    ),
    "test": (
        "Jacky", "Nguyen", "Storm", "ed", "grandma", "grandpa", "gustave", "boris", "paul", "pedro", "rob", "sandro",
        "announcer", "klatt4",
    ),
}
"""Variants of espeak-ng by split. Relatives (`steph` and `steph2`, `michel` and `miguel`) are on one side. The numbered
ones (`m1`, `f1`), which `builtin/audio` was pretrained with, are not among them."""
