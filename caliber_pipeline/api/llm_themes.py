"""Themes by a language model: found in batches, merged, assigned, and held to the notes that were asked about."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from caliber_pipeline.core.errors import ReplyError
from caliber_pipeline.core.sanitizer import redact
from caliber_pipeline.core.theme_prompts import (
    SYSTEM,
    NamedTheme,
    NoteThemes,
    ThemeList,
    build_assigning_prompt,
    build_labelling_prompt,
    build_merging_prompt,
    build_naming_prompt,
)
from caliber_pipeline.judges.language_model import LanguageModel

T = TypeVar("T")


@dataclass(frozen=True)
class LLMOptions:
    """How a language model is asked about notes.

    Attributes:
        batch_size: Notes per prompt.
        max_themes: Themes that are kept after merging.
        max_concurrent: Prompts under way at once.
        max_examples: Notes shown when a cluster is to be named.
    """

    batch_size: int = 40
    max_themes: int = 20
    max_concurrent: int = 8
    max_examples: int = 15


@dataclass
class Assignments:
    """Which theme each note has, and how the replies were held to the question.

    Attributes:
        themes: The merged themes.
        theme_of: Per note's key the index of its theme; a note that has none is missing.
        n_invented: Ids in replies that were not in the question.
        n_asked_again: Notes that the first reply left out or gave a theme that was not in the list.
        failures: Batches whose replies could not be had.
    """

    themes: list[NamedTheme] = field(default_factory=list)
    theme_of: dict[str, int] = field(default_factory=dict)
    n_invented: int = 0
    n_asked_again: int = 0
    failures: list[str] = field(default_factory=list)


async def find_themes(model: LanguageModel, notes: Mapping[str, str], options: LLMOptions) -> Assignments:
    """Page through all the notes: label each batch, merge the labels, assign each note.

    Args:
        model: Who is asked.
        notes: The distinct notes by a short key; e-mail addresses, phone numbers, cards and tokens are redacted.
        options: Batch size and limits.

    Raises:
        JudgeError: the model cannot be asked at all.
    """
    run = _Run(model, {key: redact(text) for key, text in notes.items()}, options)
    await run.label()
    await run.merge()
    await run.assign()
    return run.found


async def name_theme(
    model: LanguageModel, notes: Sequence[str], keywords: Sequence[str], options: LLMOptions
) -> NamedTheme:
    """Name and description for notes that were found alike.

    Raises:
        JudgeError, ReplyError: there is no reply, or none of the form.
    """
    shown = [redact(note) for note in notes[: options.max_examples]]
    return await model.ask(build_naming_prompt(shown, keywords), NamedTheme, system=SYSTEM)


class _Run:
    def __init__(self, model: LanguageModel, notes: Mapping[str, str], options: LLMOptions) -> None:
        self._model = model
        self._notes = notes
        self._options = options
        self._slots = asyncio.Semaphore(options.max_concurrent)
        self.found = Assignments()

    async def label(self) -> None:
        """Collect the themes of every batch."""
        batches = _batches(list(self._notes), self._options.batch_size)
        for themes in await asyncio.gather(*(self._label_batch(batch) for batch in batches)):
            self.found.themes += themes

    async def _label_batch(self, keys: list[str]) -> list[NamedTheme]:
        prompt = build_labelling_prompt({key: self._notes[key] for key in keys})
        return await self._ask_for_themes(prompt, f"labelling {len(keys)} notes")

    async def merge(self) -> None:
        """Merge the themes of the batches, in rounds where they are too many for one prompt."""
        themes = _distinct(self.found.themes)
        size = max(2 * self._options.max_themes, self._options.batch_size)
        is_merged = len(self._notes) <= self._options.batch_size and len(themes) <= self._options.max_themes
        while themes and not is_merged:
            groups = _batches(themes, size)
            merged = await asyncio.gather(*(self._merge_batch(group) for group in groups))
            shorter = _distinct([theme for group in merged for theme in group])
            is_merged = len(groups) == 1 or len(shorter) >= len(themes)
            themes = shorter
        self.found.themes = themes[: self._options.max_themes]

    async def _merge_batch(self, themes: list[NamedTheme]) -> list[NamedTheme]:
        prompt = build_merging_prompt(themes, self._options.max_themes)
        return await self._ask_for_themes(prompt, f"merging {len(themes)} themes") or themes

    async def _ask_for_themes(self, prompt: str, what: str) -> list[NamedTheme]:
        try:
            async with self._slots:
                return (await self._model.ask(prompt, ThemeList, system=SYSTEM)).themes
        except ReplyError as error:
            self.found.failures.append(f"{what}: {error}")
            return []

    async def assign(self) -> None:
        """Ask for each note's theme, once more for what is missing."""
        if not self.found.themes:
            return
        batches = _batches(list(self._notes), self._options.batch_size)
        missing = [key for keys in await asyncio.gather(*map(self._assign_batch, batches)) for key in keys]
        self.found.n_asked_again = len(missing)
        await asyncio.gather(*map(self._assign_batch, _batches(missing, self._options.batch_size)))

    async def _assign_batch(self, keys: list[str]) -> list[str]:
        """Record the themes of a batch; return the keys that the reply did not settle."""
        prompt = build_assigning_prompt({key: self._notes[key] for key in keys}, self.found.themes)
        try:
            async with self._slots:
                reply = await self._model.ask(prompt, NoteThemes, system=SYSTEM)
        except ReplyError as error:
            self.found.failures.append(f"assigning {len(keys)} notes: {error}")
            return keys
        index_of = {_normalised(theme.name): i for i, theme in enumerate(self.found.themes)}
        open_keys = dict.fromkeys(keys)
        for assignment in reply.assignments:
            if assignment.id not in self._notes or assignment.id not in keys:
                self.found.n_invented += 1
            elif assignment.id in open_keys and assignment.theme is None:
                del open_keys[assignment.id]
            elif assignment.id in open_keys and _normalised(assignment.theme or "") in index_of:
                self.found.theme_of[assignment.id] = index_of[_normalised(assignment.theme or "")]
                del open_keys[assignment.id]
        return list(open_keys)


def _batches(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _distinct(themes: Sequence[NamedTheme]) -> list[NamedTheme]:
    by_name: dict[str, NamedTheme] = {}
    for theme in themes:
        by_name.setdefault(_normalised(theme.name), theme)
    return list(by_name.values())


def _normalised(name: str) -> str:
    return " ".join(name.casefold().split())
