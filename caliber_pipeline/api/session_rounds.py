"""Writes the rounds of a session as the tables that the pipeline would have stored, so that it goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.iterating import CalibrationOutcome, CalibrationRound
    from caliber_pipeline.core.criteria import Criteria
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.settings import Settings
    from caliber_pipeline.stores.tables import TableStore


@dataclass(frozen=True)
class _Data:
    """The input as the pipeline read it, and the themes in its notes."""

    records: pd.DataFrame
    annotations: pd.DataFrame
    labels: pd.DataFrame
    patterns: pd.DataFrame


def require_own_rounds(outcome: CalibrationOutcome, directory: Path) -> None:
    """Refuse a folder in which more was evaluated than these rounds.

    Raises:
        InputError: there are evaluations of other versions.
    """
    from caliber_pipeline.stores.tables import TableStore

    others = set(TableStore(str(directory)).versions("optimized_criteria")) - {r.version for r in outcome.rounds}
    if others:
        raise InputError(
            f"{directory}: there are evaluations of {', '.join(sorted(others))} already; export into another folder"
        )


def export_rounds(
    outcome: CalibrationOutcome, criteria: Mapping[str, Criteria], settings: Settings, encoder: Encoder, now: datetime
) -> list[Path]:
    """Ingest the exported files as the pipeline does, and write each round's tables, the history and the verdicts.

    Args:
        outcome: The rounds.
        criteria: The versions as their files hold them.
        settings: Of the folder: where its files and tables lie.
        encoder: Of the notes.
        now: When it is ingested.

    Returns:
        The files that were written.
    """
    from caliber_pipeline.core.calibration_history import append_evaluations
    from caliber_pipeline.stores.tables import TableStore

    tables = TableStore(str(settings.output))
    data = _ingest(settings, tables, encoder, now)
    written, metrics, decided = ["records", "rejected_records", "annotations", "rejected_annotations"], {}, {}
    paths = [tables.path(name) for name in written]
    for each in outcome.rounds:
        stored = _tables_of(each, criteria[each.version], data, encoder)
        for name, frame in stored.items():
            paths.append(tables.path(name, each.version))
            tables.save(frame, paths[-1], name)
        metrics[each.version], decided[each.version] = stored["alignment_metrics"], stored["optimized_criteria"]
    paths.append(tables.path("calibration_history"))
    tables.save(append_evaluations(None, metrics, decided), paths[-1], "calibration_history")
    _keep_verdicts(outcome, settings)
    return [*(Path(path.path) for path in paths), settings.verdict_cache_file]


def _ingest(settings: Settings, tables: TableStore, encoder: Encoder, now: datetime) -> _Data:
    from caliber_pipeline.core.labels import resolve_labels
    from caliber_pipeline.stores.ingest import load_annotatable, load_annotated, load_annotations, stamp_annotations
    from caliber_pipeline.stores.ingest_records import ingest_records
    from caliber_pipeline.strategies.evidence import find_patterns

    ingest_records(settings, tables).place(tables)
    loaded = load_annotations(settings, load_annotatable(settings, tables))
    stamp_annotations(loaded, settings, now)
    tables.save(loaded.rejected, tables.path("rejected_annotations"), "rejected_annotations")
    tables.save(loaded.table, tables.path("annotations"), "annotations")
    records, labels = load_annotated(tables), resolve_labels(loaded.table)
    return _Data(records, loaded.table, labels, find_patterns(labels, records, encoder))


def _tables_of(each: CalibrationRound, criteria: Criteria, data: _Data, encoder: Encoder) -> dict[str, pd.DataFrame]:
    """A round's tables, by their names."""
    import pandas as pd

    from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics, seal_test
    from caliber_pipeline.core.human_ceiling import compute_people_metrics
    from caliber_pipeline.core.judge_scores import join_labels, place_verdicts
    from caliber_pipeline.core.misalignments import find_misalignments
    from caliber_pipeline.encoders.neighbours import encode_neighbours

    verdicts = each.result.judge_scores.copy()
    scored = join_labels(verdicts, data.labels, data.records)
    people = compute_people_metrics(data.annotations, place_verdicts(verdicts, data.records))
    metrics = pd.concat([compute_alignment_metrics(scored), people], ignore_index=True)
    vectors = encode_neighbours(encoder, scored, data.records)
    stored = {
        "judge_scores": verdicts,
        "alignment_metrics": metrics if each.is_test_reported else seal_test(metrics),
        "patterns": data.patterns.copy(),
        "misalignments": find_misalignments(scored, data.records, data.patterns, vectors),
        "optimized_criteria": each.row.copy(),
    }
    attrs = {
        **data.records.attrs,
        **data.annotations.attrs,
        "criteria_fingerprint": criteria.fingerprint,
        "judge_provider": each.result.provider,
        "judge_model": each.result.model,
        "has_test": str(each.is_test_reported),
        "evaluated_at": each.evaluated_at,
    }
    for frame in stored.values():
        frame.attrs = dict(attrs)
    return stored


def _keep_verdicts(outcome: CalibrationOutcome, settings: Settings) -> None:
    """Put the verdicts where the pipeline looks for known ones, so that none is paid for again."""
    from caliber_pipeline.core.conforming import arrow_from_frame
    from caliber_pipeline.stores.verdict_cache import CACHED_VERDICTS, VerdictCache

    with VerdictCache(settings.verdict_cache_file) as cache:
        for each in outcome.rounds:
            cache.put_many(arrow_from_frame(each.result.judge_scores, "judge_scores").select(CACHED_VERDICTS.names))
