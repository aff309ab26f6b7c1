"""Opens what the pipeline wrote as a session, and writes a session as files that the pipeline reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from upath import UPath

from caliber_pipeline.api.annotating import AnnotationManager
from caliber_pipeline.api.discovery_results import PatternDiscoveryResult
from caliber_pipeline.api.records import annotations_from_table, column_values, records_from_table
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult
from caliber_pipeline.api.session_content import SessionContent
from caliber_pipeline.api.upload import UploadResult
from caliber_pipeline.core.column_names import GOLD
from caliber_pipeline.core.criteria import Criteria, next_version
from caliber_pipeline.core.errors import CriteriaError, InputError

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.stores.criteria_files import CriteriaFiles
    from caliber_pipeline.stores.tables import TableStore

_GROUP_COLUMN: Final = "group"


def open_assets(directory: Path, version: str | None, criteria_dir: Path | None) -> SessionContent:
    """The stored tables of one criteria version; None takes the champion.

    Raises:
        InputError: there are no such tables or criteria.
    """
    from caliber_pipeline.core.optimized_criteria import current_champion
    from caliber_pipeline.stores.tables import TableStore

    tables = TableStore(str(directory))
    records, annotations = tables.load("records"), tables.load("annotations")
    if records is None or annotations is None:
        raise InputError(f"{directory}: no records and annotations there; give the output folder of a `caliber run`")
    # the latest verdict of an annotator counts, and one without a time is older than any other
    annotations = annotations.sort_values("created_at", na_position="first", kind="stable", ignore_index=True)
    manager = AnnotationManager(records_from_table(records), annotations_from_table(annotations))
    content = SessionContent(upload=UploadResult(records, (), str(directory)), manager=manager)
    judged = tables.versions("judge_scores")
    version = version or current_champion(tables.load_versions("optimized_criteria")) or next(reversed(judged), None)
    if version is None:
        return content
    if version not in judged:
        raise InputError(f"{directory}: no evaluation of '{version}'; there are {', '.join(judged) or 'none'}")
    criteria = _load_criteria(directory, version, criteria_dir)
    content.evaluation = _evaluation(tables, version, criteria, records, annotations)
    content.patterns = _patterns(tables.load("patterns", version))
    return content


def _patterns(stored: pd.DataFrame | None) -> PatternDiscoveryResult | None:
    from caliber_pipeline.api.discovery import patterns_from_table

    if stored is None:
        return None
    found, uncategorized = patterns_from_table(stored)
    return PatternDiscoveryResult(
        found,
        uncategorized,
        method="+".join(sorted(set(column_values(stored["method"])))),
        total_analyzed=int(stored["count"].sum()),
    )


def export_content(
    content: SessionContent, upload: UploadResult, directory: Path, open_encoder: Callable[[], Encoder], now: datetime
) -> list[Path]:
    """Write records.csv, annotations.csv where people judged beside what came with the records, and the criteria.

    Rounds of iterating are written as the tables that the pipeline would have stored.

    Raises:
        InputError: a criteria file of another content is there already, or nothing can be written.
    """
    try:
        return _export(content, upload, directory, open_encoder, now)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written to ({error.strerror})") from error


def _export(
    content: SessionContent, upload: UploadResult, directory: Path, open_encoder: Callable[[], Encoder], now: datetime
) -> list[Path]:
    from caliber_pipeline.api.session_rounds import export_rounds, require_own_rounds
    from caliber_pipeline.settings import Settings
    from caliber_pipeline.stores.criteria_files import CriteriaFiles

    if content.outcome is not None:
        require_own_rounds(content.outcome, directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = [_write_records(upload, directory / "records.csv")]
    came_along = {a.record_id: a for a in upload.annotations if a.annotator == GOLD}
    others = [a for a in content.manager.annotations if a != came_along.get(a.record_id)]
    if others:
        written.append(directory / "annotations.csv")
        _write_csv([annotation.model_dump(mode="json") for annotation in others], written[-1])
    files = CriteriaFiles(directory / "criteria")
    versions = _versions(content, upload)
    written += _write_criteria(versions, files)
    if content.outcome is not None:
        annotations = directory / "annotations.csv" if others else None
        has_own_groups = any(group is not None for group in _own_groups(upload.table))
        settings = Settings(
            output=UPath(directory),
            records=directory / "records.csv",
            annotations=annotations,
            group_by=_GROUP_COLUMN if has_own_groups else None,
        )
        written += export_rounds(content.outcome, versions, settings, open_encoder(), now)
    return written


def _evaluation(
    tables: TableStore, version: str, criteria: Criteria, records: pd.DataFrame, annotations: pd.DataFrame
) -> EvaluationResult:
    from caliber_pipeline.core.judge_scores import join_labels
    from caliber_pipeline.core.labels import resolve_labels

    verdicts = tables.load("judge_scores", version)
    if verdicts is None:
        raise InputError(f"no evaluation of '{version}'")
    provider, model = (str(verdicts[name].iloc[0]) if len(verdicts) else "" for name in ("provider", "model"))
    config = EvaluationConfig(
        criteria.criteria,
        model,
        provider,
        criteria.system_prompt,
        tuple(example.record_id for example in criteria.examples),
        criteria.clauses,
    )
    texts = records.loc[records["record_id"].isin(verdicts["record_id"]), ["record_id", "query", "output", "reference"]]
    return EvaluationResult(
        config=config,
        criteria=criteria,
        provider=provider,
        model=model,
        judge_scores=verdicts,
        scored=join_labels(verdicts, resolve_labels(annotations), records),
        texts=texts.reset_index(drop=True),
    )


def _load_criteria(directory: Path, version: str, criteria_dir: Path | None) -> Criteria:
    from caliber_pipeline.stores.criteria_files import CriteriaFiles

    folders = [criteria_dir] if criteria_dir else [directory / "criteria", directory.parent / "criteria"]
    for folder in folders:
        if (folder / f"{version}.yaml").is_file():
            return CriteriaFiles(folder).load(version)
    where = " or ".join(map(str, folders))
    raise CriteriaError(f"no criteria file {version}.yaml in {where}; name their folder with criteria_dir=…")


def _write_records(upload: UploadResult, path: Path) -> Path:
    rows = []
    for record, group in zip(upload.records, _own_groups(upload.table), strict=True):
        row: dict[str, Any] = {**record.metadata, **record.model_dump(exclude={"metadata"})}
        rows.append(row if group is None else {**row, _GROUP_COLUMN: group})
    return _write_csv(rows, path)


def _own_groups(records: pd.DataFrame) -> list[str | None]:
    """The groups where they are not those that the pipeline makes by itself."""
    from caliber_pipeline.core.splits import default_groups

    own = column_values(records["group"])
    made = column_values(default_groups(records["query"], records["output"]))
    return [None] * len(own) if own == made else own


def _write_csv(rows: list[dict[str, Any]], path: Path) -> Path:
    import csv

    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _versions(content: SessionContent, upload: UploadResult) -> dict[str, Criteria]:
    """The rounds' versions, then what was evaluated and what was proposed, where these are other criteria."""
    from caliber_pipeline.core.proposals import find_twin

    rounds = content.outcome.rounds if content.outcome else ()
    found = {each.version: each.criteria for each in rounds}
    evaluation, proposal = content.evaluation, content.proposal
    base = next((each.version for each in rounds if each.result is evaluation), None)
    if evaluation is not None and base is None:
        base = find_twin(evaluation.criteria, found)
        if base is None:
            base = next_version(list(found))
            found[base] = evaluation.criteria.model_copy(update={"base": None, "round": 0, "author": "person"})
    is_new = proposal is not None and proposal.has_changed and find_twin(proposal.version, found) is None
    if base is not None and proposal is not None and is_new:
        update = {"base": base, "round": found[base].round + 1, "author": "optimizer"}
        found[next_version(list(found))] = proposal.version.model_copy(update=update)
    known = set(upload.table["record_id"])
    return {
        version: criteria.model_copy(update={"examples": tuple(e for e in criteria.examples if e.record_id in known)})
        for version, criteria in found.items()
    }


def _write_criteria(versions: Mapping[str, Criteria], files: CriteriaFiles) -> list[Path]:
    written = []
    for version, criteria in versions.items():
        path = files.folder / f"{version}.yaml"
        if not files.add_as(version, criteria) and files.load(version) != criteria:
            raise InputError(f"{path}: there are other criteria already; export into another folder")
        written.append(path)
    return written
