"""Synthetic speech with labels that no free recording has: intents, slots and moods.

Sentences are put together from templates and spoken by espeak-ng. The manifests' texts are those of
the official corpora (`skill.data.corpora.superb`), so that the same tasks read them. Scores on it
say how an upstream renders a formant synthesiser, not people; tables mark them.

Splits: of commands by voice; of requests by text and voice; moods are five sessions of two voices.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

from skill.data import splits
from skill.data.corpora import espeak
from skill.data.corpora.clips import Clip
from skill.data.corpora.espeak import Style
from skill.utils.hashing import stable_hash

_VOICES = tuple(
    f"{accent}+{variant}"
    for accent in ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
    for variant in ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4")
)
_ROOMS = ("kitchen", "bedroom", "washroom")
# (action, object, phrasings); {} is nothing or a room, where there is one
_COMMANDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("activate", "lights", ("turn on the lights{}", "switch the lights on{}", "lights on{}")),
    ("deactivate", "lights", ("turn off the lights{}", "switch the lights off{}", "lights off{}")),
    ("increase", "heat", ("turn up the heat{}", "make it warmer{}", "increase the temperature{}")),
    ("decrease", "heat", ("turn down the heat{}", "make it cooler{}", "less heating{}")),
    ("activate", "lamp", ("turn on the lamp", "switch on the lamp", "lamp on")),
    ("deactivate", "lamp", ("turn off the lamp", "switch off the lamp", "lamp off")),
    ("activate", "music", ("play some music", "start the music", "put the music on")),
    ("deactivate", "music", ("stop the music", "pause the music", "put the music off")),
    ("increase", "volume", ("turn the sound up", "make it louder", "I could not hear that")),
    ("decrease", "volume", ("turn the sound down", "make it quieter", "this is too loud")),
    ("bring", "newspaper", ("bring me the newspaper", "fetch the newspaper", "get the paper")),
    ("bring", "shoes", ("bring me my shoes", "fetch the shoes", "get my shoes")),
    ("bring", "socks", ("bring me my socks", "fetch the socks", "get my socks")),
    ("bring", "juice", ("bring me some juice", "fetch the juice", "get me a juice")),
    ("change language", "English", ("set the language to English", "speak English", "use English")),
    ("change language", "German", ("set the language to German", "speak German", "use German")),
    ("change language", "Korean", ("set the language to Korean", "speak Korean", "use Korean")),
)
_REQUESTS = (
    "play {track} by {artist}",
    "play something by {artist} on {service}",
    "add {track} to my {playlist} list",
    "book a table in {city} for {people}",
    "will it rain in {city} {when}",
    "find {film} in {city} {when}",
    "give {film} {rating} stars",
)
_VALUES = {
    "track": ("yellow river", "summer rain", "the long road", "silver moon", "my old friend"),
    "artist": ("maria gomez", "the river boys", "john baker", "lily stone", "the black keys"),
    "service": ("spotify", "the radio", "you tube", "my phone"),
    "playlist": ("morning", "workout", "dinner party", "road trip"),
    "city": ("london", "new york", "boston", "paris", "mexico city", "berlin"),
    "people": ("two", "four people", "six", "ten people"),
    "when": ("today", "tomorrow morning", "next week", "on sunday", "tonight"),
    "film": ("the lost island", "blue garden", "night train", "a simple man", "winter song"),
    "rating": ("one", "two", "three", "four", "five"),
}
_TRAIN_REQUESTS, _HELD_OUT_REQUESTS = 240, 40  # sentences of training, of dev and of test
_VOICES_OF_A_REQUEST = {"train": 2, "dev": 3, "test": 3}
_SENTENCES = (
    "the door is open",
    "I have seen it before",
    "we are going home",
    "you said that yesterday",
    "my brother lives here",
    "there is nothing left",
    "she is waiting for us",
    "it is time to leave",
    "they have told me everything",
    "this is what I wanted",
)
_SESSIONS = 5
# an acted mood: how fast, high, lively and loud; each utterance varies by up to `_SPREAD`
_MOODS = {
    "neu": Style(rate=175, pitch=50, range=45, volume=100),
    "hap": Style(rate=200, pitch=64, range=75, volume=110),
    "ang": Style(rate=205, pitch=45, range=65, volume=150),
    "sad": Style(rate=140, pitch=40, range=25, volume=75),
}
_SPREAD = Style(rate=25, pitch=14, range=20, volume=30)


def commands(name: str) -> Iterator[Clip]:
    """Every intent in every voice, in one of its phrasings; text `action;object;location`."""
    split = splits.by_speaker(_VOICES)
    for voice in _VOICES:
        for action, thing, phrasings in _COMMANDS:
            for room in ("none", *_ROOMS) if "{}" in phrasings[0] else ("none",):
                key = f"{name}-{voice}-{action}-{thing}-{room}".replace(" ", "-")
                where = "" if room == "none" else f" in the {room}"
                sentence = phrasings[stable_hash(key) % len(phrasings)].format(where)
                label = f"{action};{thing};{room}"
                yield Clip(key, partial(espeak.speak, sentence, voice), voice, "en", label,
                           split[voice])  # fmt: skip


def requests(name: str) -> Iterator[Clip]:
    """Sentences with slots, held-out sentences in held-out voices; text `WORD/slot …`."""
    marked = {_spoken(words): words for template in _REQUESTS for words in _filled(template)}
    groups: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for sentence in sorted(marked, key=lambda sentence: stable_hash(sentence) % 2**62):
        groups[splits.by_text(sentence)].append(sentence)
    of_voice = splits.by_speaker(_VOICES)
    for split, sentences in groups.items():
        voices = [voice for voice in _VOICES if of_voice[voice] == split]
        limit = _TRAIN_REQUESTS if split == "train" else _HELD_OUT_REQUESTS
        for number, sentence in enumerate(sentences[:limit]):
            label = " ".join(f"{word.upper()}/{slot}" for word, slot in marked[sentence])
            first = stable_hash(sentence) % len(voices)
            for step in range(_VOICES_OF_A_REQUEST[split]):
                voice = voices[(first + step) % len(voices)]
                yield Clip(f"{name}-{split}-{number:03d}-{voice}",
                           partial(espeak.speak, sentence, voice), voice, "en", label,
                           split)  # fmt: skip


def _filled(template: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """Every way to fill a template, as words with their slots (`O`: none)."""
    parts = template.split()
    choices = [_VALUES[part[1:-1]] if part[0] == "{" else (part,) for part in parts]
    for chosen in product(*choices):
        yield tuple(
            (word, part[1:-1] if part[0] == "{" else "O")
            for part, value in zip(parts, chosen, strict=True)
            for word in value.split()
        )


def _spoken(words: tuple[tuple[str, str], ...]) -> str:
    return " ".join(word for word, _ in words)


def moods(name: str) -> Iterator[Clip]:
    """Every sentence in four acted moods, two voices a session; text the mood."""
    for session in range(1, _SESSIONS + 1):
        for voice in _VOICES[session - 1 :: 8][:1] + _VOICES[session + 3 :: 8][-1:]:
            for number, sentence in enumerate(_SENTENCES):
                for mood, style in _MOODS.items():
                    key = f"{name}-{session}-{voice}-{number:02d}-{mood}"
                    varied = Style(*(
                        value + stable_hash(f"{key} {part}") % (2 * spread + 1) - spread
                        for part, value, spread in zip(Style._fields, style, _SPREAD, strict=True)
                    ))  # fmt: skip
                    yield Clip(key, partial(espeak.speak, sentence, voice, varied),
                               f"Ses0{session}-{voice}", "en", mood)  # fmt: skip


TEMPLATES: dict[str, Callable[[str], Iterator[Clip]]] = {
    "spoken_commands": commands,
    "spoken_requests": requests,
    "spoken_moods": moods,
}
