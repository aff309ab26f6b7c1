"""Uses the whole Python API with declared types: mypy in strict mode checks them, pytest that it works."""

import asyncio
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import caliber_pipeline as cp
from caliber_pipeline_tests.api.clause_judge import ClauseJudge, make_flawed_rows
from caliber_pipeline_tests.api.scripted_model import ScriptedModel
from caliber_pipeline_tests.api.word_encoder import WordEncoder
from caliber_pipeline_tests.core.test_calibrated_judge import document


def test_uses_every_public_name() -> None:
    used = set(re.findall(r"\bcp\.(\w+)", Path(__file__).read_text(encoding="utf-8")))

    assert sorted(set(cp.__all__) - used) == []


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
    analysis: cp.MisalignmentAnalysis = await analyzer.analyze(rows, "be right", patterns=found)
    findings: tuple[cp.Finding, ...] = analysis.findings
    errors: tuple[cp.MisalignedRecord, ...] = analysis.false_positives
    optimizer = cp.PromptOptimizer("gpt-4o", "local", max_examples=8, encoder=encoder)
    proposal: cp.OptimizationResult = await optimizer.optimize(rows, "be right", "you are a judge")
    suggestions: tuple[cp.Suggestion, ...] = proposal.suggestions

    show = quiet_console()
    show.render_patterns(found)
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
    show.render_history(outcome)
    show.render_history(rounds)
    show.annotate(session.annotation_manager)

    assert state is cp.SessionState.EVALUATE
    assert result.metrics.n == 200
    assert proposal.has_changed
    assert len(selection.examples) == 6
    assert [each.version for each in rounds] == ["v001", "v002"]
    assert restored.to_dict() == again.to_dict() == session.to_dict()
    assert [path.name for path in files][:4] == ["records.csv", "annotations.csv", "v001.yaml", "v002.yaml"]


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
    answer: dict[str, object] = web.execute(as_dict=True)
    same: pd.DataFrame = web.execute(as_dict=False)
    assert json.loads(json.dumps(answer)) == web.execute()
    assert list(same.columns) == list(frame.columns)


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
    assert all(issubclass(e, cp.CaliberError) for e in (cp.InputError, cp.ReplyError, cp.SchemaError, cp.CriteriaError))


class OneTitle:
    """A deduper of one's own."""

    def select_new(self, learnings: Sequence[cp.LearningArtifact]) -> list[cp.LearningArtifact]:
        return list({learning.title: learning for learning in learnings}.values())


class OneTheme:
    """A clusterer of one's own."""

    async def cluster(self, evidence: Sequence[cp.EvidenceItem]) -> cp.PatternDiscoveryResult:
        return await cp.PatternDiscovery(encoder=WordEncoder()).discover_from_evidence(evidence)


async def use_writers() -> None:
    clusterer: cp.EvidenceClusterer = OneTheme()
    found = await clusterer.cluster([cp.EvidenceItem("e1", "the date is wrong"), cp.EvidenceItem("e2", "wrong date")])
    enrichment = cp.Enrichment(n_missed=2, n_caught=0, share_other_missed=0.1, q_value=0.01)
    theme = cp.ThemeEvidence("dates", "wrong dates", {"e1": "the date is wrong"}, enrichment=enrichment)
    written = await cp.KeywordWriter().write(theme)
    model = ScriptedModel(lambda *_: "no JSON")
    with pytest.raises(cp.ReplyError):
        await cp.LLMWriter(model).write(theme)
    assert found.total_analyzed == 2
    assert isinstance(written, cp.LearningArtifact)


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
    asyncio.run(use_writers())
    assert asyncio.run(evaluate(cp.EvaluationConfig(llm_provider="recorded"))).metrics.n == 8


def test_agreement_and_attribution() -> None:
    rows = [{**row, "rater1_score": 1, "rater2_score": i % 4 // 2} for i, row in enumerate(make_flawed_rows(60))]
    upload = cp.UploadHandler().from_records([{**row, "judgment": None, "notes": None} for row in rows])
    session = cp.CalibrationSession()
    session.upload(cp.UploadHandler().from_records(rows))
    result = session.evaluate_sync("be right", llm_provider="recorded")
    metrics: pd.DataFrame = cp.compute_alignment_metrics(result.scored, seed=1)
    kappa: float | None = cp.metric_value(metrics, "all", "cohen_kappa")
    annotations: pd.DataFrame = session.annotation_manager.table()
    verdicts = result.judge_scores.assign(split="dev")
    people: pd.DataFrame = cp.compute_people_metrics(annotations, verdicts)
    wrong = result.scored[result.scored["llm_score"] != result.scored["human_score"]]
    members = pd.DataFrame({"record_id": [], "pattern_id": []}, dtype="string[pyarrow]")
    attributed: pd.DataFrame = cp.attribute_misalignments(wrong, result.scored, members)
    texts = wrong.merge(result.texts, on="record_id")
    misaligned = pd.concat([texts.reset_index(drop=True), attributed.reset_index(drop=True)], axis=1)
    queue: pd.DataFrame = cp.build_relabel_queue(result.scored, upload.table, misaligned, abstained=("r001",))

    assert kappa == result.metrics.cohen_kappa == 0.0
    assert cp.interpret_kappa(kappa) == "slight"
    agreement: pd.DataFrame = cp.measure_agreement([1, 0] * 20, [1, 0, 1, 1] * 10)
    low, high = cp.proportion_interval(8, 10)
    assert agreement.loc["cohen_kappa", "value"] == float(cp.kappa_from_rates(1, 0.5, 0.5)) == 0.5
    assert float(low) < 0.8 < float(high)
    assert cp.ConfusionMatrix(3, 4, 1, 2).accuracy == 0.7
    assert "kappa" in cp.label_verdict(metrics, "dev")
    assert cp.metric_value(people, "dev", "human_human_kappa") == 0.0
    assert set(attributed) == {"attribution", "attribution_reason"}
    assert cp.ask_owner(misaligned.assign(pattern_id=None, pattern_name=None)) == []
    assert "r001" in set(queue["record_id"])


def test_annotators() -> None:
    annotations = cp.UploadHandler().from_records(
        [
            {
                "id": i,
                "query": f"q{i}",
                "output": "a",
                **{f"rater{k}_score": int(i % 3 > 0 or k == i % 7) for k in (1, 2, 3)},
            }
            for i in range(60)
        ]
    )
    session = cp.CalibrationSession()
    session.upload(annotations)
    ratings = cp.build_ratings(session.annotation_manager.table())
    alpha: float = float(cp.krippendorff_alpha(ratings.n_accepts, ratings.n_raters))
    fitted = cp.fit_dawid_skene(ratings)
    tested = cp.run_alt_test(ratings, np.array([float(i % 3 > 0) for i in range(60)]))
    pairs: pd.DataFrame = cp.pairwise_agreement(ratings)
    biases: pd.DataFrame = cp.annotator_biases(ratings)
    retest: pd.DataFrame = cp.retest_agreement(session.annotation_manager.table())
    described: pd.DataFrame = cp.describe_annotators(session.annotation_manager.table())

    assert 0.5 < alpha < 1
    assert (len(pairs), len(biases), len(retest)) == (3, 3, 0)
    assert np.isin(cp.majority_labels(ratings), [0, 1]).all()
    assert fitted is not None
    assert tested is not None
    assert set(described["annotator"]) == {"(all)", "rater1", "rater2", "rater3"}


def test_estimates_and_plans() -> None:
    human, llm, unlabeled = [1, 0] * 30, [1, 0, 1, 1] * 15, [1, 1, 0, 1] * 200
    sampled: cp.RateEstimate = cp.estimate_from_random_sample(human, llm, unlabeled)
    shifted: cp.RateEstimate = cp.estimate_under_label_shift(human, llm, unlabeled)
    abstention: cp.Abstention = cp.find_threshold([0.9] * 60 + [0.5] * 60, [True] * 60 + [False] * 60)
    drift: cp.DriftTest = cp.run_drift_test([1] * 50 + [0] * 50, 0.95)
    split: cp.DriftSplit = cp.split_drift([1] * 40, [1] * 20 + [0] * 20, [1] * 20 + [0] * 20)
    probabilities = cp.sampling_probabilities([0.1, 0.5, 0.9, 0.4], 2)

    assert sampled.ci_low <= sampled.value <= sampled.ci_high
    assert shifted.n_labels == 60
    assert abstention.threshold is not None
    assert cp.select_abstained([0.95, 0.1], abstention).tolist() == [False, True]
    assert drift.is_alarm
    assert split.judge.value < 0
    assert cp.draw_sample(probabilities, seed=1).shape == (4,)
    assert cp.power_of_gain(200, 0.1, 0.2) > 0.5
    assert cp.labels_for_gain(0.1, 0.2) is not None
    assert cp.labels_for_half_width(cp.plausible_shares([10, 10, 0, 0]), 0.1) > 0
    assert cp.labels_for_half_width([0.4, 0.4, 0.1, 0.1], 0.1) > 50


def test_the_exported_judge() -> None:
    abstention = cp.Abstention(0.8, 0.5, n_calibration=60, n_decided=30, n_errors=0, risk_bound=0.09)
    exported = document(abstention=vars(abstention))
    with pytest.warns(UserWarning, match="the certificate does not hold"):
        judge: cp.CalibratedJudge = cp.CalibratedJudge(exported, judge=ClauseJudge())
    scored: pd.DataFrame = judge.score([{"query": "q", "output": "a"}])

    assert list(scored["llm_score"]) == [1]
    assert judge.criteria == "Score 1 if right"
