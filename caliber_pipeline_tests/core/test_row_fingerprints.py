"""Hashes of texts and fingerprints of rows: stable, told apart, and free of order and batches."""

from random import Random

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core.fingerprints import (
    RowsFingerprint,
    fingerprint_frame,
    hash_strings,
    hash_texts,
)

texts = st.lists(st.text(max_size=20), max_size=30)


@given(texts=texts, start=st.integers(0, 5))
@settings(deadline=None)
def test_the_hash_of_a_text_depends_on_the_text_alone(texts: list[str], start: int) -> None:
    column = pa.array(texts, pa.string())
    whole = hash_strings(column).tolist()
    assert [hash_strings(pa.array([text])).tolist()[0] for text in texts] == whole
    assert hash_strings(column[start:]).tolist() == whole[start:]
    assert hash_strings(pa.chunked_array([column[:start], column[start:]])).tolist() == whole
    assert hash_texts(pd.Series(texts, dtype="string[pyarrow]")).tolist() == whole
    # 64 bits: two of a few dozen texts have the same hash once in 10^16 runs
    assert len(set(whole)) == len(set(texts))


def test_long_columns_are_hashed_whole() -> None:
    texts = pd.Series(map(str, range(5000)), dtype="string[pyarrow]")
    hashes = hash_strings(pa.array(texts, from_pandas=True))
    assert hashes.tolist() == hash_texts(texts).tolist()
    assert len(set(hashes.tolist())) == 5000


@given(text=st.text())
@settings(deadline=None)
def test_another_key_gives_another_hash(text: str) -> None:
    assert hash_strings(pa.array([text])) != hash_strings(pa.array([text]), "another 16 bytes")


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "a\0"), ("", "\0"), ("12345678abcdefgh", "abcdefgh12345678"), ("12345678", "123456780"), ("é", "e")],
)
def test_texts_that_differ_in_their_end_or_order_are_told_apart(one: str, other: str) -> None:
    first, second = hash_strings(pa.array([one, other]))
    assert first != second


def test_the_hashes_are_part_of_what_is_stored() -> None:
    # Other values would give other fingerprints: everything that was judged would count as judged on other data.
    assert hash_strings(pa.array(["caliber"])).tolist() == [4397619645662111531]


@given(texts=st.lists(st.none() | st.text(max_size=20), max_size=30))
@settings(deadline=None)
def test_a_column_whose_hashes_are_known_counts_as_it_does_otherwise(texts: list[str]) -> None:
    table = pa.table(
        {"id": pa.array([text or "" for text in texts], pa.string()), "text": pa.array(texts, pa.string())}
    )
    plain, helped = RowsFingerprint(["id", "text"]), RowsFingerprint(["id", "text"])
    plain.add(table)
    helped.add(table, {"id": hash_strings(table.column("id"))})
    assert helped.hexdigest() == plain.hexdigest()


rows = st.lists(st.tuples(st.text(max_size=5), st.none() | st.integers(0, 1)), max_size=20)


def frame_of(rows: list[tuple[str, int | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": pd.Series([text for text, _ in rows], dtype="string[pyarrow]"),
            "score": pd.Series([score for _, score in rows], dtype="int8[pyarrow]"),
        }
    )


@given(rows=rows, cut=st.integers(0, 20), random=st.randoms())
@settings(deadline=None)
def test_neither_order_nor_batches_change_a_fingerprint(
    rows: list[tuple[str, int | None]], cut: int, random: Random
) -> None:
    columns = ["text", "score"]
    whole = fingerprint_frame(frame_of(rows), columns)
    shuffled = list(rows)
    random.shuffle(shuffled)
    parts = RowsFingerprint(columns)
    for part in (shuffled[:cut], shuffled[cut:]):
        parts.add(pa.table({name: pa.array(frame_of(part)[name], from_pandas=True) for name in columns}))
    assert parts.hexdigest() == whole
    assert fingerprint_frame(frame_of([*rows, ("x", 1)]), columns) != whole
    if rows:
        text, score = rows[0]
        assert fingerprint_frame(frame_of([(text + "x", score), *rows[1:]]), columns) != whole
        changed = 1 if score is None else None
        assert fingerprint_frame(frame_of([(text, changed), *rows[1:]]), columns) != whole
