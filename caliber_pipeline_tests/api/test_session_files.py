from datetime import UTC, datetime
from pathlib import Path

import pytest

from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.labels import select_notes
from caliber_pipeline.core.notes import theme_texts
from caliber_pipeline.core.optimized_criteria import build_row
from caliber_pipeline.core.patterns import discover_patterns
from caliber_pipeline.core.stopping import Decision
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.ingest import load_annotations, load_records
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline_tests.api.clause_judge import ClauseJudge, make_flawed_rows
from caliber_pipeline_tests.api.word_encoder import WordEncoder


def store(folder: Path) -> CalibrationSession:
    """Tables as the pipeline stores them, of two versions of which the first is champion."""
    session = CalibrationSession(judge=ClauseJudge(), encoder=WordEncoder())
    upload = session.upload_records(make_flawed_rows(60))
    tables, files = TableStore(str(folder)), CriteriaFiles(folder / "criteria")
    tables.save(upload.table, tables.path("records"), "records")
    tables.save(session.annotation_manager.table(), tables.path("annotations"), "annotations")
    for version, text in (("v001", "be right"), ("v002", "be kind")):
        criteria = Criteria(criteria=text, base=None if version == "v001" else "v001")
        files.add_as(version, criteria)
        result = session.evaluate_sync(text)
        tables.save(result.judge_scores, tables.path("judge_scores", version), "judge_scores")
        notes = select_notes(result.scored.drop(columns="split"), upload.table)
        found = discover_patterns(notes, WordEncoder().encode(theme_texts(list(notes["text"]))))
        tables.save(found, tables.path("patterns", version), "patterns")
        decision = Decision("baseline" if version == "v001" else "rejected", "why", criteria.base, "v001", None)
        row = build_row(version, criteria, decision, None, None, None, datetime.now(UTC))
        tables.save(row, tables.path("optimized_criteria", version), "optimized_criteria")
    return session


def test_opens_the_champion_that_the_pipeline_wrote(tmp_path: Path) -> None:
    stored = store(tmp_path)

    session = CalibrationSession.from_assets(tmp_path)

    result = session.get_evaluation_result()
    assert result is not None
    assert result.config.criteria == "be right"
    assert (result.provider, result.model) == ("p", "m")
    assert session.records == stored.records
    assert session.annotation_manager.get_annotations_dict() == stored.annotation_manager.get_annotations_dict()
    # 30 good ones accepted, 30 flawed ones accepted too
    assert result.metrics.cells == (30, 0, 30, 0)
    assert session.patterns is not None
    assert session.patterns.total_analyzed == 30
    assert session.state.value == "complete"
    assert CalibrationSession.from_dict(session.to_dict()).to_dict() == session.to_dict()


def test_goes_on_from_what_it_opened(tmp_path: Path) -> None:
    store(tmp_path)
    session = CalibrationSession.from_assets(tmp_path, "v002", judge=ClauseJudge())
    session._encoder = WordEncoder()

    proposal = session.optimize_prompt_sync()

    assert proposal.original_criteria == "be kind"
    assert session.evaluate_sync(proposal.version).metrics.accuracy == 1.0


def test_opens_records_that_nobody_judged_yet(tmp_path: Path) -> None:
    session = CalibrationSession()
    upload = session.upload_records(make_flawed_rows(4))
    tables = TableStore(str(tmp_path))
    tables.save(upload.table, tables.path("records"), "records")
    tables.save(session.annotation_manager.table(), tables.path("annotations"), "annotations")

    opened = CalibrationSession.from_assets(str(tmp_path))

    assert opened.state.value == "evaluate"
    assert opened.get_evaluation_result() is None


def test_annotations_of_a_file_of_their_own_stay_when_records_are_uploaded_again(tmp_path: Path) -> None:
    session = CalibrationSession()
    upload = session.upload_records([{**row, "judgment": None, "notes": None} for row in make_flawed_rows(4)])
    session.annotate("r001", 0, "no", annotator="ann")
    tables = TableStore(str(tmp_path))
    tables.save(upload.table, tables.path("records"), "records")
    tables.save(session.annotation_manager.table(), tables.path("annotations"), "annotations")
    opened = CalibrationSession.from_assets(tmp_path)

    opened.upload_records([{**row, "judgment": None, "notes": None} for row in make_flawed_rows(5)])

    assert [(a.record_id, a.annotator) for a in opened.annotations] == [("r001", "ann")]


def test_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no records and annotations there"):
        CalibrationSession.from_assets(tmp_path)
    store(tmp_path)
    with pytest.raises(InputError, match="no evaluation of 'v009'; there are v001, v002"):
        CalibrationSession.from_assets(tmp_path, "v009")
    with pytest.raises(InputError, match=r"no criteria file v001\.yaml in .*name their folder with criteria_dir"):
        CalibrationSession.from_assets(tmp_path, criteria_dir=tmp_path)


def test_what_it_exports_comes_back_whole_through_the_pipeline(tmp_path: Path) -> None:
    rows = make_flawed_rows(12)
    rows[3] |= {"rater1_score": 1, "rater1_notes": "fine", "rater2_score": 0, "judgment": None, "notes": None}
    session = CalibrationSession()
    session.upload_records([{**row, "channel": f"c{i % 2}"} for i, row in enumerate(rows)])
    annotating = session.annotation_manager
    annotating.annotate("r000", 1, "fine after all,\nreally", severity=2.5, criteria_version="v001")
    annotating.annotate("r001", 0, "“no”", "ann", severity=0.5)
    session.annotate("r003", 1, annotator="rater2")
    session.export(tmp_path)

    files = Settings(
        output=tmp_path / "out", records=tmp_path / "records.csv", annotations=tmp_path / "annotations.csv"
    )
    tables, loaded = TableStore(str(tmp_path / "out")), load_records(files)
    annotations = load_annotations(files, loaded.table)
    tables.save(loaded.table, tables.path("records"), "records")
    tables.save(annotations.table, tables.path("annotations"), "annotations")
    opened = CalibrationSession.from_assets(tmp_path / "out")

    assert (len(loaded.rejected), len(annotations.rejected)) == (0, 0)
    assert opened.records == session.records
    by_key = {(a.record_id, a.annotator): a for a in opened.annotations}
    assert by_key == {(a.record_id, a.annotator): a for a in session.annotations}
    assert by_key["r000", "gold"].severity == 2.5
    assert by_key["r000", "gold"].created_at is not None
    labels = opened.annotation_manager.get_annotations_dict()
    assert labels == annotating.get_annotations_dict()
    assert (labels["r000"], labels["r003"]) == (1, 1)
