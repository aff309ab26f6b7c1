"""What keeps a proposal from becoming a criteria file."""

import pandas as pd
import pytest

from caliber_pipeline.core.criteria import Clause, Criteria, Evidence
from caliber_pipeline.core.proposal_checks import find_refusal
from caliber_pipeline.core.proposals import Proposal, TrainEvidence

_QUOTE = "photo of both sides of the card"
_GUARDED = pd.DataFrame({"query": ["why do you want a photo of both sides of the card?"]})


def _clause(quote: str) -> Clause:
    return Clause(text="Score 0 if it asks for secrets.", verdict=0, evidence=Evidence(quotes=(quote,)))


def _refusal(champion: Criteria, criteria: Criteria, guarded: pd.DataFrame = _GUARDED) -> str | None:
    empty = pd.DataFrame({"record_id": pd.Series([], dtype="string[pyarrow]")})
    evidence = TrainEvidence(scored=empty, misalignments=empty, patterns=empty, records=empty)
    return find_refusal(Proposal(criteria, (), "rules", ""), champion, evidence, guarded)


def test_a_quote_that_the_champion_holds_is_no_reason_against_its_successor() -> None:
    # the record it came from is judged rightly by now, and so no longer among the errors shown
    champion = Criteria(criteria="be right", clauses=(_clause(_QUOTE),))
    assert _refusal(champion, champion.model_copy(update={"criteria": "be right and kind"})) is None


def test_a_new_quote_of_what_decides_is() -> None:
    champion = Criteria(criteria="be right")
    refused = _refusal(champion, champion.model_copy(update={"clauses": (_clause(_QUOTE),)}))
    assert refused is not None
    assert refused.startswith("it quotes a record of dev or test")


def test_a_quote_is_found_in_scripts_that_write_words_without_spaces() -> None:
    guarded = pd.DataFrame({"output": ["您好。请把身份证正反面的照片和银行卡号一起发给我们。"]})
    champion = Criteria(criteria="be right")
    copied = champion.model_copy(update={"criteria": "如果回答要求身份证正反面的照片和银行卡号。则打0分"})
    refused = _refusal(champion, copied, guarded)
    assert refused is not None
    assert refused.startswith("it quotes a record of dev or test")
    own = champion.model_copy(update={"criteria": "如果回答索要证件或银行卡号。则打0分"})
    assert _refusal(champion, own, guarded) is None


@pytest.mark.parametrize("gap", ["{output}", "____", "XXX", "[insert rule]", "TBD", "${rule}"])
def test_a_gap_to_be_filled_in_is_refused_unless_records_of_train_have_it(gap: str) -> None:
    champion = Criteria(criteria="be right")
    refused = _refusal(champion, champion.model_copy(update={"criteria": f"Score 1 if {gap} is right"}))
    assert refused is not None
    assert refused.startswith("it has gaps to be filled in")
    known = Criteria(criteria=f"Score 0 where it still says {gap}")
    assert _refusal(known, known.model_copy(update={"criteria": f"Reject {gap} at once"})) is None
