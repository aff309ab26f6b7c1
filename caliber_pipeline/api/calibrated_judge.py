"""The calibrated judge in use: loaded from its one file, it scores records from Python."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.core.arguments import ITEMS, MAPPING, PATH, accepts, has_attributes
from caliber_pipeline.core.errors import InputError, describe_read_error

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.fields import Item
    from caliber_pipeline.core.calibrated_judge import JudgeDocument
    from caliber_pipeline.judges.protocol import Judge
    from caliber_pipeline.stores.verdict_cache import VerdictCache

RESULT_COLUMNS: Final = (
    "record_id",
    "llm_score",
    "status",
    "is_abstained",
    "confidence",
    "llm_reasoning",
    "failure_reason",
)


class CalibratedJudge:
    """A judge with its criteria, examples, thresholds and certificate.

    Attributes:
        document: What was exported.
        differences: How it and the judge differ from what was certified; of each it warns once.
    """

    @accepts(document=has_attributes("certificate", wanted="what CalibratedJudge.load reads"))
    def __init__(self, document: JudgeDocument, *, judge: Judge | None = None, embeddings: Path | None = None) -> None:
        """Use an exported judge.

        Args:
            document: What was exported.
            judge: Who gives the verdicts; None opens the provider and model of the document.
            embeddings: Where the embedded judge keeps vectors, so that its examples are encoded once; None for nowhere.

        Warns:
            UserWarning: model, provider, prompt template or criteria differ from those that the certificate was issued
                for, or examples were left out or changed.
        """
        self.document = document
        self._judge = judge
        self._embeddings = embeddings
        self.differences = tuple(_find_differences(document, judge))
        for difference in self.differences:
            warnings.warn(f"the certificate does not hold: {difference}", UserWarning, stacklevel=2)

    @classmethod
    @accepts(path=PATH)
    def load(cls, path: str | Path, *, judge: Judge | None = None) -> CalibratedJudge:
        """Read an exported judge.

        The embedded judge keeps the vectors of what it has read in a file beside it, `NAME.embeddings.sqlite`.

        Raises:
            InputError: the file cannot be read or is no exported judge.
        """
        from caliber_pipeline.core.calibrated_judge import parse_document

        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: cannot be read ({describe_read_error(error)}); write one with `caliber export`"
            ) from error
        beside = Path(path).with_suffix(".embeddings.sqlite")
        embeddings = beside if os.access(beside.parent, os.W_OK) else None
        return cls(parse_document(text, source=str(path)), judge=judge, embeddings=embeddings)

    @property
    def certificate(self) -> dict[str, Any]:
        """What the judge is worth: figures with intervals on test, label counts, human ceiling, fingerprints."""
        return self.document.certificate

    @property
    def criteria(self) -> str:
        """The criteria, clauses included."""
        return self.document.criteria

    def card(self) -> str:
        """The certificate as a Markdown model card."""
        from caliber_pipeline.core.calibrated_judge import render_card

        return render_card(self.document)

    @accepts(records=ITEMS, column_mapping=MAPPING.or_none)
    def score(
        self,
        records: pd.DataFrame | Iterable[Item],
        *,
        column_mapping: Mapping[str, str] | None = None,
        cache: VerdictCache | None = None,
    ) -> pd.DataFrame:
        """Verdicts on records; a verdict that could not be had is a row with its reason, never a score.

        Args:
            records: A frame, dicts or objects with query and output, and where there are any record_id and reference:
                under any of the names that a file may have, and read as one.
            column_mapping: Our column names to theirs, where the usual names do not fit.
            cache: Where verdicts are kept, so that none is paid for twice.

        Returns:
            One row per given row in their order: record_id, llm_score, status, is_abstained (the verdict is not sure
            enough to stand alone), confidence, llm_reasoning, failure_reason. A row that is no record, as one with a
            blank output or the id of an earlier one, was not judged: its status is 'no_record', failure_reason says
            why, and record_id is null where none was given.

        Raises:
            InputError: there is no query or no output, or an item is neither.
            JudgeError: the judge cannot work.
        """
        from caliber_pipeline.api.given_records import parse_given
        from caliber_pipeline.core.abstention import Abstention, select_abstained
        from caliber_pipeline.core.calibrated_judge import frame_examples
        from caliber_pipeline.judges.protocol import JudgeTask
        from caliber_pipeline.judges.runner import run_judge

        document = self.document
        rows = parse_given(records, column_mapping)
        if self._judge is None:
            self._judge = _open(document, self._embeddings)
        examples = frame_examples(document.examples)
        verdicts = run_judge(self._judge, JudgeTask(rows.table, document.definition, examples), cache=cache)
        confidence = verdicts["confidence"].to_numpy(dtype="float64", na_value=float("nan"))
        is_abstained = select_abstained(confidence, Abstention(**document.abstention))
        scored = verdicts.assign(is_abstained=is_abstained)
        return rows.complete(scored[list(RESULT_COLUMNS)])

    async def score_async(
        self, records: pd.DataFrame | Iterable[Item], *, column_mapping: Mapping[str, str] | None = None
    ) -> pd.DataFrame:
        """`score`, awaited: the event loop goes on meanwhile."""
        return await asyncio.to_thread(self.score, records, column_mapping=column_mapping)


def _find_differences(document: JudgeDocument, judge: Judge | None) -> list[str]:
    """How a document and its judge differ from what was certified."""
    from caliber_pipeline.core.calibrated_judge import find_changes
    from caliber_pipeline.core.judge_prompt import TEMPLATE_VERSION

    certificate, model = document.certificate, document.model if judge is None else judge.model
    if judge is None and document.provider == "local":
        from caliber_pipeline.api.judging import default_encoder

        model = default_encoder().name  # whatever the file says, this is who will judge
    given = {
        "provider": document.provider if judge is None else judge.provider,
        "model": model,
        "template_version": TEMPLATE_VERSION,
    }
    differences = [
        f"{name.replace('_', ' ')} '{value}' instead of '{certificate.get(name)}'"
        for name, value in given.items()
        if value != certificate.get(name)
    ]
    return differences + find_changes(document)


def _open(document: JudgeDocument, embeddings: Path | None) -> Judge:
    from caliber_pipeline.api.judging import default_encoder, open_judge

    if document.provider == "local" and embeddings is not None:
        from caliber_pipeline.encoders.cached import CachedEncoder
        from caliber_pipeline.judges.local import LocalJudge
        from caliber_pipeline.stores.embedding_cache import EmbeddingCache

        return LocalJudge(CachedEncoder(default_encoder(), EmbeddingCache(embeddings)))
    return open_judge(document.provider, document.model if document.provider != "local" else None)
