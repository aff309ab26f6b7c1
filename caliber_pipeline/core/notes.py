"""Notes as texts: what makes two the same, and what of a note tells its theme."""

import re
from collections.abc import Sequence
from typing import Final

STAND_IN: Final = "someone"

_SENTENCE_END: Final = re.compile(r"(?<=[.?!:;\n])\s+")
_NAME: Final = re.compile(r"(?<![\w'\u2019-])[A-Z][a-z\u00df-\u00ff]+(?:[\u2019'-](?:[A-Z][a-z]+|s\b))*(?![\w@])")
_WORD: Final = re.compile(r"[^\W\d_]+")
_ENGLISH_TEXT: Final = "the of and is to it that for with this not are does why what who how when from has by was"
_ENGLISH: Final = frozenset(_ENGLISH_TEXT.split())
_MIN_ENGLISH: Final = 0.08  # share of such words; other languages reach it rarely, and German capitalises its nouns
_MAX_CAPITALISED: Final = 0.5  # above it, capitals are a habit of the writer
_NO_NAMES_TEXT: Final = """
i i'm i've i'd i'll monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays
fridays saturdays sundays january february march april may june july august september october november december
english spanish french german italian portuguese dutch polish russian ukrainian turkish arabic hebrew hindi urdu
bengali chinese mandarin cantonese japanese korean vietnamese thai greek swedish danish norwegian finnish latin
"""
_NO_NAMES: Final = frozenset(_NO_NAMES_TEXT.split())


def normalise_note(text: str) -> str:
    """What makes two notes identical: their words, whatever the case, spacing and closing punctuation."""
    return " ".join(text.casefold().split()).strip(" .!?;,\"'")


def mask_names(text: str) -> str:
    """The note with names of people, places and things replaced by a stand-in.

    A note says what is wrong, and about whom; its theme is the former. Embeddings weigh names heavily, so that notes
    on one record would be found alike whatever they complain about. Only English notes are changed, where capitals
    inside a sentence mark names; days, months and languages, which have capitals too, stay, and so do acronyms.
    """
    words = _WORD.findall(text)
    if not words or sum(word.lower() in _ENGLISH for word in words) < _MIN_ENGLISH * len(words):
        return text
    if sum(word[0].isupper() for word in words) > _MAX_CAPITALISED * len(words):
        return text
    sentences = _SENTENCE_END.split(text)
    return " ".join(_NAME.sub(_stand_in, sentence) for sentence in sentences)


def _stand_in(match: re.Match[str]) -> str:
    opens_sentence = not _WORD.search(match.string, 0, match.start())
    if opens_sentence or match.group().lower() in _NO_NAMES:
        return match.group()
    return STAND_IN


def theme_texts(notes: Sequence[str]) -> list[str]:
    """What to encode of each note, so that vectors tell themes rather than subjects."""
    return [mask_names(note) for note in notes]
