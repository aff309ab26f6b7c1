"""What each strategy proposes."""

import asyncio
from dataclasses import replace

import pandas as pd

from caliber_pipeline.core.criteria import ExampleRef
from caliber_pipeline.core.proposal_checks import find_refusal
from caliber_pipeline.core.proposals import EarlierProposal, Proposal
from caliber_pipeline.core.rewriting import Kind, build_task, choose_kinds, sample_errors
from caliber_pipeline.core.usage import Usage
from caliber_pipeline.judges.language_model import ReplyT
from caliber_pipeline.strategies import ExamplesStrategy, RewriteStrategy, RulesStrategy
from caliber_pipeline_tests.strategies.world import START, World, learn_from_prompt, scripted


def test_long_lists_of_errors_are_sampled_by_pattern() -> None:
    errors = pd.DataFrame(
        {"record_id": [f"r{i:03d}" for i in range(110)], "pattern_id": ["big"] * 100 + ["small"] * 6 + [None] * 4}
    )
    chosen = sample_errors(errors, 9)
    assert chosen["pattern_id"].fillna("").value_counts().to_dict() == {"big": 3, "small": 3, "": 3}
    assert sample_errors(errors, 13)["pattern_id"].fillna("").value_counts().to_dict() == {"big": 5, "small": 4, "": 4}
    shuffled = sample_errors(errors.iloc[::-1], 9)
    assert shuffled["record_id"].tolist() == chosen["record_id"].tolist()
    assert set(sample_errors(errors, 9, seed=1)["record_id"]) != set(chosen["record_id"])


def test_the_kinds_follow_the_errors() -> None:
    only_accepts = pd.DataFrame({"kind": ["false_positive"] * 3})
    assert choose_kinds(only_accepts, 5) == (Kind.TIGHTEN, Kind.CLARIFY, Kind.EXAMPLES, Kind.RESTRUCTURE)
    mixed = pd.DataFrame({"kind": ["false_positive"] + ["false_negative"] * 3})
    assert choose_kinds(mixed, 5)[0] is Kind.LOOSEN
    assert set(choose_kinds(mixed, 5)) == set(Kind)
    assert choose_kinds(only_accepts.iloc[:0], 5) == ()
    assert choose_kinds(only_accepts, 1) == (Kind.TIGHTEN,)
    assert choose_kinds(mixed, 1) == (Kind.CLARIFY,)


def task_errors() -> pd.DataFrame:
    return World().evidence(START).misalignments


def test_a_prompt_tells_what_was_tried_before_and_what_became_of_it() -> None:
    earlier = EarlierProposal("v002", "the text", "no gain", ("reject owls",), ("loosen: dropped after 16 records",))
    prompt = build_task(World().request(START, 2, (earlier,)), Kind.TIGHTEN).prompt
    assert "- reject owls\n  Result: no gain\n  Tried beside it: loosen: dropped after 16 records" in prompt
    assert "the text" not in prompt


def test_a_prompt_shows_errors_of_its_kind_and_people_s_reasons() -> None:
    task = build_task(World().request(START, 1), Kind.TIGHTEN)
    assert set(task.shown["kind"]) == {"false_positive"}
    assert "mentions a zebra" in task.prompt
    assert "must go on getting right" in task.prompt
    n_missed = int((task_errors()["pattern_id"] == "p-zebra").sum())
    assert f'"theme": "mentions a zebra", "error": "false_positive", "missed": "{n_missed} of ' in task.prompt
    assert "In people's words" in task.prompt
    assert "Loosen" not in task.prompt


def test_a_prompt_speaks_of_no_themes_where_none_is_missed() -> None:
    request = World().request(START, 1)
    unthemed = replace(request.evidence, patterns=request.evidence.patterns.head(0))
    assert "Themes in people's notes" in build_task(request, Kind.TIGHTEN).prompt
    assert "Themes in people's notes" not in build_task(replace(request, evidence=unthemed), Kind.TIGHTEN).prompt


def test_rewrites_are_different_in_kind_and_asked_for_at_once() -> None:
    running, most = 0, 0

    class Slow:
        name = "slow"
        usage = Usage()

        async def ask(self, prompt: str, reply: type[ReplyT], *, system: str | None = None) -> ReplyT:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return await scripted(learn_from_prompt).ask(prompt, reply, system=system)

    found = asyncio.run(RewriteStrategy(Slow()).propose(World().request(START, 1)))
    assert most == 3
    assert [p.kind for p in found.proposals] == ["tighten", "clarify edge cases", "misalignment_guided", "restructure"]


def test_examples_are_proposed_by_each_way_to_select_them() -> None:
    found = asyncio.run(ExamplesStrategy().propose(World().request(START, 1)))
    assert {p.kind for p in found.proposals} <= {"misalignment_guided", "balanced", "pattern_aware"}
    assert len(found.proposals) >= 2
    for proposal in found.proposals:
        assert len(proposal.criteria.examples) == 4
        assert proposal.criteria.criteria == START.criteria


def test_without_errors_nobody_proposes() -> None:
    world = World()
    right = START.model_copy(update={"criteria": "Score 0 with a zebra, quasar or walrus"})
    request = world.request(right, 1)
    assert request.evidence.misalignments.empty
    for strategy in (RulesStrategy(), ExamplesStrategy(), RewriteStrategy(scripted(learn_from_prompt))):
        assert asyncio.run(strategy.propose(request)).proposals == ()


def test_what_rests_on_records_outside_train_is_refused() -> None:
    world = World()
    dev = world.records.loc[world.records["split"] == "dev", "record_id"].iloc[0]
    criteria = START.model_copy(update={"examples": (ExampleRef(record_id=dev, content_hash="h"),)})
    proposal = Proposal(criteria, (), "mine", "")
    refusal = find_refusal(proposal, START, world.evidence(START), world.guarded())
    assert refusal == f"it rests on 1 records that are not in train, e.g. ['{dev}']"


def test_words_that_train_shares_with_dev_may_be_used() -> None:
    world = World()
    shared = world.guarded().assign(human_notes="the same words stand in train and in dev")
    evidence = world.evidence(START)
    evidence.misalignments["human_notes"] = "the same words stand in train and in dev"
    criteria = START.model_copy(update={"criteria": "Score 0 where the same words stand in train and in dev"})
    assert find_refusal(Proposal(criteria, (), "mine", ""), START, evidence, shared) is None


def test_private_data_is_refused_whoever_wrote_it() -> None:
    world = World()
    criteria = START.model_copy(update={"criteria": "Score 1 if it names ann@example.com"})
    refusal = find_refusal(Proposal(criteria, (), "mine", ""), START, world.evidence(START), world.guarded())
    assert refusal == "it holds private data"


def test_a_judge_that_is_never_right_is_shown_no_records_to_keep() -> None:
    world = World()
    request = world.request(START, 1)
    wrong = request.evidence.scored[request.evidence.scored["human_score"] == 0]
    task = build_task(replace(request, evidence=replace(request.evidence, scored=wrong)), Kind.CLARIFY)
    assert "must go on getting right" not in task.prompt


def test_errors_without_a_note_make_clauses_without_a_pattern() -> None:
    world = World()
    request = world.request(START, 1)
    bare = request.evidence.misalignments.assign(pattern_id=None, pattern_name=None, human_notes=None)
    request = replace(request, evidence=replace(request.evidence, misalignments=bare))
    found = asyncio.run(RewriteStrategy(scripted(learn_from_prompt), n_candidates=1).propose(request))
    (proposal,) = found.proposals
    assert all(clause.evidence.pattern_id is None and clause.evidence.record_ids for clause in proposal.clauses)
