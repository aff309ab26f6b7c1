"""What no proposal may hold: gaps to be filled in, text of records that decide, other records' ids, too much text."""

import re
from collections.abc import Iterable
from typing import Final

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.proposals import Proposal, TrainEvidence
from caliber_pipeline.core.sanitizer import redact

MAX_CRITERIA_CHARS: Final = 12_000  # a rubric that a person still reads; more drowns what matters
QUOTED_WORDS: Final = 6  # in a row: shorter runs are turns of phrase that people share
TEXT_COLUMNS: Final = ("query", "output", "reference", "human_notes")
_GAP: Final = re.compile(
    r"\{\{|\}\}|\$\{|<\s*(?:insert|your|placeholder)|\[\s*(?:insert|your|placeholder|\.\.\.|…)|\bTODO\b|\bTBD\b"
    r"|lorem ipsum|\{[^\W\d]\w*\}|_{3,}|\bX{3,}\b",
    re.IGNORECASE,
)
QUOTED_CHARACTERS: Final = 12  # the same in scripts that write words without spaces: about six words
_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)


def find_refusal(proposal: Proposal, champion: Criteria, evidence: TrainEvidence, guarded: pd.DataFrame) -> str | None:
    """Why a proposal must not become a criteria file; None where nothing speaks against it.

    Args:
        proposal: The proposal.
        champion: What it edits: its words are known already.
        evidence: What the strategy was shown.
        guarded: Records that decide, on dev and test: as many of query, output, reference and human_notes as there are.
    """
    criteria = proposal.criteria
    told = "\n".join(filter(None, (criteria.system_prompt, criteria.full_text)))
    quotes = "\n".join(_quotes(criteria))
    if len(told) > MAX_CRITERIA_CHARS:
        return f"it has {len(told)} characters, over {MAX_CRITERIA_CHARS}"
    known_texts = (champion.full_text, *_quotes(champion), *_texts(evidence.records), *_texts(evidence.misalignments))
    shown = "\n".join(known_texts)
    gaps = {match.group() for match in _GAP.finditer(told)} - {match.group() for match in _GAP.finditer(shown)}
    if gaps:
        return f"it has gaps to be filled in: {', '.join(sorted(gaps))}"
    if redact(told) != told or redact(quotes) != quotes:
        return "it holds private data"
    known = set(evidence.records["record_id"].astype(str))
    used = {e.record_id for e in criteria.examples} - {e.record_id for e in champion.examples}
    used |= {record_id for clause in proposal.clauses for record_id in clause.evidence.record_ids}
    if stray := sorted(used - known):
        return f"it rests on {len(stray)} records that are not in train, e.g. {stray[:3]}"
    suspect = _runs(f"{told}\n{quotes}") - _runs(shown)
    if suspect and (quoted := _find_quoted(suspect, guarded)) is not None:
        return f"it quotes a record of dev or test: “{quoted}”"
    return None


def select_guarded(records: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The texts of the labelled records outside train, people's notes among them: what no proposal may quote."""
    outside = records.loc[records["split"] != "train", ["record_id", *TEXT_COLUMNS[:-1]]]
    return outside.merge(labels[["record_id", "human_notes"]], on="record_id")


def _quotes(criteria: Criteria) -> Iterable[str]:
    return (quote for clause in criteria.clauses for quote in clause.evidence.quotes)


def _texts(frame: pd.DataFrame) -> Iterable[str]:
    for column in TEXT_COLUMNS:
        if column in frame.columns:
            yield from frame[column].dropna().astype(str)


def _runs(text: str) -> set[str]:
    """Every run of `QUOTED_WORDS` words, in lower case, and of `QUOTED_CHARACTERS` where words are not spaced."""
    words = _WORD.findall(text.lower())
    runs = {" ".join(words[i : i + QUOTED_WORDS]) for i in range(len(words) - QUOTED_WORDS + 1)}
    for line in _UNSPACED.findall(text):
        runs |= {line[i : i + QUOTED_CHARACTERS] for i in range(len(line) - QUOTED_CHARACTERS + 1)}
    return runs


def _find_quoted(suspect: set[str], guarded: pd.DataFrame) -> str | None:
    return next((found[0] for text in _texts(guarded) if (found := sorted(suspect & _runs(text)))), None)
