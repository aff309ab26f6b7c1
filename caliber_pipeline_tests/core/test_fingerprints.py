"""Fingerprints see every change of what they are made over, and nothing else."""

from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from caliber_pipeline.core.fingerprints import RowsFingerprint

Row = tuple[str | None, str | None, int | None]

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows_of_any_kind = st.lists(st.tuples(texts, texts, st.sampled_from([0, 1, None])), min_size=1, max_size=8)


def fingerprint(*batches: Sequence[Row]) -> str:
    whole = RowsFingerprint(["query", "output", "llm_score"])
    for rows in batches:
        query, output, score = ([row[place] for row in rows] for place in range(3))
        columns = {"query": pa.array(query, pa.string()), "output": pa.array(output, pa.string())}
        whole.add(pa.table({**columns, "llm_score": pa.array(score, pa.int8()), "line": pa.array(range(len(rows)))}))
    return whole.hexdigest()


@given(rows=rows_of_any_kind, data=st.data())
def test_neither_the_order_of_rows_nor_their_batches_matter(rows: list[Row], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    assert fingerprint(shuffled[:cut], shuffled[cut:]) == fingerprint(rows)


@given(rows=rows_of_any_kind, data=st.data())
def test_every_change_is_seen(rows: list[Row], data: st.DataObject) -> None:
    whole, at = fingerprint(rows), data.draw(st.integers(0, len(rows) - 1))
    query, output, score = rows[at]
    for other in [(f"{query}.", output, score), (query, f"{output}\0", score), (query, output, 1 if score == 0 else 0)]:
        assert fingerprint([*rows[:at], other, *rows[at + 1 :]]) != whole
    assert fingerprint([*rows[:at], *rows[at + 1 :]]) != whole
    assert fingerprint([*rows, rows[at]]) != whole


def test_a_text_in_another_column_is_another_content_and_blank_is_not_null() -> None:
    assert fingerprint([("a", None, 1)]) != fingerprint([(None, "a", 1)])
    assert fingerprint([("a", "", 1)]) != fingerprint([("a", None, 1)])
