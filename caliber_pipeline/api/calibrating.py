"""Goes round in memory: evaluate, propose, evaluate the proposal, decide on dev; each by the pipeline's own stage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pandas as pd

from caliber_pipeline.api.iterating import CalibrationOutcome, CalibrationRound, OnRound
from caliber_pipeline.api.optimization import OptimizationResult
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.core import optimized_criteria as core
from caliber_pipeline.core.annotations import fingerprint_annotations
from caliber_pipeline.core.criteria import Criteria, next_version
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.gate import Comparison, compare_versions
from caliber_pipeline.core.human_ceiling import compute_people_metrics
from caliber_pipeline.core.judge_scores import count_labelled_groups, place_verdicts
from caliber_pipeline.core.labels import resolve_labels
from caliber_pipeline.core.loop import data_fingerprint
from caliber_pipeline.core.proposal_checks import select_guarded
from caliber_pipeline.core.proposals import ProposalRequest, TrainEvidence
from caliber_pipeline.core.records import FINGERPRINTED
from caliber_pipeline.core.stopping import Decision, LoopSettings, find_stop, measure_alignment
from caliber_pipeline.encoders.protocol import Encoder
from caliber_pipeline.judges.language_model import LanguageModel
from caliber_pipeline.judges.protocol import Judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline.strategies import Choice, Strategy, choose_next, refuse_twin
from caliber_pipeline.strategies.crossfitting import compare_cross_fitted, settle
from caliber_pipeline.strategies.evidence import find_patterns, gather_evidence
from caliber_pipeline.strategies.train_judge import TrainJudge

FIRST_VERSION: Final = "v001"


@dataclass(frozen=True)
class Bench:
    """What the loop works with.

    Attributes:
        records: Of the `records` schema.
        annotations: Of the `annotations` schema.
        judge: Who judges.
        cache: Where verdicts are kept.
        encoder: Of notes and records.
        model: The language model that proposes; None where rules do.
        evaluate: Judges the labelled records under criteria, those of test too where told so.
        build_strategies: Who proposes, given the judge that tries proposals.
        settings: When the loop ends.
    """

    records: pd.DataFrame
    annotations: pd.DataFrame
    judge: Judge
    cache: VerdictCache
    encoder: Encoder
    model: LanguageModel | None
    evaluate: Callable[[Criteria, bool], Awaitable[EvaluationResult]]
    build_strategies: Callable[[TrainJudge], Sequence[Strategy]]
    settings: LoopSettings


class Calibration:
    """One run of the loop."""

    def __init__(self, start: Criteria, bench: Bench) -> None:
        """Begin with criteria.

        Raises:
            InputError: a strategy is unknown.
            JudgeError: one needs a language model that cannot be had.
        """
        self._bench = bench
        self._labels = resolve_labels(bench.annotations)
        self._data = {  # all rounds see the same
            "records_fingerprint": fingerprint_frame(bench.records, FINGERPRINTED),
            "annotations_fingerprint": fingerprint_annotations(bench.annotations),
        }
        self._n_groups = count_labelled_groups(bench.records, self._labels)
        bench.build_strategies(self._open_train_judge())  # what they lack is found out before anything is paid for
        self._versions = {FIRST_VERSION: start}
        self._rounds: dict[str, CalibrationRound] = {}
        self._patterns: pd.DataFrame | None = None

    async def run(self, on_round: OnRound | None = None) -> CalibrationOutcome:
        """Go round until judge and people are aligned or nothing better is found.

        Args:
            on_round: Called with each round as soon as it is decided.
        """
        version = FIRST_VERSION
        while True:
            judge = self._open_train_judge()
            result = await self._bench.evaluate(self._versions[version], version == FIRST_VERSION)
            decision = await asyncio.to_thread(self._decide, version, result, judge)
            spent = core.measure_effort(result.judge_scores)
            if decision.decision == "promoted":  # the gate has decided: now test may be looked at
                result = await self._bench.evaluate(self._versions[version], True)
                spent = core.add_effort(spent, core.measure_effort(result.judge_scores))
            stop_reason = self._find_stop(version, result, decision)
            choice = None
            if stop_reason is None:
                choice = await self._choose(version, result, decision, judge)
                stop_reason = choice.reason
            effort = self._measure(version, result, decision, choice, judge, spent)
            current = self._record(version, result, decision, choice, stop_reason, effort)
            self._rounds[version] = current
            if on_round is not None:
                on_round(current)
            if stop_reason is not None:
                return CalibrationOutcome(tuple(self._rounds.values()), decision.champion, stop_reason)
            version = next_version(list(self._versions))
            self._versions[version] = current.proposal.version if current.proposal else current.criteria

    @property
    def _decided(self) -> dict[str, pd.DataFrame]:
        return {version: each.row for version, each in self._rounds.items()}

    def _result(self, version: str, current: EvaluationResult) -> EvaluationResult:
        """A version's evaluation, where the current one has no round yet."""
        return self._rounds[version].result if version in self._rounds else current

    def _open_train_judge(self) -> TrainJudge:
        bench = self._bench
        return TrainJudge(bench.records, self._labels, lambda _: bench.judge, lambda: nullcontext(bench.cache))

    def _decide(self, version: str, result: EvaluationResult, judge: TrainJudge) -> Decision:
        criteria, settings = self._versions[version], self._bench.settings
        champion = core.current_champion(self._decided)
        base = core.select_base(version, criteria, list(self._versions), champion)
        comparison, is_simpler = None, False
        if base is not None:
            scored = self._rounds[base].result.scored
            comparison = compare_versions(scored, result.scored, n_all_groups=self._n_groups)
            is_simpler = core.is_simpler(criteria, self._versions[base])
        decision = core.decide_version(version, base, champion, comparison, None, settings, is_simpler=is_simpler)
        strategy = core.strategy_of(version, self._decided)
        return settle(version, decision, strategy, settings, lambda base: self._cross_fit(base, criteria.round, judge))

    def _cross_fit(self, base: str, round_: int, judge: TrainJudge) -> Comparison:
        """In a thread of its own, where no event loop runs."""
        bench = self._bench
        scored = self._rounds[base].result.scored
        comparing = compare_cross_fitted(
            scored,
            bench.records,
            ProposalRequest(self._versions[base], base, self._gather(scored), round_, bench.judge.max_examples),
            bench.build_strategies(judge),
            bench.encoder,
            judge,
            n_all_groups=self._n_groups,
        )
        return asyncio.run(comparing)

    def _find_stop(self, version: str, result: EvaluationResult, decision: Decision) -> str | None:
        champion = self._result(decision.champion, result)
        verdicts = place_verdicts(champion.judge_scores, self._bench.records)
        people = compute_people_metrics(self._bench.annotations, verdicts)
        metrics = pd.concat([champion.alignment_metrics, people], ignore_index=True)
        alignment = measure_alignment(champion.scored, metrics)
        data, settings = data_fingerprint(self._data), self._bench.settings
        return find_stop(decision, self._versions[version], alignment, self._n_groups, self._decided, data, settings)

    async def _choose(self, version: str, result: EvaluationResult, decision: Decision, judge: TrainJudge) -> Choice:
        bench, champion = self._bench, decision.champion
        evidence = await asyncio.to_thread(self._gather, self._result(champion, result).scored)
        request = ProposalRequest(
            self._versions[champion],
            champion,
            evidence,
            self._versions[version].round + 1,
            bench.judge.max_examples,
            core.select_earlier(decision, version, self._versions, self._decided),
        )
        guarded = select_guarded(bench.records, self._labels)
        choice = await choose_next(bench.build_strategies(judge), request, guarded, judge)
        judge.model_usage += choice.usage
        return refuse_twin(choice, self._versions)

    def _gather(self, scored: pd.DataFrame) -> TrainEvidence:
        bench = self._bench
        if self._patterns is None:  # the notes are the same in every round
            self._patterns = find_patterns(self._labels, bench.records, bench.encoder)
        return gather_evidence(scored, bench.records, self._patterns, bench.encoder)

    def _measure(
        self,
        version: str,
        result: EvaluationResult,
        decision: Decision,
        choice: Choice | None,
        judge: TrainJudge,
        spent: tuple[int, float | None],
    ) -> core.Evaluation:
        """What the evaluation cost, and what its figures are worth."""
        n_calls, cost = spent
        corrected = None
        if decision.decision == "promoted":
            scored = {name: each.result.scored for name, each in self._rounds.items()}
            corrected = core.correct_kappa({**scored, version: result.scored}, version)
        is_reported = core.is_test_reported(decision.decision)
        n_looks = sum(each.is_test_reported for each in self._rounds.values()) + is_reported
        effort = core.Evaluation(corrected, n_calls, cost, n_test_looks=n_looks)
        candidates = choice.candidates if choice is not None else ()
        return effort.with_proposing(candidates, (judge.n_calls, judge.cost_usd), judge.model_usage)

    def _record(
        self,
        version: str,
        result: EvaluationResult,
        decision: Decision,
        choice: Choice | None,
        stop_reason: str | None,
        effort: core.Evaluation,
    ) -> CalibrationRound:
        criteria = self._versions[version]
        proposal = choice.proposal if choice is not None and stop_reason is None else None
        next_name = next_version(list(self._versions)) if proposal else None
        now = datetime.now(UTC)
        row = core.build_row(version, criteria, decision, proposal, next_name, stop_reason, now, effort)
        row.attrs |= self._data | {"criteria_fingerprint": criteria.fingerprint, "evaluated_at": now.isoformat()}
        proposed = None
        if proposal is not None:
            champion = self._versions[decision.champion]
            proposed = OptimizationResult.from_proposal(champion, proposal, self._bench.model)
        return CalibrationRound(version, criteria, result, row, proposed)
