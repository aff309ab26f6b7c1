"""A session's rounds as the pipeline's tables: it goes on from the champion, and evaluates nothing twice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from caliber_pipeline.api.iterating import CalibrationOutcome
from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.api.session_files import open_assets
from caliber_pipeline.automation import observe_state
from caliber_pipeline.core.criteria import Clause, Criteria
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.loop import plan_next
from caliber_pipeline.core.schemas import CALIBRATION_HISTORY
from caliber_pipeline.encoders import CachedEncoder
from caliber_pipeline.judges.protocol import Judge, JudgeTask
from caliber_pipeline.resources import Project
from caliber_pipeline.runs import JobRunner
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores.embedding_cache import EmbeddingCache
from caliber_pipeline_tests.api.clause_judge import BlindJudge, ClauseJudge, make_flawed_rows, make_session
from caliber_pipeline_tests.api.word_encoder import WordEncoder

ASKED: list[tuple[str, str]] = []


class CountingJudge(ClauseJudge):
    """Notes what it is asked, whoever made it."""

    def judge(self, task: JudgeTask) -> Iterator[pd.DataFrame]:
        ASKED.extend((task.criteria.criteria, record_id) for record_id in task.records["record_id"])
        yield from super().judge(task)


class SessionProject(Project):
    """A project with the session's judge and encoder."""

    def build_judge(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        criteria: Criteria | None = None,
        version: str | None = None,
    ) -> Judge:
        return CountingJudge()

    def build_encoder(self, on_progress: Callable[[int, int], None] | None = None) -> CachedEncoder:
        return CachedEncoder(WordEncoder(), EmbeddingCache(self.cache_folder / "embeddings.sqlite"))


def open_project(folder: Path, group_by: str | None = None) -> SessionProject:
    annotations = folder / "annotations.csv"
    settings = Settings(
        output=folder,
        records=folder / "records.csv",
        annotations=annotations if annotations.exists() else None,
        group_by=group_by,
    )
    return SessionProject.from_settings(settings)


def run_loop(project: SessionProject, instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """What the judge was asked while the loop ran."""
    ASKED.clear()
    JobRunner(project.settings, instance, report=lambda _: None, project=project).run_loop()
    return list(ASKED)


def iterated(judge: ClauseJudge | BlindJudge | None = None) -> tuple[CalibrationSession, CalibrationOutcome]:
    session = make_session(make_flawed_rows(200), judge)
    session.annotate("r000", 0, "date is off", "ann")
    return session, session.iterate_sync("be right")


def test_the_pipeline_goes_on_from_the_champion_and_evaluates_nothing_twice(tmp_path: Path) -> None:
    session, outcome = iterated()
    written = session.export(tmp_path)
    assert all(path.exists() for path in written)
    project = open_project(tmp_path)

    with dg.DagsterInstance.ephemeral() as instance:
        plan = plan_next(observe_state(project, instance))
        assert (plan.evaluate, plan.test, plan.should_ingest) == (None, None, False)
        assert plan.register == ("v001", "v002")
        assert run_loop(project, instance) == []

        history = project.tables.require("calibration_history")
        kept = [
            "criteria_version",
            "base",
            "round",
            "decision",
            "decision_reason",
            "champion",
            "stop_reason",
            "p_value",
        ]
        figures = [name for name in CALIBRATION_HISTORY.names if name.startswith(("dev_", "test_", "all_"))]
        pd.testing.assert_frame_equal(history[kept + figures], outcome.history[kept + figures])
        assert history["annotations_fingerprint"].tolist() == outcome.history["annotations_fingerprint"].tolist()

        # a person's next version has to beat the session's champion, and is all that is judged
        clause = Clause(text="Reject a wrong date")
        project.criteria_files.add_as("v003", Criteria(criteria="be kind", clauses=(clause,)))
        assert {text for text, _ in run_loop(project, instance)} == {"be kind"}
    row = project.tables.require("optimized_criteria", "v003").iloc[0]
    assert (row["base"], row["decision"], row["champion"]) == ("v002", "rejected", "v002")
    assert project.tables.require("calibration_history")["criteria_version"].tolist() == ["v001", "v002", "v003"]
    assert (tmp_path / "report.html").exists()
    with pytest.raises(InputError, match="there are evaluations of v003 already"):
        session.export(tmp_path)


def test_groups_of_its_own_keep_their_splits_when_a_session_is_exported(tmp_path: Path) -> None:
    rows = [{**row, "conversation": f"c{i // 4}"} for i, row in enumerate(make_flawed_rows(200))]
    pd.DataFrame(rows).to_csv(tmp_path / "records.csv", index=False)
    grouped = SessionProject.from_settings(
        Settings(output=tmp_path / "grouped", records=tmp_path / "records.csv", group_by="conversation")
    )
    with dg.DagsterInstance.ephemeral() as instance:
        grouped.criteria_files.add_as("v001", Criteria(criteria="be right"))
        run_loop(grouped, instance)
    session = CalibrationSession("s", judge=ClauseJudge(), encoder=WordEncoder())
    session.resume(open_assets(tmp_path / "grouped", None, None))
    outcome = session.iterate_sync("be right")
    session.export(tmp_path / "exported")

    project = open_project(tmp_path / "exported", group_by="group")
    placed = ["record_id", "group", "split"]
    records = grouped.tables.require("records")
    pd.testing.assert_frame_equal(project.tables.require("records")[placed], records[placed])
    exported = project.tables.require("calibration_history").set_index("criteria_version")["dev_cohen_kappa"]
    for each in outcome.rounds:
        assert exported[each.version] == each.kappa_by_split["dev"]
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_loop(project, instance) == []


def test_a_rejected_round_stays_sealed_and_keeps_its_base(tmp_path: Path) -> None:
    session, outcome = iterated(BlindJudge())
    session.export(tmp_path)
    session.export(tmp_path)  # the same again changes nothing
    project = open_project(tmp_path)
    history = project.tables.require("calibration_history")
    assert history["decision"].tolist() == ["baseline", "rejected", "rejected"]
    assert history["is_test_sealed"].tolist() == [False, True, True]
    bases = [project.criteria_files.load(version).base for version in ("v001", "v002", "v003")]
    assert bases == [None, "v001", "v001"]
    assert history["stop_reason"].iloc[-1] == outcome.stop_reason
    with dg.DagsterInstance.ephemeral() as instance:
        assert plan_next(observe_state(project, instance)).evaluate is None


@pytest.mark.slow
def test_what_was_evaluated_and_proposed_after_the_rounds_waits_for_the_pipeline(tmp_path: Path) -> None:
    session, _ = iterated()
    session.evaluate_sync("be kind")
    proposal = session.optimize_prompt_sync()
    session.export(tmp_path)
    project = open_project(tmp_path)
    files = project.criteria_files.load_all().valid
    assert [(name, each.base, each.criteria) for name, each in files.items()][2:] == [
        ("v003", None, "be kind"),
        ("v004", "v003", proposal.version.criteria),
    ]
    with dg.DagsterInstance.ephemeral() as instance:
        assert plan_next(observe_state(project, instance)).evaluate == "v003"


def test_the_history_of_a_restored_session_is_the_same() -> None:
    session, outcome = iterated()
    restored = CalibrationSession.from_dict(session.to_dict()).outcome
    assert restored is not None
    pd.testing.assert_frame_equal(restored.history, outcome.history)
    assert outcome.history["evaluated_at"].notna().all()
