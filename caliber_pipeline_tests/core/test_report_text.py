"""Texts of the report: what changed in the criteria, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.report import diff_words

texts = st.lists(st.sampled_from(["score", "one", "if", "right", "zero"]), max_size=8).map(" ".join)


@given(texts, texts)
def test_both_texts_can_be_read_from_their_difference(before: str, after: str) -> None:
    parts = list(diff_words(before, after))
    assert "".join(text for kind, text in parts if kind != "new") == before
    assert "".join(text for kind, text in parts if kind != "gone") == after
