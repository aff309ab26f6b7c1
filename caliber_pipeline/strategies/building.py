"""Strategies by their names."""

from collections.abc import Callable, Sequence
from typing import Final

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.judges.language_model import LanguageModel
from caliber_pipeline.strategies.gepa import GepaStrategy, JudgeCriteria
from caliber_pipeline.strategies.protocol import Strategy
from caliber_pipeline.strategies.rewrite import RewriteStrategy
from caliber_pipeline.strategies.rules import ExamplesStrategy, RulesStrategy

_BUILDERS: Final[dict[str, Callable[[Callable[[], LanguageModel], JudgeCriteria], Strategy]]] = {
    "rules": lambda _open_model, _judge: RulesStrategy(),
    "examples": lambda _open_model, _judge: ExamplesStrategy(),
    "rewrite": lambda open_model, _judge: RewriteStrategy(open_model()),
    "gepa": lambda open_model, judge: GepaStrategy(open_model(), judge),
}


def build_strategies(
    names: Sequence[str], open_model: Callable[[], LanguageModel], judge: JudgeCriteria
) -> list[Strategy]:
    """The strategies of these names.

    Args:
        names: Of rules, examples, rewrite and gepa.
        open_model: The language model, for those that ask one.
        judge: Gives verdicts under criteria on train records, for those that try proposals themselves.

    Raises:
        InputError: a name is unknown.
        JudgeError: a strategy needs a language model that cannot be had.
    """
    unknown = [name for name in names if name not in _BUILDERS]
    if unknown:
        raise InputError(f"unknown strategies {unknown}; there are {', '.join(_BUILDERS)}")
    return [_BUILDERS[name](open_model, judge) for name in names]
