"""One calibration from upload to better criteria, with its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caliber_pipeline.api.analysis import MisalignmentAnalysis, MisalignmentAnalyzer
from caliber_pipeline.api.asking import MAX_EXAMPLES
from caliber_pipeline.api.discovery_results import ClusteringMethod, PatternDiscoveryResult
from caliber_pipeline.api.evaluation import build_config, evaluate_table
from caliber_pipeline.api.iterating import CalibrationOutcome, CalibrationRound, calibrate, first_version
from caliber_pipeline.api.judging import (
    DEFAULT_MODEL,
    LOCAL,
    default_encoder,
    find_judge,
    open_judge,
    open_language_model,
)
from caliber_pipeline.api.optimization import OptimizationResult, PromptOptimizer
from caliber_pipeline.api.records import UploadedRecord
from caliber_pipeline.api.results import EvaluationConfig, EvaluationResult
from caliber_pipeline.api.running import OnProgress, run_sync
from caliber_pipeline.api.selection import DEFAULT_COUNT, ExampleSelector, SelectionResult
from caliber_pipeline.api.session_records import SessionRecords
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA, Criteria

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.api.fields import Item
    from caliber_pipeline.core.example_selection import SelectionStrategy
    from caliber_pipeline.encoders.protocol import Encoder
    from caliber_pipeline.judges.protocol import Judge


class CalibrationSession(SessionRecords):
    """Upload records, annotate them, evaluate a judge, learn from its errors, improve its criteria.

    A step that is asked for too early raises `MissingStepError` with the step that is missing. What rests on data that
    changes is dropped: a new annotation drops evaluation, patterns, analysis and proposal. Evaluating again asks the
    judge only about what it was not asked before.
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
        self._need_annotations("evaluate")
        config = build_config(criteria, model_name, llm_provider, system_prompt, examples)
        self._evaluation = await self._run_judge(config, on_progress)
        self._analysis = self._proposal = None
        return self._evaluation

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
        return self._still_valid(self._evaluation)

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
        self._patterns = await discovery.discover(decided.astype(object), method)
        return self._patterns

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
        patterns = self.patterns.patterns if self.patterns else None
        self._analysis = await analyzer.analyze(evaluation, evaluation.criteria.full_text, patterns=patterns)
        return self._analysis

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
        self._proposal = await optimizer.optimize(evaluation.on_split("train"), evaluation.criteria)
        return self._proposal

    def select_examples(
        self,
        count: int = DEFAULT_COUNT,
        strategy: SelectionStrategy | str | None = None,
        eval_results: EvaluationResult | Iterable[Item] | None = None,
        patterns: Iterable[Item] | None = None,
        seed: int | None = None,
    ) -> SelectionResult[UploadedRecord]:
        """Choose annotated records to show the judge; see `ExampleSelector.select`.

        Verdicts and patterns are the session's own where none are given.

        Raises:
            MissingStepError: there are no records, or none is annotated.
        """
        self._need_annotations("select examples")
        known = patterns if patterns is not None or self.patterns is None else self.patterns.patterns
        verdicts = eval_results if eval_results is not None else self.get_evaluation_result()
        return ExampleSelector(seed).select(
            self.records, self._manager.get_annotations_dict(), count, strategy, verdicts, known
        )

    async def iterate(
        self,
        criteria: str | Criteria | None = None,
        model_name: str = DEFAULT_MODEL,
        llm_provider: str | None = None,
        system_prompt: str | None = None,
        *,
        max_iterations: int = 3,
        kappa_target: float = 0.6,
        on_progress: OnProgress | None = None,
        on_round: Callable[[CalibrationRound], object] | None = None,
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
            on_progress: Called with (records done, records in all) as verdicts of a round arrive.
            on_round: Called with each round when it is decided.

        Raises:
            MissingStepError: there are no records, or none is annotated.
        """
        from caliber_pipeline.core.optimized_criteria import LoopSettings

        self._need_annotations("iterate")
        start = first_version(criteria, system_prompt, self.get_evaluation_result())
        judge = self._open_judge(llm_provider, model_name)
        optimizer = PromptOptimizer(
            model_name, llm_provider, max_examples=judge.max_examples, encoder=self._open_encoder()
        )

        async def evaluate(version: Criteria) -> EvaluationResult:
            config = build_config(version, model_name, llm_provider, None, None)
            return await self._run_judge(config, on_progress, judge)

        async def propose(result: EvaluationResult, base: Criteria, name: str, round_: int) -> OptimizationResult:
            return await optimizer.optimize(result.on_split("train"), base, base=name, round_=round_)

        settings = LoopSettings(kappa_target=kappa_target, max_iterations=max_iterations)
        outcome = await calibrate(start, evaluate, propose, settings, on_round)
        self._evaluation = outcome.best.result
        self._analysis = None
        self._proposal = outcome.best.proposal
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
        on_progress: OnProgress | None = None,
        on_round: Callable[[CalibrationRound], object] | None = None,
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
                on_progress=on_progress,
                on_round=on_round,
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """All of the session, ready for JSON; a judge, an encoder and a cache of one's own are not part of it."""
        from caliber_pipeline.api.session_data import session_to_dict

        return session_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, judge: Judge | None = None) -> CalibrationSession:
        """The session that `to_dict` was made from.

        Raises:
            InputError: the data is no session, or one of another version of this package.
        """
        from caliber_pipeline.api.session_data import restore_session

        return restore_session(cls(judge=judge), data)

    def to_state(self) -> dict[str, Any]:
        """As `to_dict`, for stores that keep a session's state between requests."""
        return self.to_dict()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, judge: Judge | None = None) -> CalibrationSession:
        """As `from_dict`."""
        return cls.from_dict(state, judge=judge)

    def save(self, path: str | Path) -> Path:
        """Write the session to a JSON file, whole or not at all."""
        from caliber_pipeline.api.session_data import save_json

        return save_json(self.to_dict(), Path(path))

    @classmethod
    def load(cls, path: str | Path, *, judge: Judge | None = None) -> CalibrationSession:
        """The session that `save` wrote.

        Raises:
            InputError: there is no such file, or it holds no session.
        """
        from caliber_pipeline.api.session_data import load_json

        return cls.from_dict(load_json(Path(path)), judge=judge)

    @classmethod
    def from_assets(
        cls,
        directory: str | Path,
        criteria_version: str | None = None,
        *,
        criteria_dir: str | Path | None = None,
        judge: Judge | None = None,
    ) -> CalibrationSession:
        """Open what the pipeline wrote: records, annotations, and the evaluation of one criteria version.

        Args:
            directory: The pipeline's output folder.
            criteria_version: Which version; None takes the champion.
            criteria_dir: Where the criteria files are; None looks beside and below the output folder.
            judge: Who judges from here on.

        Raises:
            InputError: there are no such tables or criteria.
        """
        from caliber_pipeline.api.session_files import open_assets

        return open_assets(
            cls(judge=judge), Path(directory), criteria_version, Path(criteria_dir) if criteria_dir else None
        )

    def export(self, directory: str | Path) -> list[Path]:
        """Write files that the pipeline reads: records.csv, annotations.csv, and the criteria as versions.

        `caliber run --records DIR/records.csv --annotations DIR/annotations.csv --criteria DIR/criteria/v001.yaml`
        goes on from there.

        Returns:
            The files that were written.

        Raises:
            MissingStepError: there are no records.
            InputError: a criteria file is there already.
        """
        from caliber_pipeline.api.session_files import export_session

        return export_session(self, self._need_upload("export"), Path(directory))

    def _labels(self) -> pd.DataFrame:
        from caliber_pipeline.core.annotations import resolve_labels

        return resolve_labels(self._manager.table())

    def _open_encoder(self) -> Encoder:
        return self._encoder or default_encoder()

    def _open_judge(self, llm_provider: str | None, model_name: str) -> Judge:
        if self._judge is not None:
            return self._judge
        provider, model = find_judge(llm_provider, model_name)
        if provider == LOCAL and self._encoder is not None:
            from caliber_pipeline.judges.local import LocalJudge

            return LocalJudge(self._encoder)
        return open_judge(provider, model)

    async def _run_judge(
        self, config: EvaluationConfig, on_progress: OnProgress | None, judge: Judge | None = None
    ) -> EvaluationResult:
        upload = self._need_annotations("evaluate")
        judge = judge or self._open_judge(config.llm_provider, config.model_name)
        return await evaluate_table(
            upload.table, self._manager.table(), config, judge, cache=self._open_cache(), on_progress=on_progress
        )
