"""From settings to what the assets work with: stores, encoder, judge."""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import dagster as dg
import pandas as pd
from pydantic import Field
from upath import UPath

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeSettingsError, MissingStepError
from caliber_pipeline.core.stopping import LoopSettings
from caliber_pipeline.encoders import CachedEncoder, SentenceTransformerEncoder
from caliber_pipeline.encoders.ray_encoder import RayEncoder
from caliber_pipeline.judges.batch_files import BatchProgress
from caliber_pipeline.judges.batch_judge import BatchJudge
from caliber_pipeline.judges.budget import Budget
from caliber_pipeline.judges.language_model import LanguageModel
from caliber_pipeline.judges.local import LocalJudge
from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_language_model import OpenAILanguageModel
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.protocol import Judge
from caliber_pipeline.judges.providers import PROVIDERS
from caliber_pipeline.judges.ray_shards import BuildJudge, build_share, judge_in_shards_on_ray
from caliber_pipeline.judges.recorded import RecordedJudge
from caliber_pipeline.judges.sharded import JUDGED_COLUMNS, OnProgress, ShardedTask, judge_in_shards
from caliber_pipeline.settings import JUDGES, Settings
from caliber_pipeline.stores.batch_folder import BatchFolder, StoredBatch
from caliber_pipeline.stores.criteria_files import CriteriaFiles
from caliber_pipeline.stores.embedding_cache import EmbeddingCache
from caliber_pipeline.stores.ingest import is_ingested
from caliber_pipeline.stores.pattern_fits import PatternFits
from caliber_pipeline.stores.ray_map import import_ray
from caliber_pipeline.stores.tables import TableStore
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline.strategies import Strategy, build_strategies
from caliber_pipeline.strategies.gepa import JudgeCriteria

if TYPE_CHECKING:
    from dagster_ray.types import AnyDagsterContext
    from ray._private.worker import BaseContext as RayBaseContext

ALL_SCORES: Final = "all_scores"
_RAY_CHUNK: Final = 1_000_000  # texts encoded by the same actors, before their vectors are kept
_BUDGETS: Final[dict[str, Budget]] = {}  # Dagster copies resources; all copies of a project spend from one budget


class Project(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One project: its settings, and the stores and clients that they stand for."""

    settings_json: str
    endpoint: dict[str, str] = Field(default_factory=dict)
    budget_id: str = Field(default="", description="What the copies of this resource in one process spend from.")
    waits: bool = Field(default=False, description="Whether runs wait for a provider's batches, or end meanwhile.")

    @classmethod
    def from_settings(cls, settings: Settings, *, waits: bool = False) -> Self:
        """Wrap settings; nothing is opened.

        The variables that an endpoint's settings are read from come in as references, so that Dagster stores and shows
        their names and never a key.
        """
        given = [name for name in OpenAIJudgeSettings.variables() if os.environ.get(name)]
        endpoint: dict[str, str] = {name: dg.EnvVar(name) for name in given}
        budget_id = uuid.uuid4().hex
        return cls(settings_json=settings.model_dump_json(), endpoint=endpoint, budget_id=budget_id, waits=waits)

    @property
    def settings(self) -> Settings:
        """The settings."""
        return Settings.model_validate_json(self.settings_json)

    @property
    def loop(self) -> LoopSettings:
        """When the loop ends."""
        settings = self.settings
        return LoopSettings(
            kappa_target=settings.kappa_target,
            max_iterations=settings.max_iterations,
            max_new_errors=settings.max_new_errors,
            max_cost_usd=settings.max_loop_cost_usd,
        )

    @property
    def tables(self) -> TableStore:
        """The stored tables."""
        return TableStore(str(self.settings.output))

    @property
    def criteria_files(self) -> CriteriaFiles:
        """The criteria folder."""
        return CriteriaFiles(self.settings.criteria_folder)

    @property
    def cache_folder(self) -> Path:
        """Where verdicts and embeddings are kept."""
        return self.settings.cache_folder

    @property
    def fits(self) -> PatternFits:
        """The pattern fits that versions share."""
        return PatternFits(self.cache_folder / "fits")

    def open_verdict_cache(self) -> VerdictCache:
        """The verdict cache of this output; the caller closes it."""
        return VerdictCache(self.settings.verdict_cache_file)

    @property
    def budget(self) -> Budget:
        """What judges and language models of this project may spend in this process, all together.

        Raises:
            InputError, JudgeError: the endpoint's settings cannot work.
        """
        return _BUDGETS.setdefault(self.budget_id, Budget.of(self.endpoint_settings.max_cost_usd))

    def build_encoder(self, on_progress: Callable[[int, int], None] | None = None) -> CachedEncoder:
        """The encoder, behind the embedding cache of this output."""
        settings, cache = self.settings, EmbeddingCache(self.cache_folder / "embeddings.sqlite")
        encoder = SentenceTransformerEncoder(on_progress=on_progress)
        if settings.backend == "local":
            return CachedEncoder(encoder, cache)
        connect = partial(connected_ray, settings.ray_address)
        sent = SentenceTransformerEncoder()  # the callback stays here
        shared = RayEncoder(sent, settings.ray_workers, connect, on_progress=on_progress)
        return CachedEncoder(shared, cache, chunk=_RAY_CHUNK)

    def build_judge(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        criteria: Criteria | None = None,
        version: str | None = None,
    ) -> Judge:
        """The judge that the settings name, bound to a criteria version where one is given.

        Raises:
            InputError: a setting cannot work, as an unknown provider; or the version was judged by another judge.
            JudgeError: it cannot be had: no key, no model.
        """
        name = self.settings.judge
        if version is not None:
            self._refuse_other_judge(version, criteria.base if criteria else None)
        if name == "local":
            return LocalJudge(self.build_encoder(on_progress))
        if name == "recorded":
            return RecordedJudge()
        settings = self.endpoint_settings
        if criteria is not None:
            first = self._first_judge(version, criteria.base)
            self._refuse_other_model(first, criteria)
            settings = settings.bound_to(criteria, first)
        return OpenAIJudge(settings, self.budget)

    def in_batches(self, judge: Judge, table: str, version: str, *, waits: bool | None = None) -> Judge:
        """The judge, through a provider's batches where the settings say so and it asks an endpoint.

        Args:
            judge: Who is asked.
            table: What the verdicts are for; the batches of each table and version are kept apart.
            version: The criteria version.
            waits: Whether it waits for batches to end; as this resource says where left out.
        """
        if self.settings.mode != "batch" or not isinstance(judge, OpenAIJudge):
            return judge
        folder = self._batch_folder(table, version)
        return BatchJudge(judge, judge.settings, folder, waits=self.waits if waits is None else waits)

    def open_batches(self, table: str, version: str) -> list[StoredBatch]:
        """The batches under way for a table of a version; none where the settings do not judge in batches."""
        return BatchFolder(self._batch_folder(table, version)).load_all() if self.settings.mode == "batch" else []

    def poll_batches(self, table: str, version: str) -> BatchProgress:
        """Ask the provider how far these batches are.

        Raises:
            CriteriaError: the version cannot be used.
            InputError: a setting cannot work.
            JudgeError: there is no judge with batches, or the provider does not answer.
        """
        judge = self.build_judge(criteria=self.criteria_files.load(version), version=version)
        batched = self.in_batches(judge, table, version)
        if not isinstance(batched, BatchJudge):
            raise JudgeSettingsError(f"the judge '{judge.provider}' has no batches")
        return batched.poll()

    def _batch_folder(self, table: str, version: str) -> Path:
        return self.cache_folder / "batches" / table / version

    @property
    def n_judges(self) -> int:
        """Judges on a cluster: each makes one call at a time at least, and all together no more than may be made."""
        n_workers = self.settings.ray_workers
        return min(n_workers, self.endpoint_settings.max_concurrency) if self.settings.judge == "openai" else n_workers

    def judge_builder(self, criteria: Criteria, version: str) -> BuildJudge:
        """What makes the judge of a worker on another machine, with its share of the endpoint's limits.

        Raises:
            InputError: the settings ask for batches, which need no workers.
            JudgeError: there is no endpoint's model.
        """
        if self.settings.judge == "local":
            return _build_local
        if self.settings.judge == "recorded":
            return _build_recorded
        if self.settings.mode == "batch":
            raise InputError("batches are judged by the provider: leave out --backend ray, or --mode batch")
        settings = self.endpoint_settings.bound_to(criteria, self._first_judge(version, criteria.base))
        return partial(build_share, settings)

    def judge_all(
        self,
        version: str,
        criteria: Criteria,
        examples: pd.DataFrame,
        on_progress: OnProgress | None = None,
        *,
        waits: bool | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> UPath:
        """Have every stored record judged, labelled or not, in shards, on the backend that the settings name.

        Args:
            version: The criteria version.
            criteria: Its criteria.
            examples: Its examples, as in `JudgeTask`.
            on_progress: Called after every shard.
            waits: Whether to wait for a provider's batches to end; as this resource says where left out.
            tell: Called with a line about every batch, as `BatchJudge` does.

        Returns:
            The folder of the verdicts, below OUTPUT/all_scores.

        Raises:
            MissingStepError: no records are stored.
            JudgeError: the judge as a whole cannot work.
            SpendingCapError: the spending cap left records unasked.
            StillUnderWayError: batches are under way that were not to be waited for.
        """
        tables, settings = self.tables, self.settings
        attrs = tables.load_attrs("records")
        if attrs is None:
            raise MissingStepError(f"{tables.path('records')}: not there yet; run `caliber ingest` first")
        folder = settings.output / ALL_SCORES
        task = ShardedTask(
            criteria,
            examples,
            folder,
            tables.count("records"),
            attrs["records_fingerprint"],
            int(attrs.get("n_text_bytes", 0)),  # a table of an earlier version does not tell
        )
        records = tables.scan("records", columns=JUDGED_COLUMNS)
        if settings.backend == "ray":
            build = self.judge_builder(criteria, version)
            with connected_ray(settings.ray_address), self.open_verdict_cache() as cache:
                return judge_in_shards_on_ray(
                    build, records, task, n_workers=self.n_judges, cache=cache, on_progress=on_progress
                )
        judge = self.in_batches(self.build_judge(criteria=criteria, version=version), ALL_SCORES, version, waits=waits)
        if isinstance(judge, BatchJudge) and tell is not None:
            judge.tell = tell
        if isinstance(judge, RecordedJudge):
            judge = RecordedJudge(sees_all=False)
        with self.open_verdict_cache() as cache:
            return judge_in_shards(judge, records, task, cache=cache, on_progress=on_progress)

    def build_language_model(self) -> LanguageModel:
        """The language model of the endpoint that the settings name.

        Raises:
            InputError: a setting cannot work, as an unknown provider.
            JudgeError: it cannot be had: no key, no model.
        """
        return OpenAILanguageModel(self.endpoint_settings, self.budget)

    def build_strategies(self, judge: JudgeCriteria) -> list[Strategy]:
        """Who proposes the next version: as set, else 'rewrite' with an LLM judge and 'rules' without.

        Args:
            judge: For strategies that try proposals themselves: gives verdicts under criteria on train records.

        Raises:
            JudgeError: a strategy needs a language model that cannot be had.
        """
        return build_strategies(self._strategy_names, self.build_language_model, judge)

    @property
    def _strategy_names(self) -> tuple[str, ...]:
        return self.settings.strategies or ("rewrite" if self.settings.judge == "openai" else "rules",)

    def check_clients(self) -> None:
        """Find out, before anything is read, whether judge and language model can be had for what is to be evaluated.

        Nothing is sent: what only the endpoint knows, the first call finds out.

        Raises:
            InputError: a setting cannot work.
            JudgeError: there is no key, no model or no URL, or a spending cap but no price.
        """
        settings, valid = self.settings, self.criteria_files.load_all().valid
        waiting = sorted(set(valid) - set(self.tables.versions("optimized_criteria")))
        if not waiting and is_ingested(settings, self.tables):
            return
        for version in waiting or sorted(valid)[-1:]:
            self._refuse_other_judge(version, valid[version].base)
            if settings.judge == "openai":
                self.build_judge(criteria=valid[version], version=version)
        if settings.max_iterations and not {"rewrite", "gepa"}.isdisjoint(self._strategy_names):
            self.build_language_model()

    @property
    def endpoint_settings(self) -> OpenAIJudgeSettings:
        """The endpoint's settings: those of the environment, overridden by those of the command line.

        Raises:
            InputError: one of them cannot work.
        """
        environ = {name: _plain(value) for name, value in self.endpoint.items()}
        return OpenAIJudgeSettings.from_env(environ, **self.settings.judge_options)

    def _refuse_other_judge(self, *versions: str | None) -> None:
        """Keep a judge of another kind off versions that were evaluated: their history would compare different judges.

        Args:
            versions: The version that is to be judged and its base; of a new one the last that was evaluated counts.

        Raises:
            InputError: the settings name another judge than the one by whom these were judged.
        """
        for version in (*versions, *reversed(self.tables.versions("judge_scores"))):
            attrs = (self.tables.load_attrs("judge_scores", version) if version else None) or {}
            provider = attrs.get("judge_provider")
            first = "openai" if provider in PROVIDERS else provider
            if first in JUDGES and first != self.settings.judge:
                model = f" ({attrs['judge_model']})" if first == "openai" else ""
                raise InputError(
                    f"{self.settings.output}: '{version}' was judged by {provider}{model}, and the settings name the "
                    f"judge '{self.settings.judge}'; give --judge {first}, or another --output"
                )
            if first is not None:
                return

    def _refuse_other_model(self, first: tuple[str, str] | None, criteria: Criteria) -> None:
        """Say that a model that is named would not be asked, as a version keeps the one that it was first judged by.

        Raises:
            InputError: another model is named than that.
        """
        named = self.settings.judge_options.get("model")
        if first is None or criteria.model is not None or named in {None, first[1]}:
            return
        raise InputError(
            f"{self.settings.output}: its versions were judged by {first[1]} and keep that model; leave out "
            f"--model {named}, or name another --output"
        )

    def _first_judge(self, *versions: str | None) -> tuple[str, str] | None:
        """Provider and model of the first of these that an endpoint judged, so that history compares like with like."""
        for version in versions:
            attrs = (self.tables.load_attrs("judge_scores", version) if version else None) or {}
            if attrs.get("judge_provider") in PROVIDERS:
                return attrs["judge_provider"], attrs["judge_model"]
        return None


def _plain(value: str) -> str:
    """The value of a reference; Dagster resolves those of a run itself."""
    return (value.get_value() or "") if isinstance(value, dg.EnvVar) else value


@contextmanager
def connected_ray(address: str | None) -> Iterator[None]:
    """A connection to a Ray cluster by dagster-ray; the one that is there already, where a Ray resource has made it.

    Args:
        address: As `ray.init` takes it; None starts a cluster on this machine, "auto" joins the one that runs here.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    from dagster_ray import LocalRay
    from tenacity import retry, retry_if_exception_type, stop_after_attempt

    class Cluster(LocalRay):
        # Ray's client proxy forks a server for each client among threads of gRPC, and now and then the fork dies before
        # it has begun (ray-project/ray issue 63202): the next one lives
        @retry(stop=stop_after_attempt(5), retry=retry_if_exception_type(ConnectionAbortedError), reraise=True)
        def connect(self, context: "AnyDagsterContext") -> "RayBaseContext":
            return super().connect(context)

        @property
        def ray_address(self) -> str:  # type: ignore[override] # of LocalRay it is None: whatever runs here
            return address or "local"

    options: dict[str, object] = {"log_to_driver": False}
    if address is None:
        options["include_dashboard"] = False
    with dg.build_init_resource_context() as context, ExitStack() as stack:
        assert context.log is not None  # noqa: S101 it is, of a context that is built here
        context.log.setLevel(logging.CRITICAL)  # what goes wrong is raised, and told in one line
        try:
            stack.enter_context(Cluster(ray_init_options=options).yield_for_execution(context))
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            # what goes wrong on the head comes as its traceback
            reason = str(error).strip().rpartition("\nRuntimeError: ")[2]
            raise InputError(f"no Ray cluster that lets us in at '{address}': {reason}") from error
        yield


def _build_local(_: int, __: Budget | None) -> Judge:
    return LocalJudge(SentenceTransformerEncoder())


def _build_recorded(_: int, __: Budget | None) -> Judge:
    return RecordedJudge(sees_all=False)
