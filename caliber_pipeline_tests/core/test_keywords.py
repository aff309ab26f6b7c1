"""Keywords and names are in people's words and tell groups apart."""

from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.keywords import select_keywords, select_name, split_words
from caliber_pipeline.core.notes import mask_names, normalise_note


def test_words_that_all_groups_share_come_last() -> None:
    fees = ["reply quotes a wrong fee", "reply: fee is wrong", "the fee in the reply is old"]
    tone = ["reply is rude", "rude to a widow in the reply", "such a rude tone in the reply"]
    first, second = select_keywords([fees, tone])
    assert first[0] == "fee"
    assert "rude" in second[0]
    assert "reply" not in {*first[:2], second[0]}


def test_a_pair_of_words_stands_for_both() -> None:
    notes = ["asks for the card number", "wants a card number", "card number again"]
    assert select_keywords([notes, ["rude"]])[0][0] == "card number"
    assert "card" not in select_keywords([notes, ["rude"]])[0]


def test_names_of_people_are_no_keywords() -> None:
    notes = ["it is not clear who Melantho is", "what has Melantho to do with it", "why is Melantho named"]
    assert not {"melantho", "someone"} & set(select_keywords([notes])[0])


def test_a_name_is_the_clause_that_holds_most_keywords() -> None:
    notes = ["no. the fee is wrong", "said 4.50 but the fee is 3.95", "the wrong fee again, as ever"]
    assert select_name(["fee", "wrong"], notes) == "fee is wrong"
    assert select_name(["x"], ["But nobody can read this at all"]) == "nobody can read this at all"
    assert select_name([], ["Bad"]) == "Bad"


@given(st.lists(st.lists(st.text(max_size=30), min_size=1, max_size=5), max_size=4))
def test_any_text_has_keywords_of_its_own_and_a_name(groups: list[list[str]]) -> None:
    for keywords, notes in zip(select_keywords(groups), groups, strict=True):
        present = {word for note in notes for word in split_words(mask_names(note))}
        assert all(set(term.split()) <= present for term in keywords)
        assert len(select_name(keywords, notes).split()) <= 8


def test_names_inside_english_sentences_are_masked() -> None:
    assert mask_names("Why is Melantho in Vathi village? Who is she?") == (
        "Why is someone in someone village? Who is she?"
    )
    assert mask_names("The ghost of Jean-Luc is in it") == "The ghost of someone is in it"


def test_what_is_no_name_stays() -> None:
    for text in (
        "It is in German and I asked on Monday",
        "it asks for the CVV and the PIN",
        "THE REPLY IS RUDE TO Me And You",
        "Der Ton ist unfreundlich und die Antwort passt nicht zur Frage",
        "rude",
        "",
    ):
        assert mask_names(text) == text


def test_identical_notes_may_differ_in_case_spacing_and_closing_marks() -> None:
    assert normalise_note("  Too  RUDE!! ") == normalise_note("too rude")
    assert normalise_note("not rude") != normalise_note("rude")


def test_a_fault_is_not_named_by_what_is_praised_on_the_way() -> None:
    notes = ["no power to book collections. bolt advice fine", "bolt never came"]
    assert select_name(["bolt", "fine"], notes) == "bolt advice fine"
    assert select_name(["bolt", "fine"], notes, of_faults=True) == "bolt never"
    assert select_name(["bolt", "fine"], ["bolt not fine"], of_faults=True) == "bolt not fine"
    assert select_name(["bolt", "fine"], ["bolt is fine"], of_faults=True) == "bolt is fine"  # better than no name
