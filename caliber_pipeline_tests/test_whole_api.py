"""Uses the whole Python API with declared types: mypy in strict mode checks them, pytest that it works."""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

import caliber_pipeline as cp
from caliber_pipeline_tests.api.clause_judge import ClauseJudge, make_flawed_rows
from caliber_pipeline_tests.api.word_encoder import WordEncoder


def quiet_console() -> cp.ConsoleCaliberRenderer:
    return cp.ConsoleCaliberRenderer(file=io.StringIO(), width=100)


def test_upload(tmp_path: Path) -> None:
    handler: cp.UploadHandler = cp.UploadHandler(strict_validation=False)
    rows = make_flawed_rows(4)
    uploaded: cp.UploadResult = handler.from_records(rows)
    handler.from_dataframe(pd.DataFrame(rows))
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    handler.from_csv(tmp_path / "r.csv", column_mapping={"query": "query"})
    pd.DataFrame(rows).to_parquet(tmp_path / "r.parquet")
    handler.from_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    handler.from_jsonl(tmp_path / "r.jsonl")

    records: list[cp.UploadedRecord] = uploaded.records
    rejected: tuple[cp.RejectedRow, ...] = uploaded.rejected
    warnings: list[str] = uploaded.validation_warnings
    count: int = uploaded.total_count
    has_scores: bool = uploaded.has_llm_scores
    assert (len(records), rejected, warnings, count, has_scores) == (4, (), [], 4, True)


def test_annotate() -> None:
    manager: cp.AnnotationManager = cp.AnnotationManager(make_flawed_rows(4))
    annotation: cp.Annotation = manager.annotate("r000", 1, "fine", annotator="ann")
    found: cp.Annotation | None = manager.get_annotation("r000", "ann")
    change: cp.AnnotationChange | None = manager.undo()
    state: cp.AnnotationState = manager.get_state()
    current: cp.UploadedRecord | None = manager.get_current_record()
    following: cp.UploadedRecord | None = manager.get_next_unannotated()
    scores: dict[str, int] = manager.get_annotations_dict()
    record: cp.UploadedRecord = manager.get_record(0)
    manager.set_current_index(1)
    restored: cp.AnnotationManager = cp.AnnotationManager.from_dict(manager.to_dict())

    assert found == annotation
    assert change is not None
    assert current == record == manager.get_record_by_id("r000")
    assert following is None
    assert len(scores) == 4
    assert state.is_complete is manager.is_complete()
    assert restored.progress == manager.progress == state.progress
    assert manager.history == []


async def evaluate(config: cp.EvaluationConfig) -> cp.EvaluationResult:
    return await cp.EvaluationRunner(config, max_concurrent=8).run(make_flawed_rows(8))


def test_evaluate_and_compare() -> None:
    config = cp.EvaluationConfig(
        criteria="be right", model_name="gpt-4o", llm_provider="recorded", system_prompt=None, examples=()
    )
    result: cp.EvaluationResult = cp.EvaluationRunner(config).run_sync(
        make_flawed_rows(8), {f"r{i:03d}": i % 2 for i in range(8)}, on_progress=lambda done, total: None
    )
    metrics: cp.EvaluationMetrics = result.metrics
    kappa: float | None = metrics.cohen_kappa
    matrix: dict[str, dict[str, int]] = result.confusion_matrix
    records: list[cp.EvaluatedRecord] = result.records
    failed: list[cp.FailedRecord] = result.failed
    words: str = result.interpretation
    interval: tuple[float, float] | None = result.interval("accuracy")
    comparison: cp.EvaluationComparison = cp.compare(result, result)

    assert (kappa, matrix["LLM=1"]["Human=0"], len(records), failed, words) == (0.0, 4, 8, [], "slight")
    assert interval is not None
    assert comparison.fixed == comparison.broken == []
    assert result.config.criteria == "be right"
    assert cp.EvaluationResult.from_dict(result.to_dict()).records == records


def test_select() -> None:
    rows = make_flawed_rows(8)
    selector = cp.ExampleSelector(seed=1)
    selection: cp.SelectionResult[dict[str, object]] = selector.select(rows, None, 4, cp.SelectionStrategy.BALANCED)
    examples: list[dict[str, object]] = selection.examples
    used: cp.SelectionStrategy = selection.strategy_used
    counts: Mapping[str, int] = selection.metadata

    assert (len(examples), used, counts["accepts"]) == (4, cp.auto_select_strategy(), 2)


async def use_steps_of_their_own() -> None:
    rows = make_flawed_rows(40)
    encoder = WordEncoder()
    found: cp.PatternDiscoveryResult = await cp.PatternDiscovery(encoder=encoder).discover(rows)
    patterns: tuple[cp.DiscoveredPattern, ...] = found.patterns
    analyzer = cp.MisalignmentAnalyzer("gpt-4o", "local", max_examples=5, encoder=encoder)
    analysis: cp.MisalignmentAnalysis = await analyzer.analyze(rows, "be right", patterns=patterns)
    findings: tuple[cp.Finding, ...] = analysis.findings
    errors: tuple[cp.MisalignedRecord, ...] = analysis.false_positives
    optimizer = cp.PromptOptimizer("gpt-4o", "local", max_examples=8, encoder=encoder)
    proposal: cp.OptimizationResult = await optimizer.optimize(rows, "be right", "you are a judge")
    suggestions: tuple[cp.Suggestion, ...] = proposal.suggestions

    show = quiet_console()
    show.render_patterns(patterns)
    show.render_misalignments(analysis)
    show.render_proposal(proposal)

    assert len(patterns) == len(findings) == len(suggestions) == 2
    assert len(errors) == 20


async def use_session(tmp_path: Path) -> None:
    session: cp.CalibrationSession = cp.CalibrationSession("id", judge=ClauseJudge(), encoder=WordEncoder())
    session.upload_records(make_flawed_rows(200))
    session.annotate("r001", 1, notes="fine", annotator=None)
    state: cp.SessionState = session.state
    result: cp.EvaluationResult = await session.evaluate("be right", on_progress=lambda done, total: None)
    await session.discover_patterns(method=cp.ClusteringMethod.HDBSCAN)
    await session.analyze_misalignments(max_examples=5)
    proposal: cp.OptimizationResult = await session.optimize_prompt(max_examples=8)
    selection: cp.SelectionResult[cp.UploadedRecord] = session.select_examples(count=6, strategy=None, seed=1)
    outcome: cp.CalibrationOutcome = await session.iterate("be right", max_iterations=2)
    rounds: tuple[cp.CalibrationRound, ...] = outcome.rounds
    restored: cp.CalibrationSession = cp.CalibrationSession.load(session.save(tmp_path / "session.json"))
    files: list[Path] = session.export(tmp_path / "files")
    again: cp.CalibrationSession = cp.CalibrationSession.from_state(session.to_state())

    show: cp.CaliberRenderer = cp.NotebookCaliberRenderer()
    show.render_records(session.records)
    show.render_progress(session.get_annotation_state())
    show.render_evaluation(result)
    show.render_history(rounds)
    show.annotate(session.annotation_manager)

    assert state is cp.SessionState.EVALUATE
    assert result.metrics.n == 200
    assert proposal.has_changed
    assert len(selection.examples) == 6
    assert [each.version for each in rounds] == ["v001", "v002"]
    assert restored.to_dict() == again.to_dict() == session.to_dict()
    assert [path.name for path in files] == ["records.csv", "annotations.csv", "v001.yaml"]


class Right(cp.BaseMetric):
    instruction = "Score 1 if the answer is right"
    llm_provider = "recorded"


def test_hq() -> None:
    items = [cp.DatasetItem("a", "q", "o", judgment=1, llm_score=1), cp.DatasetItem("b", "q", "o", llm_score=0)]
    renderer: cp.CaliberRenderer = cp.ConsoleCaliberRenderer(file=io.StringIO(), stdin=io.StringIO("r\n"))
    hq = cp.CaliberHQ(cp.Dataset(items=items), Right(), renderer)
    hq.annotate()
    frame: pd.DataFrame = hq.execute()
    web = cp.WebCaliberHQ.from_records(make_flawed_rows(4), cp.CaliberMetric("be right", llm_provider="recorded"))

    assert list(frame["aligned"]) == [True, True]
    json.dumps(web.execute(as_dict=True))


def test_renderers() -> None:
    result = cp.EvaluationRunner(cp.EvaluationConfig(llm_provider="recorded")).run_sync(make_flawed_rows(8))
    renderers: list[cp.CaliberHQRenderer] = [
        quiet_console(),
        cp.NotebookCaliberRenderer(),
        cp.JsonCaliberRenderer(io.StringIO()),
        cp.ConsoleCaliberHQRenderer(file=io.StringIO()),
        cp.NotebookCaliberHQRenderer(),
        cp.JsonCaliberHQRenderer(),
    ]
    for renderer in renderers:
        renderer.render_evaluation(result)
        renderer.render_message("done")
    text: str = cp.JsonCaliberRenderer().render_evaluation(result)
    assert json.loads(text)["metrics"]["n"] == 8


def test_errors() -> None:
    with pytest.raises(cp.MissingStepError):
        cp.CalibrationSession().evaluate_sync("c")
    with pytest.raises(cp.InputError):
        cp.UploadHandler().from_records([])
    with pytest.raises(cp.JudgeError):
        cp.EvaluationRunner(cp.EvaluationConfig(llm_provider="nobody")).run_sync(make_flawed_rows(2))
    assert issubclass(cp.InputError, cp.CaliberError)


class OneTitle:
    """A deduper of one's own."""

    def select_new(self, learnings: Sequence[cp.LearningArtifact]) -> list[cp.LearningArtifact]:
        return list({learning.title: learning for learning in learnings}.values())


async def use_evidence(tmp_path: Path) -> None:
    evidence = [
        cp.EvidenceItem(f"e{i}", row["notes"], metadata={"channel": "chat"}, source_ref=f"s{i}")
        for i, row in enumerate(make_flawed_rows(24))
        if row["notes"]
    ]
    encoder = WordEncoder()
    options = cp.EvidenceOptions(
        method=cp.ClusteringMethod.HDBSCAN,
        recurrence_threshold=2,
        metadata=cp.MetadataConfig(allowed_keys=frozenset({"channel"})),
        discovery=cp.DiscoveryOptions(seed=1, llm=cp.LLMOptions()),
    )
    sanitizer: cp.Sanitizer = cp.RedactingSanitizer()
    writer: cp.ArtifactWriter = cp.KeywordWriter()
    dedupers: list[cp.Deduper] = [cp.InMemoryDeduper(), cp.EmbeddingDeduper(0.85, encoder=encoder), OneTitle()]
    sinks: list[cp.ArtifactSink] = [
        cp.InMemorySink(),
        cp.JsonlSink(tmp_path / "learnings.jsonl"),
        cp.ParquetSink(tmp_path / "learnings"),
    ]
    for deduper, sink in zip(dedupers, sinks, strict=True):
        pipeline = cp.EvidencePipeline(
            encoder=encoder, sanitizer=sanitizer, writer=writer, deduper=deduper, sink=sink, options=options
        )
        result: cp.PipelineResult = await pipeline.run(evidence)
        learnings: tuple[cp.LearningArtifact, ...] = result.learnings
        assert (len(learnings), len(result.sink_ids), result.failures) == (2, 2, ())
        console = quiet_console().console
        cp.display_patterns(result.clustering_result, console=console)
        cp.display_learnings(learnings, console=console)
        cp.display_pipeline_result(result, console=console)


def test_steps_and_session(tmp_path: Path) -> None:
    asyncio.run(use_steps_of_their_own())
    asyncio.run(use_session(tmp_path))
    asyncio.run(use_evidence(tmp_path))
    assert asyncio.run(evaluate(cp.EvaluationConfig(llm_provider="recorded"))).metrics.n == 8
