"""One calibration from upload to better criteria, with its state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from caliber_pipeline.api.analysis import MisalignmentAnalysis, MisalignmentAnalyzer
from caliber_pipeline.api.asking import MAX_EXAMPLES
from caliber_pipeline.api.discovery_results import ClusteringMethod, PatternDiscoveryResult
from caliber_pipeline.api.evaluation import build_config, evaluate_table
from caliber_pipeline.api.iterating import CalibrationOutcome, OnRound, first_version
from caliber_pipeline.api.judging import (
    DEFAULT_MODEL,
    LOCAL,
    find_judge,
    open_judge,
    open_language_model,
)
from caliber_pipeline.api.optimization import OptimizationResult, PromptOptimizer
from caliber_pipeline.api.records import UploadedRecord
from caliber_pipeline.api.results import EvaluationResult
from caliber_pipeline.api.running import OnProgress, run_sync
from caliber_pipeline.api.selection import DEFAULT_COUNT, ExampleSelector, SelectionResult
from caliber_pipeline.api.session_storage import SessionStorage
from caliber_pipeline.core.arguments import FUNCTION, INTEGER, ITEMS, NUMBER, accepts
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Criteria
from caliber_pipeline.core.errors import InputError, JudgeError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.fields import Item
    from caliber_pipeline.core.example_selection import SelectionStrategy
    from caliber_pipeline.judges.language_model import LanguageModel
    from caliber_pipeline.judges.protocol import Judge


class CalibrationSession(SessionStorage):
    """Upload records, annotate them, evaluate a judge, learn from its errors, improve its criteria.

    A step that is asked for too early raises `MissingStepError` with the step that is missing. What rests on data that
    changes is dropped: a new annotation drops evaluation, patterns, analysis and proposal, and what is made of the old
    ones meanwhile is returned and not kept. Evaluating again asks the judge only about what it was not asked before.
    """

    async def evaluate(
        self,
        criteria: str | Criteria = DEFAULT_CRITERIA,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        examples: Iterable[Item] | SelectionResult[Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvaluationResult:
        """Have a judge score the annotated records.

        Args:
            criteria: What the judge is told; a proposal's `version` brings its clauses and examples along.
            model_name: The model of an endpoint.
            llm_provider: A provider's name, 'local' or 'recorded'; None takes the provider whose key the environment
                has, else 'local'.
            system_prompt: What the model is told before.
            examples: What it is shown: records with labels, ids of annotated records, or what `select_examples` chose.
            on_progress: Called with (records done, records in all) as verdicts arrive.

        Raises:
            MissingStepError: there are no records, or none is annotated.
            JudgeError: the judge as a whole cannot work.
        """
        upload = self._need_annotations("evaluate")
        config = build_config(criteria, model_name, llm_provider, system_prompt, examples)
        judge, annotations = self._open_judge(llm_provider, model_name), self._content.manager.table()
        made_from = self._made_from()
        evaluation = await evaluate_table(
            upload.table, annotations, config, judge, cache=self._open_cache(), on_progress=on_progress
        )
        if made_from == self._made_from():
            self._content.evaluation = evaluation
            self._content.analysis = self._content.proposal = None
        return evaluation

    def evaluate_sync(
        self,
        criteria: str | Criteria = DEFAULT_CRITERIA,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        examples: Iterable[Item] | SelectionResult[Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvaluationResult:
        """`evaluate`, without awaiting."""
        return run_sync(self.evaluate(criteria, model_name, llm_provider, system_prompt, examples, on_progress))

    def get_evaluation_result(self) -> EvaluationResult | None:
        """The last evaluation, None before the first and after what it rested on changed."""
        return self._still_valid(self._content.evaluation)

    async def discover_patterns(
        self,
        method: ClusteringMethod | str = ClusteringMethod.HDBSCAN,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
    ) -> PatternDiscoveryResult:
        """Find the themes in people's notes.

        Args:
            method: How; 'llm' and 'hybrid' ask a language model.
            model_name: The language model.
            llm_provider: Its provider; None takes the one whose key the environment has.

        Raises:
            MissingStepError: there are no records, or none is annotated.
            InputError: the method lacks its language model or its package.
        """
        from caliber_pipeline.api.discovery import PatternDiscovery

        self._need_annotations("discover patterns")
        needs_model = str(method).lower() in {ClusteringMethod.LLM, ClusteringMethod.HYBRID}
        model = open_language_model(llm_provider, model_name) if needs_model else None
        labels = self._labels()
        decided = labels.loc[labels["human_score"].notna(), ["record_id", "human_score", "human_notes"]]
        discovery = PatternDiscovery(encoder=self._open_encoder(), model=model)
        made_from = self._made_from()
        patterns = await discovery.discover(decided.astype(object), method)
        if made_from == self._made_from():
            self._content.patterns = patterns
        return patterns

    async def analyze_misalignments(
        self,
        max_examples: int = MAX_EXAMPLES,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
    ) -> MisalignmentAnalysis:
        """Find out what the judge's errors have in common; see `MisalignmentAnalyzer`.

        Raises:
            MissingStepError: there is no evaluation.
        """
        evaluation = self._need_evaluation("analyse misalignments")
        analyzer = MisalignmentAnalyzer(
            model_name, llm_provider, max_examples=max_examples, encoder=self._open_encoder()
        )
        analysis = await analyzer.analyze(evaluation, evaluation.criteria.full_text, patterns=self.patterns)
        if self.get_evaluation_result() is evaluation:
            self._content.analysis = analysis
        return analysis

    async def optimize_prompt(
        self,
        max_examples: int = MAX_EXAMPLES,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
    ) -> OptimizationResult:
        """Propose better criteria from the errors on train; dev and test stay unseen, to judge the proposal by.

        See `PromptOptimizer`.

        Raises:
            MissingStepError: there is no evaluation.
        """
        evaluation = self._need_evaluation("optimise the criteria")
        optimizer = PromptOptimizer(model_name, llm_provider, max_examples=max_examples, encoder=self._open_encoder())
        train = evaluation.on_split("train")
        proposal = await optimizer.optimize(train, evaluation.criteria)
        if not train.misaligned and evaluation.misaligned:
            n = len(evaluation.misaligned)
            told = (
                f"The judge errs on no record of train; its errors on the others ({n}) are there to judge proposals by."
            )
            proposal = replace(proposal, summary=told)
        if self.get_evaluation_result() is evaluation:
            self._content.proposal = proposal
        return proposal

    def select_examples(
        self,
        count: int = DEFAULT_COUNT,
        strategy: SelectionStrategy | str | None = None,
        eval_results: EvaluationResult | Iterable[Item] | None = None,
        patterns: Iterable[Item] | PatternDiscoveryResult | None = None,
        seed: int | None = None,
    ) -> SelectionResult[UploadedRecord]:
        """Choose annotated records to show the judge; see `ExampleSelector.select`.

        Verdicts and patterns are the session's own where none are given.

        Raises:
            MissingStepError: there are no records, or none is annotated.
        """
        self._need_annotations("select examples")
        known = patterns if patterns is not None else self.patterns
        verdicts = eval_results if eval_results is not None else self.get_evaluation_result()
        return ExampleSelector(seed).select(
            self.records, self._content.manager.get_annotations_dict(), count, strategy, verdicts, known
        )

    @accepts(max_iterations=INTEGER, kappa_target=NUMBER, strategies=ITEMS.or_none, on_round=FUNCTION.or_none)
    async def iterate(
        self,
        criteria: str | Criteria | None = None,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        *,
        max_iterations: int = 3,
        kappa_target: float = 0.6,
        strategies: Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> CalibrationOutcome:
        """Evaluate, learn from the errors on train, propose, evaluate again, decide on dev; until aligned or stuck.

        Where there are too few groups of labelled records to decide, nothing is proposed and the outcome says so. The
        session's evaluation afterwards is the champion's.

        Args:
            criteria: Where to start; None takes those of the last evaluation, else a general default.
            model_name: The judge's model, and the language model that proposes.
            llm_provider: As in `evaluate`.
            system_prompt: What the judge is told before.
            max_iterations: Proposals at most; 0 only evaluates.
            kappa_target: Cohen's kappa on dev from which judge and people count as aligned.
            strategies: Who proposes: of 'rules', 'examples', 'rewrite', 'gepa'. None takes 'rewrite' with a language
                model and 'rules' without; several proposals are tried on part of train first.
            on_progress: Called with (records done, records in all) as verdicts of a round arrive.
            on_round: Called with each round when it is decided.

        Raises:
            MissingStepError: there are no records, or none is annotated.
            InputError: a strategy is unknown, or a number out of its range.
            JudgeError: judge or language model cannot work.
        """
        from caliber_pipeline.api.calibrating import Bench, Calibration
        from caliber_pipeline.core.stopping import LoopSettings
        from caliber_pipeline.strategies import build_strategies

        upload = self._need_annotations("iterate")
        if max_iterations < 0 or not -1 < kappa_target <= 1:
            raise InputError(
                f"max_iterations is {max_iterations}, kappa_target {kappa_target}; give 0 or more, and up to 1"
            )
        start = first_version(criteria, system_prompt, self.get_evaluation_result())
        judge, annotations = self._open_judge(llm_provider, model_name), self._content.manager.table()
        model = open_language_model(llm_provider, model_name)
        names = strategies or ("rules" if model is None else "rewrite",)

        def require_model() -> LanguageModel:
            if model is None:
                raise JudgeError(
                    f"strategies {list(names)} ask a language model: name its llm_provider and set its key"
                )
            return model

        async def evaluate(version: Criteria, with_test: bool) -> EvaluationResult:
            config = build_config(version, model_name, llm_provider, None, None)
            cache = self._open_cache()
            return await evaluate_table(
                upload.table, annotations, config, judge, cache=cache, on_progress=on_progress, with_test=with_test
            )

        bench = Bench(
            records=upload.table,
            annotations=annotations,
            judge=judge,
            cache=self._open_cache(),
            encoder=self._open_encoder(),
            model=model,
            evaluate=evaluate,
            build_strategies=lambda tried: build_strategies(names, require_model, tried.judge),
            settings=LoopSettings(kappa_target=kappa_target, max_iterations=max_iterations),
        )
        made_from = self._made_from()
        outcome = await Calibration(start, bench).run(on_round)
        if made_from == self._made_from():
            self._content.outcome, self._content.evaluation = outcome, outcome.best.result
            self._content.analysis, self._content.proposal = None, outcome.best.proposal
        return outcome

    def discover_patterns_sync(
        self,
        method: ClusteringMethod | str = ClusteringMethod.HDBSCAN,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
    ) -> PatternDiscoveryResult:
        """`discover_patterns`, without awaiting."""
        return run_sync(self.discover_patterns(method, model_name, llm_provider))

    def analyze_misalignments_sync(
        self, max_examples: int = MAX_EXAMPLES, model_name: str = DEFAULT_MODEL, llm_provider: str | None = None
    ) -> MisalignmentAnalysis:
        """`analyze_misalignments`, without awaiting."""
        return run_sync(self.analyze_misalignments(max_examples, model_name, llm_provider))

    def optimize_prompt_sync(
        self, max_examples: int = MAX_EXAMPLES, model_name: str = DEFAULT_MODEL, llm_provider: str | None = None
    ) -> OptimizationResult:
        """`optimize_prompt`, without awaiting."""
        return run_sync(self.optimize_prompt(max_examples, model_name, llm_provider))

    def iterate_sync(
        self,
        criteria: str | Criteria | None = None,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        *,
        max_iterations: int = 3,
        kappa_target: float = 0.6,
        strategies: Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> CalibrationOutcome:
        """`iterate`, without awaiting."""
        return run_sync(
            self.iterate(
                criteria,
                model_name,
                llm_provider,
                system_prompt,
                max_iterations=max_iterations,
                kappa_target=kappa_target,
                strategies=strategies,
                on_progress=on_progress,
                on_round=on_round,
            )
        )

    def _labels(self) -> pd.DataFrame:
        from caliber_pipeline.core.labels import resolve_labels

        return resolve_labels(self._content.manager.table())

    def _open_judge(self, llm_provider: str | None, model_name: str) -> Judge:
        if self._judge is not None:
            return self._judge
        provider, model = find_judge(llm_provider, model_name)
        if provider == LOCAL:
            from caliber_pipeline.judges.local import LocalJudge

            return LocalJudge(self._open_encoder())
        return open_judge(provider, model)
