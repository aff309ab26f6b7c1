"""Hashes of texts and fingerprints of rows: stable, told apart, and free of order and batches."""

from random import Random

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caliber_pipeline.core import fingerprints
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.criteria import Criteria
from caliber_pipeline.core.fingerprints import (
    RowsFingerprint,
    content_hashes,
    digest,
    fingerprint_frame,
    hash_strings,
    hash_texts,
    verdict_fingerprints,
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


contents = st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9), st.none() | st.text(max_size=9)), max_size=20)


@given(contents=contents, slice_bytes=st.integers(1, 50), cut=st.integers(0, 20))
@settings(deadline=None)
def test_the_hash_of_a_content_is_the_digest_of_its_three_texts(
    contents: list[tuple[str, str, str | None]], slice_bytes: int, cut: int
) -> None:
    names = ("query", "output", "reference")
    columns = [pa.array(texts, pa.string()) for texts in zip(*contents, strict=True)] or [pa.nulls(0, pa.string())] * 3
    cut_in_two = [pa.chunked_array([column[:cut], column[cut:]]) for column in columns]
    whole = [digest(*texts) for texts in contents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "_SLICE_BYTES", slice_bytes)
        for parts in (columns, cut_in_two):
            assert content_hashes(frame_from_arrow(pa.table(dict(zip(names, parts, strict=True))))) == whole
    assert content_hashes(pd.DataFrame(contents, columns=names, dtype=object)) == whole


def test_the_fingerprints_of_contents_and_verdicts_are_part_of_what_is_stored() -> None:
    # Others would make every cached verdict useless.
    record = pd.DataFrame({"query": ["q"], "output": ["antwört 答え"], "reference": [None]})
    content = "26192acfb279c148d8bb250e1073246d9bb8b767a8df65e3701146f3905d579d"
    assert content_hashes(record) == [content]
    of_verdict = "4071d26235b9571f85c45170e6a1d3ef41a5106fb2d77574f6c53412f2921e27"
    identity: dict[str, str | float] = {"provider": "p", "model": "m", "temperature": 0.5}
    assert verdict_fingerprints([content], Criteria(criteria="be right"), identity) == [of_verdict]


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
