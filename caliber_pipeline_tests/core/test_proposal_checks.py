"""What keeps a proposal from becoming a criteria file."""

import pandas as pd

from caliber_pipeline.core.criteria import Clause, Criteria, Evidence
from caliber_pipeline.core.proposal_checks import find_refusal
from caliber_pipeline.core.proposals import Proposal, TrainEvidence

_QUOTE = "photo of both sides of the card"
_GUARDED = pd.DataFrame({"query": ["why do you want a photo of both sides of the card?"]})


def _clause(quote: str) -> Clause:
    return Clause(text="Score 0 if it asks for secrets.", verdict=0, evidence=Evidence(quotes=(quote,)))


def _refusal(champion: Criteria, criteria: Criteria) -> str | None:
    empty = pd.DataFrame({"record_id": pd.Series([], dtype="string[pyarrow]")})
    evidence = TrainEvidence(scored=empty, misalignments=empty, patterns=empty, records=empty)
    return find_refusal(Proposal(criteria, (), "rules", ""), champion, evidence, _GUARDED)


def test_a_quote_that_the_champion_holds_is_no_reason_against_its_successor() -> None:
    # the record it came from is judged rightly by now, and so no longer among the errors shown
    champion = Criteria(criteria="be right", clauses=(_clause(_QUOTE),))
    assert _refusal(champion, champion.model_copy(update={"criteria": "be right and kind"})) is None


def test_a_new_quote_of_what_decides_is() -> None:
    champion = Criteria(criteria="be right")
    refused = _refusal(champion, champion.model_copy(update={"clauses": (_clause(_QUOTE),)}))
    assert refused is not None
    assert refused.startswith("it quotes a record of dev or test")
