import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeError, MissingStepError
from caliber_pipeline_tests.api.clause_judge import ClauseJudge, make_flawed_rows, make_session, unlabelled
from caliber_pipeline_tests.api.word_encoder import WordEncoder


def state_of(session: CalibrationSession) -> str:
    return session.state.value


def test_goes_through_its_states() -> None:
    session = CalibrationSession()
    assert state_of(session) == "upload"
    session.upload_records(unlabelled())
    assert state_of(session) == "annotate"
    for record in session.records:
        session.annotate(record.record_id, 1, "fine")
    assert session.is_annotation_complete()
    assert state_of(session) == "evaluate"
    result = session.evaluate_sync("be right", llm_provider="recorded")
    assert state_of(session) == "complete"
    assert session.get_evaluation_result() is result
    assert result.metrics.accuracy == 1.0
    assert len(session.session_id) == 32
    assert repr(session) == f"CalibrationSession('{session.session_id}', state='complete', records=3)"


def test_judges_only_what_is_annotated() -> None:
    session = make_session(unlabelled())
    session.annotate("r1", 0, "bad")

    result = session.evaluate_sync("be right", llm_provider="recorded")

    assert [record.record_id for record in result.records] == ["r1"]


def test_walks_through_the_records() -> None:
    session = make_session(unlabelled())

    session.annotate("r0", 1)
    following = session.get_next_unannotated()
    assert following is not None
    assert following.record_id == "r1"
    assert session.get_record_for_annotation(2).record_id == "r2"
    state = session.get_annotation_state()
    assert (state.annotated, state.remaining, state.current_index) == (1, 2, 2)


def steps(session: CalibrationSession) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    return [
        ("evaluate", lambda: session.evaluate("c", llm_provider="recorded")),
        ("discover patterns", lambda: session.discover_patterns()),
        ("analyse misalignments", lambda: session.analyze_misalignments()),
        ("optimise the criteria", lambda: session.optimize_prompt()),
        ("iterate", lambda: session.iterate("c")),
    ]


def run(step: Callable[[], Awaitable[object]]) -> None:
    async def call() -> None:
        await step()

    asyncio.run(call())


def test_names_the_step_that_is_missing() -> None:
    empty, unannotated = CalibrationSession(), make_session(unlabelled())
    for name, step in steps(empty):
        with pytest.raises(MissingStepError, match=f"cannot {name} yet: upload records first"):
            run(step)
    for name, step in steps(unannotated):
        with pytest.raises(MissingStepError, match=f"cannot {name} yet: annotate records first"):
            run(step)
    unannotated.annotate("r0", 1)
    for name, step in steps(unannotated)[2:4]:
        with pytest.raises(MissingStepError, match=f"cannot {name} yet: evaluate first"):
            run(step)
    with pytest.raises(MissingStepError, match="cannot annotate yet: upload records first"):
        empty.annotate("r0", 1)
    with pytest.raises(MissingStepError, match="cannot select examples yet"):
        empty.select_examples()
    with pytest.raises(MissingStepError, match="cannot export yet"):
        empty.export("nowhere")
    assert empty.get_evaluation_result() is None


def test_a_named_provider_without_a_key_is_an_error_and_no_substitute() -> None:
    session = CalibrationSession()
    session.upload_records(make_flawed_rows(4))

    with pytest.raises(JudgeError, match="no key for provider 'openai'"):
        session.evaluate_sync("c", llm_provider="openai")


def test_uploading_again_keeps_only_what_still_holds() -> None:
    session = make_session(unlabelled())
    session.annotate("r0", 1, "by hand")
    session.annotate("r1", 0)
    session.evaluate_sync("c")
    changed = [*unlabelled(1), {"id": "r1", "query": "q1", "output": "another answer"}, *unlabelled(4)[3:]]

    session.upload_records(changed)

    assert session.annotation_manager.get_annotations_dict() == {"r0": 1}
    assert session.get_evaluation_result() is None
    session.upload_records(changed)
    assert session.annotation_manager.get_annotations_dict() == {"r0": 1}  # the second time, too
    session.upload_records([{**unlabelled(1)[0], "judgment": 0}])
    assert session.annotation_manager.get_annotations_dict() == {"r0": 0}
    session.upload_records(unlabelled(1))
    assert session.annotations == []  # what came with a file goes with it


def test_a_new_annotation_drops_what_rested_on_the_old_ones() -> None:
    session = make_session()
    asyncio.run(_all_steps(session))
    assert None not in (session.patterns, session.analysis, session.proposal)

    session.annotate("r000", 1)

    assert session.get_evaluation_result() is None
    assert (session.patterns, session.analysis, session.proposal) == (None, None, None)
    session.evaluate_sync("be right")
    session.annotation_manager.undo()
    assert session.get_evaluation_result() is None
    assert session.state.value == "evaluate"


def test_evaluating_again_asks_only_what_is_new() -> None:
    judge = ClauseJudge()
    session = make_session(unlabelled(), judge)
    session.annotate("r0", 1)
    session.evaluate_sync("c")
    session.annotate("r1", 1)
    session.evaluate_sync("c")
    restored = CalibrationSession.from_dict(session.to_dict(), judge=judge)

    assert restored.evaluate_sync("c").metrics.n == 2
    assert judge.asked == ["r0", "r1"]


def test_what_is_made_of_data_that_changes_meanwhile_is_returned_and_not_kept() -> None:
    async def change_while(step: Callable[[CalibrationSession], Awaitable[object]], change: str) -> CalibrationSession:
        session = make_session()
        await session.evaluate("be right")
        waiting = asyncio.ensure_future(step(session))
        await asyncio.sleep(0)  # the step has begun
        if change == "annotate":
            session.annotate("r000", 1)
        else:
            session.upload_records(unlabelled())
        assert await waiting is not None
        return session

    steps: list[Callable[[CalibrationSession], Awaitable[object]]] = [
        lambda session: session.evaluate("be kind"),
        lambda session: session.discover_patterns(),
        lambda session: session.analyze_misalignments(),
        lambda session: session.optimize_prompt(),
        lambda session: session.iterate("be kind", max_iterations=1),
    ]
    for step in steps:
        for change, state in (("annotate", "evaluate"), ("upload", "annotate")):
            session = asyncio.run(change_while(step, change))
            kept = (session.get_evaluation_result(), session.patterns, session.analysis, session.proposal)
            assert (*kept, session.outcome) == (None,) * 5
            assert session.state.value == state


def test_an_evaluation_in_between_is_not_mixed_with_the_analysis_of_the_one_before() -> None:
    async def evaluate_while_analysing() -> CalibrationSession:
        session = make_session()
        await session.evaluate("be right")
        waiting = asyncio.ensure_future(session.analyze_misalignments())
        await asyncio.sleep(0)
        await session.evaluate("be kind")
        await waiting
        return session

    session = asyncio.run(evaluate_while_analysing())

    assert session.analysis is None
    assert session.state.value == "complete"


async def _all_steps(session: CalibrationSession) -> None:
    await session.evaluate("be right")
    await session.discover_patterns()
    await session.analyze_misalignments()
    await session.optimize_prompt()


def test_learns_from_the_judges_errors() -> None:
    session = make_session(make_flawed_rows(100))

    asyncio.run(_all_steps(session))

    patterns, analysis, proposal = session.patterns, session.analysis, session.proposal
    assert patterns is not None
    assert analysis is not None
    assert proposal is not None
    assert sum(pattern.count for pattern in patterns.patterns) + len(patterns.uncategorized) == 50 + 50
    assert len(analysis.false_positives) == 50
    assert {len(finding.record_ids) for finding in analysis.findings} == {25}
    # only the errors on train may be used
    train = {record.record_id for record in _result(session).records if record.split == "train"}
    used = {record_id for suggestion in proposal.suggestions for record_id in suggestion.record_ids}
    assert used
    assert used | set(proposal.example_ids) <= train
    better = session.evaluate_sync(proposal.version)
    assert better.metrics.accuracy == 1.0


def _result(session: CalibrationSession) -> EvaluationResult:
    result = session.get_evaluation_result()
    assert result is not None
    return result


def test_selects_examples_by_what_it_knows() -> None:
    session = make_session()
    assert session.select_examples(4).strategy_used == "balanced"
    session.discover_patterns_sync()
    assert session.select_examples(4).strategy_used == "pattern_aware"
    session.evaluate_sync("c")
    selection = session.select_examples(6, seed=3)
    assert selection.strategy_used == "misalignment_guided"
    assert selection.metadata["false_positives_selected"] == 2
    assert selection == session.select_examples(6, seed=3)
    assert session.select_examples(2, "balanced", eval_results=[]).metadata == {"accepts": 1, "rejects": 1}


def test_takes_criteria_with_clauses_and_examples() -> None:
    session = make_session()
    session.evaluate_sync("be right")
    proposal = session.optimize_prompt_sync(max_examples=4)

    result = session.evaluate_sync(proposal.version, examples=["r000"])

    assert result.example_ids == ["r000"]
    assert result.criteria.clauses == proposal.version.clauses


def test_saves_and_loads(tmp_path: Path) -> None:
    session = make_session()
    asyncio.run(_all_steps(session))

    path = session.save(tmp_path / "deep" / "session.json")
    restored = CalibrationSession.load(path)

    assert restored.to_dict() == session.to_dict()
    assert restored.state == "complete"
    assert CalibrationSession.from_state(json.loads(json.dumps(session.to_state()))).to_state() == session.to_state()
    assert [p.name for p in path.parent.iterdir()] == ["session.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}', '{"format": 1}', '{"format": 1, "session_id": "s"}'])
def test_refuses_what_is_no_session(content: str, tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text(content)

    with pytest.raises(InputError, match="session"):
        CalibrationSession.load(path)
    with pytest.raises(InputError, match="cannot be read as a session"):
        CalibrationSession.load(tmp_path / "nothing.json")


def test_reads_files_and_frames(tmp_path: Path) -> None:
    pd.DataFrame(make_flawed_rows(4)).to_csv(tmp_path / "r.csv", index=False)
    from_file, from_frame = CalibrationSession(), CalibrationSession()

    uploaded = from_file.upload_csv(tmp_path / "r.csv")
    from_frame.upload_dataframe(pd.read_csv(tmp_path / "r.csv"))

    assert uploaded.total_count == 4
    assert from_file.records == from_frame.records
    assert from_file.annotations[0].notes == "date does not match our calendar at all"


def test_exports_what_the_pipeline_reads(tmp_path: Path) -> None:
    from caliber_pipeline.core.annotations import parse_annotations
    from caliber_pipeline.stores.criteria_files import CriteriaFiles
    from caliber_pipeline.stores.input_files import load_rows

    session = make_session()
    session.annotate("r001", 0, "no", annotator="ann")
    asyncio.run(_all_steps(session))

    written = session.export(tmp_path)

    assert [path.name for path in written] == ["records.csv", "annotations.csv", "v001.yaml", "v002.yaml"]
    again = CalibrationSession()
    table = again.upload_csv(tmp_path / "records.csv").table
    rows = load_rows(tmp_path / "annotations.csv")
    parsed = parse_annotations(rows.table, rows.lines, table["record_id"], source="annotations.csv")
    assert list(parsed.table["annotator"]) == ["ann"]
    assert again.annotation_manager.get_annotations_dict() == session.annotation_manager.get_annotations_dict()
    assert list(table["split"]) == [r.split for r in _result(session).records]
    criteria = CriteriaFiles(tmp_path / "criteria").load_all().valid
    assert session.proposal is not None
    assert criteria["v002"].clauses == session.proposal.version.clauses
    assert (criteria["v001"].base, criteria["v002"].base) == (None, "v001")
    assert session.export(tmp_path) == written  # the same again changes nothing
    session.evaluate_sync("other criteria")
    with pytest.raises(InputError, match=r"v001\.yaml: there are other criteria already"):
        session.export(tmp_path)


def test_ten_thousand_records_with_recorded_verdicts_take_under_two_seconds() -> None:
    rows = [{**row, "score": i % 2} for i, row in enumerate(make_flawed_rows(10_000))]
    session = CalibrationSession()
    session.upload_records(rows)

    start = time.process_time()
    result = session.evaluate_sync("be right", llm_provider="recorded")
    _ = result.metrics, result.records

    assert len(result.records) == 10_000
    assert time.process_time() - start < 2


class SessionMachine(RuleBasedStateMachine):
    """Whatever was done, a session that went through JSON is the same session."""

    def __init__(self) -> None:
        super().__init__()
        self.session = CalibrationSession("s", judge=ClauseJudge(), encoder=WordEncoder())

    @rule(n=st.integers(1, 30), labelled=st.booleans())
    def upload(self, n: int, labelled: bool) -> None:
        rows = [{**row, "team": "red", "reference": " a "} for row in make_flawed_rows(n)]
        for row in rows:
            row["notes"] = row["notes"] and f" {row['notes']} "
        self.session.upload_records(rows if labelled else [{**row, "judgment": None, "notes": None} for row in rows])

    @precondition(lambda self: self.session.records)
    @rule(at=st.integers(0, 29), score=st.integers(0, 1), annotator=st.sampled_from([None, "ann", "bob"]))
    def annotate(self, at: int, score: int, annotator: str | None) -> None:
        records = self.session.records
        self.session.annotate(records[at % len(records)].record_id, score, "the date is wrong", annotator)

    @precondition(lambda self: self.session.annotation_manager.get_annotations_dict())
    @rule(criteria=st.sampled_from(["be right", "be kind"]))
    def evaluate(self, criteria: str) -> None:
        self.session.evaluate_sync(criteria)

    @precondition(lambda self: self.session.get_evaluation_result())
    @rule()
    def learn(self) -> None:
        asyncio.run(_learn(self.session))

    @precondition(lambda self: self.session.annotation_manager.get_annotations_dict())
    @rule()
    def iterate(self) -> None:
        self.session.iterate_sync("be right", max_iterations=0)

    @invariant()
    def survives_json(self) -> None:
        data = self.session.to_dict()
        parsed = json.loads(json.dumps(data))
        assert parsed == data
        restored = CalibrationSession.from_dict(parsed, judge=ClauseJudge())
        assert restored.to_dict() == data
        assert restored.state == self.session.state
        restored._encoder = WordEncoder()
        self.session = restored


async def _learn(session: CalibrationSession) -> None:
    await session.discover_patterns()
    await session.analyze_misalignments()
    await session.optimize_prompt(max_examples=4)


SessionMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=8)
test_sessions_survive_json_at_every_state = SessionMachine.TestCase


def test_criteria_may_be_a_version() -> None:
    result = make_session().evaluate_sync(Criteria(criteria="be right", system_prompt="judge"))

    assert (result.config.criteria, result.config.system_prompt) == ("be right", "judge")


def test_an_upload_without_a_record_is_no_upload() -> None:
    session = CalibrationSession()
    uploaded = session.upload_records([{"query": "", "output": "a"}])

    assert len(uploaded.rejected) == 1
    assert session.state.value == "upload"
    with pytest.raises(MissingStepError, match=r"none of those given is one \(records: line 1: query is blank\)"):
        session.annotate("r0", 1)


def test_odd_calls_have_one_clear_line(tmp_path: Path) -> None:
    session = make_session(unlabelled())
    calls: list[tuple[str, Callable[[], object]]] = [
        ("got NoneType among the records", lambda: session.upload_records(None)),  # type: ignore[arg-type]
        ("got a list; give a pandas DataFrame", lambda: session.upload_dataframe([])),  # type: ignore[arg-type]
        ("the annotation of 'r1': notes: 'utf-8' codec", lambda: session.annotate("r1", 1, "\ud800")),
        ("examples is 'r1'; give a list", lambda: session.evaluate_sync("c", examples="r1")),
        ("max_iterations is -1", lambda: session.iterate_sync("c", max_iterations=-1)),
        ("cannot be written", lambda: session.save(tmp_path)),
        ("cannot be written", lambda: CalibrationSession("\ud800").save(tmp_path / "s.json")),
        ("cannot be written to", lambda: session.export(tmp_path / "file")),
    ]
    (tmp_path / "file").touch()
    session.annotate("r0", 1)
    for message, call in calls:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert CalibrationSession(5).session_id == "5"  # type: ignore[arg-type]


def test_errors_beside_train_make_no_proposal_and_it_says_so() -> None:
    rows = [row for row in make_flawed_rows(12) if row["judgment"] == 0]
    session = make_session(rows)
    result = session.evaluate_sync("be right")
    aside = [row for row in rows if row["id"] in {r.record_id for r in result.misaligned if r.split != "train"}]
    session.upload_records(aside)
    session.evaluate_sync("be right")

    proposal = session.optimize_prompt_sync()

    assert not proposal.has_changed
    assert proposal.summary.startswith(f"The judge errs on no record of train; its errors on the others ({len(aside)})")
