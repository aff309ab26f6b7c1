"""The judge behind any OpenAI-compatible endpoint."""

import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd

from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.errors import InputError, JudgeSettingsError
from caliber_pipeline.core.judge_prompt import TEMPLATE_VERSION
from caliber_pipeline.core.pricing import Estimate, estimate_run, usd
from caliber_pipeline.judges.budget import Budget
from caliber_pipeline.judges.caller import require_price
from caliber_pipeline.judges.dialect import Dialect
from caliber_pipeline.judges.openai_run import OpenAIRun, build_frame
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings, shown_url
from caliber_pipeline.judges.protocol import JudgeTask
from caliber_pipeline.judges.providers import CUSTOM

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunStats:
    """What a run has taken, retries included; read while it runs or after.

    Attributes:
        n_calls: Calls made.
        n_limited: Calls answered 429.
        n_repeated: Calls repeated, for whatever reason.
        n_repairs: Replies without a verdict that were asked for again.
        n_timeouts: Calls given up waiting for.
        paused_s: Seconds in which all calls were held back as the endpoint asked.
        max_in_flight: The most calls under way at once.
        spent_usd: The cost, where the price is known; calls that may have been billed count in full.
        format: The form of reply that the endpoint accepted.
        adaptations: What else it did not accept.
    """

    n_calls: int
    n_limited: int
    n_repeated: int
    n_repairs: int
    n_timeouts: int
    paused_s: float
    max_in_flight: int
    spent_usd: float | None
    format: str
    adaptations: tuple[str, ...]


class OpenAIJudge:
    """An LLM that judges through chat completions; implements `Judge`.

    What the endpoint accepts (reply format, parameters) is found out by the first record's own call and remembered for
    as long as the object lives.

    Attributes:
        budget: What its calls may cost, and have.
    """

    is_cacheable: Final = True
    max_examples: Final = 20  # each costs its tokens again with every record

    def __init__(self, settings: OpenAIJudgeSettings, budget: Budget | None = None) -> None:
        """A judge of these settings; nothing is sent yet.

        Args:
            settings: The endpoint, and how hard it may be driven.
            budget: What may be spent, where others spend from it too; else the settings' cap, for all of this judge's
                runs together.

        Raises:
            JudgeSettingsError: there is no model, no base URL or no key, or a spending cap but no price.
        """
        if not settings.model:
            raise JudgeSettingsError(
                f"no model is set for provider '{settings.provider}'; set CALIBER_MODEL, --model, or "
                "'model' in the criteria file"
            )
        self._url = shown_url(settings.endpoint_url)
        _ = settings.key
        require_price(settings)
        self.budget = budget or Budget.of(settings.max_cost_usd)
        self._settings = settings
        self._model = settings.model
        self._dialects: dict[str, Dialect] = {}
        self._run: OpenAIRun | None = None

    def __repr__(self) -> str:
        """Provider, model and URL; no key."""
        return f"OpenAIJudge(provider={self.provider!r}, model={self.model!r}, url={self._url!r})"

    @property
    def provider(self) -> str:
        """The endpoint's provider; "custom" for a base URL of the user's own."""
        return self._settings.provider_name

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._model

    @property
    def settings(self) -> OpenAIJudgeSettings:
        """Its endpoint, and how hard it may be driven."""
        return self._settings

    @property
    def last_run(self) -> RunStats | None:
        """What the run under way, or else the last one, has taken; None before the first."""
        run = self._run
        if run is None or run.caller is None:
            return None
        counts, limiter = run.caller.counts, run.limiter
        return RunStats(
            n_calls=counts.calls,
            n_limited=counts.limited,
            n_repeated=counts.repeated,
            n_repairs=counts.repairs,
            n_timeouts=counts.timeouts,
            paused_s=limiter.paused_s,
            max_in_flight=limiter.max_in_flight,
            spent_usd=None if self._settings.price is None else usd(counts.spent),
            format=run.caller.dialect.format,
            adaptations=tuple(counts.adaptations),
        )

    def identity(self, criteria: Criteria) -> Mapping[str, str | int | float | None]:
        """Everything on the judge's side that a verdict depends on."""
        return {
            "provider": self.provider,
            "endpoint": self._url if self.provider == CUSTOM else None,
            "model": self.model,
            "template": TEMPLATE_VERSION,
            **criteria.sampling.model_dump(),
            "max_tokens": criteria.sampling.max_tokens or self._settings.max_output_tokens,
        }

    def estimate(self, task: JudgeTask, n_cached: int = 0) -> Estimate:
        """Calls, tokens and cost of judging the task's records, of which none is known yet."""
        price = self._settings.price
        return estimate_run(task.records, task.criteria, task.examples, price=price, n_cached=n_cached)

    def judge(self, task: JudgeTask) -> Generator[pd.DataFrame]:
        """Yield verdicts in batches, several a second, as they arrive.

        Raises:
            JudgeError: the endpoint cannot work: wrong key, unknown model, no connection, no money left. What was
                judged before has been yielded.
            InputError: the criteria are bound to another model than this judge's.
        """
        criteria = task.criteria
        if criteria.model is not None and criteria.model != self.model:
            raise InputError(f"the criteria are bound to model '{criteria.model}', but the judge is '{self.model}'")
        if not len(task.records):
            return
        if criteria.sampling.n_votes > 1 and criteria.sampling.temperature == 0:
            _log.warning(
                "%d votes at temperature 0 are one vote repeated; set a temperature", criteria.sampling.n_votes
            )
        sampling_key = criteria.sampling.model_dump_json()
        dialect = self._dialects.get(sampling_key) or self.first_dialect(criteria)
        run = self._run = OpenAIRun(self._settings, dialect, task, self.budget)
        run.start()
        try:
            while (rows := run.next_rows()) is not None:
                yield build_frame(rows)
        except GeneratorExit:
            raise
        except BaseException:  # an interruption while waiting: what has arrived by then is kept all the same
            run.stop()
            if rest := run.take_rest():
                yield build_frame(rest)
            raise
        finally:
            run.stop()
            if run.caller is not None and run.caller.has_answered:
                self._dialects[sampling_key] = run.caller.dialect

    def first_dialect(self, criteria: Criteria) -> Dialect:
        """The strictest form of request that is worth trying."""
        settings = self._settings
        entry = settings.table_entry
        return Dialect.start(
            entry,
            self.model,
            criteria.sampling,
            max_output_tokens=settings.max_output_tokens,
            logprobs=entry.has_logprobs if settings.logprobs is None else settings.logprobs,
        )
