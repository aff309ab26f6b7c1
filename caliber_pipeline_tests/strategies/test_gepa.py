"""GEPA with this project's judge, feedback and acceptance test."""

import asyncio
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from caliber_pipeline.strategies import GepaStrategy
from caliber_pipeline.strategies.gepa import MINIBATCH, _Acceptance
from caliber_pipeline_tests.strategies.world import CANARY, RULES, START, World, scripted

pytest.importorskip("gepa")


def reflect(prompt: str, reply: type[BaseModel]) -> dict[str, object]:
    """Names every flaw that people are seen to object to."""
    seen = [flaw for flaw, note in RULES.items() if f"People say: {note}" in prompt]
    return {"text": f"```\n{START.criteria}; 0 with {' or '.join(seen)}\n```"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_evolved_text_names_what_people_object_to_and_comes_from_train_alone() -> None:
    world, model = World(), scripted(reflect)
    strategy = GepaStrategy(model, world.judge, max_verdicts=150)
    found = asyncio.run(strategy.propose(world.request(START, 1)))
    (proposal,) = found.proposals
    assert sum(flaw in proposal.criteria.criteria for flaw in RULES) >= 2
    assert proposal.strategy == "gepa"
    split_of = world.records.set_index("record_id")["split"]
    assert proposal.changes
    outputs = world.records.set_index("record_id")["output"]
    for change in proposal.changes:  # each rewrite rests on the errors that were shown, and no other record
        assert 0 < len(change.record_ids) <= MINIBATCH
        assert set(split_of[list(change.record_ids)]) == {"train"}
        assert all(any(flaw in outputs[record_id] for flaw in RULES) for record_id in change.record_ids)
        assert set(change.pattern_ids) <= {f"p-{flaw}" for flaw in RULES}
    assert model.prompts
    assert found.usage.n_calls == len(model.prompts)
    assert not any(CANARY in prompt for prompt in model.prompts)


def test_a_text_is_kept_where_it_fixes_clearly_more_than_it_breaks() -> None:
    def accepts(before: list[float], after: list[float]) -> bool:
        proposal = SimpleNamespace(subsample_scores_before=before, subsample_scores_after=after)
        return _Acceptance().should_accept(proposal, None)

    # Two fixed and none broken: P = 1/4; one fixed: 1/2; three fixed and one broken: 5/16.
    assert accepts([0, 0, 1], [1, 1, 1])
    assert not accepts([0, 0, 1], [1, 0, 1])
    assert not accepts([0, 0, 0, 1], [1, 1, 1, 0])
