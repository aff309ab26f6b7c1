"""Strategies that write the next criteria from the judge's errors on train, and the race that chooses among them."""

from caliber_pipeline.strategies.building import build_strategies
from caliber_pipeline.strategies.choosing import Choice, choose_next, refuse_twin
from caliber_pipeline.strategies.gepa import GepaStrategy
from caliber_pipeline.strategies.protocol import Proposals, Strategy
from caliber_pipeline.strategies.rewrite import RewriteStrategy
from caliber_pipeline.strategies.rules import ExamplesStrategy, RulesStrategy

__all__ = [
    "Choice",
    "ExamplesStrategy",
    "GepaStrategy",
    "Proposals",
    "RewriteStrategy",
    "RulesStrategy",
    "Strategy",
    "build_strategies",
    "choose_next",
    "refuse_twin",
]
