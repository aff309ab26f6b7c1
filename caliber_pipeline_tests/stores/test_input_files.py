"""Reading CSV, JSONL and Parquet: every row with its line, broken ones apart, unusable files refused in one line."""

import csv
import datetime as dt
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caliber_pipeline.annotate.transfer import load_annotation_file
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.settings import Settings
from caliber_pipeline.stores import input_files
from caliber_pipeline.stores.ingest import load_records
from caliber_pipeline.stores.ingest_records import ingest_records
from caliber_pipeline.stores.input_files import InputFile, load_rows
from caliber_pipeline.stores.jsonl_blocks import parse_block
from caliber_pipeline.stores.tables import TableStore


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines_count_line_breaks_inside_quotes_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", 'id,text\n1,"two\nlines"\n\n2,plain\n3,too,many\n4,last\n')
    rows = load_rows(path)
    assert rows.table.column("id").to_pylist() == ["1", "2", "4"]
    assert rows.lines.to_pylist() == [2, 5, 7]
    assert rows.broken.to_pylist() == [
        {"source": "r.csv", "line": 6, "reason": "has 3 values for 2 columns", "raw": "3,too,many"}
    ]


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "r.csv", b"\xef\xbb\xbfid,text\r\n1,a\r\n"))
    assert rows.table.to_pylist() == [{"id": "1", "text": "a"}]


def test_blank_values_are_null_and_the_rest_stays_text(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "r.csv", 'id,text,score\n007,"",NA\n1.0, ,null\n'))
    assert rows.table.to_pylist() == [
        {"id": "007", "text": None, "score": "NA"},
        {"id": "1.0", "text": " ", "score": "null"},
    ]


def test_jsonl_keeps_what_is_no_object_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"id": 1, "tags": ["a"], "ok": true}\n{broken\n\n[1]\n{"id": 2, "new": 0.5}\n')
    rows = load_rows(path)
    assert rows.table.to_pylist() == [
        {"id": "1", "tags": '["a"]', "ok": "true", "new": None},
        {"id": "2", "tags": None, "ok": None, "new": "0.5"},
    ]
    assert rows.lines.to_pylist() == [1, 5]
    assert [(r["line"], r["reason"]) for r in rows.broken.to_pylist()] == [
        (2, "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (4, "is not a JSON object"),
    ]


DEEP_REASON = "is nested more than 100 levels deep"
HALF_PAIR_REASON = "'{}' holds half a surrogate pair (\\ud800 to \\udfff), which is no character"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}", DEEP_REASON),
        ('{"id": ' * 5_000 + "1" + "}" * 5_000, DEEP_REASON),
        ('{"id": ' + "[" * 100 + "]" * 100 + "}", DEEP_REASON),
        (r'{"id": "\ud800"}', HALF_PAIR_REASON.format("id")),
        (r'{"id": ["\uDC00"]}', HALF_PAIR_REASON.format("id")),
        (r'{"a\udc00\ud800": 1}', HALF_PAIR_REASON.format("a??")),
        (
            '{"id": ' + "9" * 5_000 + "}",
            "holds an integer of more than 4300 digits",
        ),
        ('{"id": "1", "tags": [], "id": "3"}', "names 'id' twice"),
        (r'{"id": [{"a\udc00": 1, "a\udc00": 1}]}', "names 'a?' twice"),
    ],
    ids=[
        "deep arrays",
        "deep objects",
        "101 levels",
        "high half",
        "low half",
        "name",
        "long integer",
        "twice",
        "inner",
    ],
)
@pytest.mark.parametrize("others", ['{"id": "2"}', '{"id": "2", "tags": ["a"]}'], ids=["flat", "nested"])
def test_a_jsonl_line_that_nothing_can_read_is_rejected_alone(
    tmp_path: Path, line: str, reason: str, others: str
) -> None:
    rows = load_rows(write(tmp_path / "r.jsonl", f"{others}\n{line}\n{others}\n"))
    assert rows.table.column("id").to_pylist() == ["2", "2"]
    assert rows.lines.to_pylist() == [1, 3]
    assert [(r["line"], r["raw"]) for r in rows.broken.to_pylist()] == [(2, line)]
    assert rows.broken["reason"].to_pylist() == [reason]


def test_a_jsonl_line_may_be_nested_and_full_of_brackets(tmp_path: Path) -> None:
    deep = "[" * 99 + "]" * 99  # with the line's object a hundred levels
    lines = [f'{{"id": 1, "tags": {deep}}}', '{"id": 2, "tags": "' + "[" * 10_000 + r' \ud83d\ude00"}']
    rows = load_rows(write(tmp_path / "r.jsonl", "\n".join(lines)))
    assert rows.table.column("tags").to_pylist() == [deep, "[" * 10_000 + " 😀"]
    assert rows.broken.num_rows == 0


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["1", "2"], ["1", "2"]),
        (["1.0", "2.50", "null"], ["1", "2.5", None]),
        (["123456789012.0", "9007199254740991.0"], ["123456789012", "9007199254740991"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["-0.0", "NaN", "1e3"], ["0", None, "1000"]),
        (["1e22", "0.00001"], ["1e+22", "1e-05"]),
        (['"1.0"', '"NaN"'], ["1.0", "NaN"]),
    ],
)
@pytest.mark.parametrize("last", ["", "[]"], ids=["all at once", "line by line"])
def test_jsonl_numbers_are_written_plainly_and_texts_stay(
    tmp_path: Path, values: list[str], texts: list[str | None], last: str
) -> None:
    lines = [f'{{"id": {value}}}' for value in values]
    rows = load_rows(write(tmp_path / "r.jsonl", "\n".join([*lines, last])))
    assert rows.table.column("id").to_pylist() == texts


numbers = st.integers() | st.floats() | st.floats(-1e6, 1e6) | st.integers(-(2**70), 2**70).map(float)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | numbers, min_size=1, max_size=4))
def test_a_number_has_one_text_however_its_block_is_read(tmp_path: Path, values: list[float | None]) -> None:
    lines = [json.dumps({"id": value}) for value in values]
    at_once = load_rows(write(tmp_path / "r.jsonl", "\n".join(lines)))
    each = load_rows(write(tmp_path / "s.jsonl", "\n".join([*lines, "[]"])))
    assert at_once.table == each.table
    assert each.table.num_rows == len(values)


def test_integer_ids_of_a_parquet_column_with_nulls_stay_integers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1.0, None, 3.0], "text": ["a", "b", ""]})
    frame.to_parquet(tmp_path / "r.parquet")
    assert load_rows(tmp_path / "r.parquet").table.to_pylist() == [
        {"id": "1", "text": "a"},
        {"id": None, "text": "b"},
        {"id": "3", "text": None},
    ]


def test_numbers_of_a_parquet_file_are_written_plainly_and_nan_is_blank(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([10_000_000_000.0, 123_456_789_012.0, 2.0]),  # as Arrow casts it: 1e+10
        "score": pa.array([1.0, float("nan"), None], pa.float32()),
        "share": pa.array([0.1, 0.5, float("nan")], pa.float32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    assert load_rows(tmp_path / "r.parquet").table.to_pydict() == {
        "id": ["10000000000", "123456789012", "2"],
        "score": ["1", None, None],
        "share": ["0.1", "0.5", None],
    }


IMAGE = b"\x89PNG\xff"
BYTES_OF_NO_TEXT = [
    pa.array([b"text", IMAGE]),
    pa.array([b"text", IMAGE], pa.large_binary()),
    pa.array([b"text", IMAGE[:4]], pa.binary(4)),
    pa.array([{"path": "a.png", "bytes": b"text"}, {"path": "b.png", "bytes": IMAGE}]),
]


@pytest.mark.parametrize("image", BYTES_OF_NO_TEXT, ids=lambda array: str(array.type))
def test_a_parquet_column_of_bytes_is_left_out_and_the_log_says_so(
    tmp_path: Path, image: pa.Array, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "output": [b"c", b"d"], "image": image, "n": [1, 2]}), path)
    rows = load_rows(path)
    assert rows.table.drop_columns("image").to_pylist() == [
        {"query": "a", "output": "c", "n": "1"},
        {"query": "b", "output": "d", "n": "2"},
    ]
    assert caplog.messages == [f"{path}: left out image: bytes that are no UTF-8 text"]
    records = load_records(Settings(records=path)).table
    assert [dict(metadata) for metadata in records["metadata"]] == [{"n": "1"}, {"n": "2"}]


@pytest.mark.parametrize("options", [{"columns": {"reference": "image"}}, {"group_by": "image"}, {}], ids=str)
def test_a_parquet_column_of_bytes_that_is_needed_is_named(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "r.parquet"
    name = "image" if options else "query"
    pq.write_table(pa.table({"question": ["a"], "output": ["b"], name: [IMAGE]}), path)
    message = f"r.parquet: column '{name}' holds bytes that are no UTF-8 text; write it as text"
    with pytest.raises(InputError, match=message):
        load_records(Settings.checked({"records": path, **options}))
    with pytest.raises(InputError, match=message):
        ingest_records(Settings.checked({"records": path, **options}), TableStore(str(tmp_path)))


def test_annotations_of_bytes_are_refused_in_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"record_id": ["1"], "score": [1], "notes": [IMAGE]}), tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"r\.parquet: column 'notes' holds bytes that are no UTF-8 text"):
        load_annotation_file(tmp_path / "r.parquet", pd.DataFrame({"record_id": ["1"]}))


def test_parquet_lists_and_times_are_shown_as_json(tmp_path: Path) -> None:
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    columns = {"tags": [[b"\xc3\xa4", None]], "history": [{"at": when, "cost": Decimal("1.50")}]}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    assert load_rows(tmp_path / "r.parquet").table.to_pylist() == [
        {"tags": '["ä", null]', "history": '{"at": "2026-01-02 03:04:05+00:00", "cost": "1.50"}'}
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "", "the file is empty"),
        ("r.csv", "id,text\n", "no rows below its header"),
        ("r.csv", "id,text", "no rows below its header"),
        ("r.csv.gz", gzip.compress(b"\xef\xbb\xbfid,text", mtime=0), "no rows below its header"),
        ("r.csv", 'id,"text\n1,a\n', "is it comma-separated with quoted texts"),
        ("r.csv", "\nid,text\n1,a\n", "the first line is blank"),
        ("r.csv", "id,id\n1,2\n", r"1 column names repeat, e.g. \['id'\]"),
        ("r.csv", b"id,text\n1,a\n2,\xff\xfe\n", "line 3 is not UTF-8"),
        ("r.csv", "id,text\n1,é".encode()[:-1], "the last line ends inside a UTF-8 character"),
        ("r.csv", "id,text\n1,a\n".encode("utf-16"), "line 1 is UTF-16, not UTF-8"),
        ("r.csv", gzip.compress(b"id,text\n1,a\n", mtime=0), r"is gzipped; name it r.csv.gz, or unpack it"),
        ("r.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0)[:-4], "cannot be unpacked .*; pack or copy it again"),
        ("r.jsonl.gz", b"id", "cannot be unpacked .*; pack or copy it again"),
        ("r.csv.gz", gzip.compress(b"id,text\n1,\xff\n", mtime=0), "line 2 is not UTF-8"),
        ("r.parquet.gz", gzip.compress(b"PAR1", mtime=0), "unknown format '.gz'; give one of .csv, .tsv, .jsonl"),
        ("r.xlsx", "PK", "unknown format '.xlsx'; save it as UTF-8 CSV"),
        ("r.json", "[]", "unknown format '.json'; write one object per line and name it .jsonl"),
        (
            "r.jsonl",
            '[\n{"id": 1\n}]',
            r"no line of it is a JSON object with values \(line 1 is not JSON: .*one object per line",
        ),
        ("r.jsonl", "\n\n{}\n", "no line of it is a JSON object with values; write one object per line"),
        ("r.parquet", "no", "is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_rows(write(tmp_path / name, content))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        load_rows(tmp_path / "none.csv")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(0, 99), texts, texts), min_size=1, max_size=8))
def test_every_row_comes_out_on_its_line_whatever_the_texts(tmp_path: Path, rows: list[tuple[int, str, str]]) -> None:
    path = tmp_path / "r.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("id", "a", "b"), *rows])
    loaded = load_rows(path)
    assert loaded.broken.num_rows == 0
    assert loaded.table.to_pylist() == [{"id": str(i), "a": a or None, "b": b or None} for i, a, b in rows]
    # A row starts one line after the header and after each row before it, and after every line feed inside these.
    starts = [2 + k + sum((a + b).count("\n") for _, a, b in rows[:k]) for k in range(len(rows))]
    assert loaded.lines.to_pylist() == starts


def test_a_jsonl_file_of_what_json_writes_comes_back(tmp_path: Path) -> None:
    content = [{"id": i, "text": "ünï\ncode\u2028", "n": None} for i in range(3)]
    path = write(tmp_path / "r.jsonl", "\n".join(json.dumps(c) for c in content))
    assert load_rows(path).table.to_pylist() == [{"id": str(i), "text": "ünï\ncode\u2028", "n": None} for i in range(3)]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_a_gzipped_file_holds_what_the_plain_one_does(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(i), "text": f"é{i}\n"} for i in range(50)]
    content = {
        "r.csv": "\ufeffid,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows) + "a,b,c\n",
        "r.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + "{broken\n",
    }[name].encode()
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 100)
    plain = load_rows(write(tmp_path / name, content))
    packed = load_rows(write(tmp_path / f"{name}.gz", gzip.compress(content)))
    assert packed.table.equals(plain.table)
    assert packed.lines.equals(plain.lines)
    assert plain.table.to_pylist() == rows
    shown = ["line", "reason", "raw"]
    assert packed.broken.select(shown).equals(plain.broken.select(shown))
    assert plain.broken.num_rows == 1


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_seen_where_the_first_line_has_no_comma(tmp_path: Path, delimiter: str) -> None:
    lines = [["\ufeffid", "query", "output"], ["1", '"a,b"', "c"], ["2", f'"{delimiter}"', ""], ["3", "d"]]
    path = write(tmp_path / "r.csv", "\n".join(delimiter.join(line) for line in lines))
    rows = load_rows(path)
    assert rows.table.to_pylist() == [
        {"id": "1", "query": "a,b", "output": "c"},
        {"id": "2", "query": delimiter, "output": None},
    ]
    assert rows.broken.select(["line", "reason", "raw"]).to_pylist() == [
        {"line": 4, "reason": "has 2 values for 3 columns", "raw": f"3{delimiter}d"}
    ]
    assert rows.render_raw(pa.array([False, True])) == [f'2{delimiter}"{delimiter}"{delimiter}']


def test_a_tsv_file_is_separated_by_tabs_whatever_its_first_line_holds(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "r.tsv", "id\tquery, as asked\n1\ta,b\n"))
    assert rows.table.to_pylist() == [{"id": "1", "query, as asked": "a,b"}]
    assert load_rows(write(tmp_path / "s.tsv", "id\n1\n")).table.to_pylist() == [{"id": "1"}]


def test_a_quote_that_is_never_closed_is_named_with_the_line_it_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 1 << 20)
    sound = "".join(f"{i},{'x' * 100}\n" for i in range(30_000))
    with pytest.raises(
        InputError, match=r"a row from line \d+ on does not end within 1 MB; if a quote is open"
    ) as error:
        load_rows(write(tmp_path / "r.csv", f'id,text\n{sound}a,"b\n{sound}'))
    line = int(str(error.value).partition("from line ")[2].split()[0])
    assert 10_000 < line <= 30_002


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
@pytest.mark.parametrize(
    "behind",
    ['2,a,"b\n3,c,d\n', '2,a,"b\n3,c,""\n', '2,a,"b\r\n3,c,""d""', '2,"a,b\n3,c,d\n'],
    ids=["last column", "a quote at the end", "no line end", "another column"],
)
def test_rows_that_an_open_quote_swallows_at_the_end_are_missed(tmp_path: Path, behind: str, name: str) -> None:
    content = f"id,query,output\n1,a,b\n{behind}".encode()
    with pytest.raises(InputError, match="a quote in the row on line 3 is open to the end of the file; close it"):
        load_rows(write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content))


@pytest.mark.parametrize(
    ("last", "n_broken"),
    [
        ('2,a,"b\n"', 0),
        ('2,a,"b\n""c"""\n', 0),
        ('2,a,"b\nc"d\n', 0),
        ('2,a,"b\nc,",d\n', 1),
        ('2,a,"b",c"d\n', 1),
        ('2,a,"\n"\n', 0),
        ('2,a,"\r\n"\r\n', 0),
    ],
)
def test_a_text_that_is_closed_before_the_end_of_the_file_is_no_open_quote(
    tmp_path: Path, last: str, n_broken: int
) -> None:
    rows = load_rows(write(tmp_path / "r.csv", f"id,query,output\n1,a,b\n{last}"))
    assert (rows.table.num_rows, rows.broken.num_rows) == (2 - n_broken, n_broken)


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("swallowing", "behind"),
    [
        (['5,"he said hi,e', "6,f,g", '9,"fine text",z'], []),
        (['5,a,"he said hi', "6,f,g", '9,a,"fine text"'], []),
        (['5,a,"he said ""hi"" twice', '9,a,"fine ""text"""'], []),
        (['5,a,"he said hi', "6,f,g", '9,a,"fine'], ['text"']),
    ],
    ids=["another column", "last column", "doubled quotes", "a text of two lines"],
)
def test_rows_that_an_open_quote_swallows_up_to_a_later_quote_are_shown_with_it(
    tmp_path: Path, swallowing: list[str], behind: list[str], line_end: str, name: str
) -> None:
    before = ["id,query,output", '1,"two', 'lines ""quoted""",b', '2,6" long,"two', '""lines"""']
    text = line_end.join([*before, *swallowing, *behind, "10,h,i", ""])
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    rows = load_rows(write(tmp_path / name, content))
    assert rows.table.column("id").to_pylist() == ["1", "2", "10"]
    assert rows.lines.to_pylist() == [2, 4, 6 + len(swallowing) + len(behind)]
    shown, *rest = rows.broken.to_pylist()
    reason = f"a quote that is open, or not doubled, makes lines 6 to {5 + len(swallowing)} one row; close or double it"
    assert (shown["line"], shown["reason"]) == (6, reason)
    assert shown["raw"] == line_end.join(swallowing)
    assert [row["reason"] for row in rest] == ["has 1 values for 3 columns"] * len(behind)


def test_a_swallowing_quote_is_found_in_any_block_and_lines_stay_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 4096)
    lines, expected = ["id,query,output"], []
    for number in range(600):
        lines += [f'{number},"two', 'lines ""here""",b']
        if number % 100 == 50:
            expected.append(len(lines) + 1)
            lines += ['x,"open,b', "y,c,d", 'z,"fine",e']
    rows = load_rows(write(tmp_path / "r.csv", "\n".join([*lines, ""])))
    assert rows.table.column("id").to_pylist() == [str(number) for number in range(600)]
    assert rows.broken.column("line").to_pylist() == expected


PARTS = ["\r\n", "\n", "\r", '"', ",", "ä", "word"]  # what a row, a text or a block may begin and end with
texts = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


def quoted(text: str) -> str:
    """The text as a value of CSV; Python's writer leaves a carriage return alone unquoted."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if set(text) & set('",\r\n') else text


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.none() | st.tuples(texts, texts), min_size=1, max_size=12),
    line_end=st.sampled_from(["\r\n", "\n", "\r"]),
    block_bytes=st.integers(64, 200),
    is_gzipped=st.booleans(),
    is_ended=st.booleans(),
)
def test_texts_and_lines_are_those_of_the_file_wherever_its_blocks_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, str] | None],
    line_end: str,
    block_bytes: int,
    is_gzipped: bool,
    is_ended: bool,
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", block_bytes)
    written, lines, line = ["id,query,output"], [], 2
    for number, row in enumerate([*rows, ("last", "row")]):
        if row is None:
            written.append("")  # a blank line
        else:
            written.append(",".join([str(number), *map(quoted, row)]))
            lines.append(line)
        line += 1 + sum(text.count("\n") for text in row or ())
    content = line_end.join([*written, ""] if is_ended else written)
    packed = gzip.compress(content.encode()) if is_gzipped else content.encode()
    found = load_rows(write(tmp_path / ("r.csv.gz" if is_gzipped else "r.csv"), packed))
    expected = [row for row in csv.reader(io.StringIO(content, newline="")) if row][1:]
    assert [[value or "" for value in row.values()] for row in found.table.to_pylist()] == expected
    assert found.lines.to_pylist() == lines
    assert found.broken.num_rows == 0


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
@pytest.mark.parametrize("n_before", range(8))
def test_a_line_break_across_two_blocks_stays_and_later_faults_are_found_on_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_before: int, name: str
) -> None:
    head = b'id,query,output\r\n1,q,"'
    swallowing = b'3,q,"open\r\n4,q,o\r\n5,q,"fine"\r\n'
    content = head + b"x" * (60 - len(head)) + b"\r\n" * 4 + b'y"\r\nshort\r\n' + swallowing + b"6,q,o\r\n"
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 61 + n_before)  # one of them ends within each line break
    rows = load_rows(write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content))
    assert rows.table.column("output").to_pylist() == ["x" * (60 - len(head)) + "\r\n" * 4 + "y", "o"]
    assert rows.lines.to_pylist() == [2, 11]
    assert rows.broken.column("line").to_pylist() == [7, 8]
    assert rows.broken.column("raw").to_pylist() == ["short", swallowing.decode().removesuffix("\r\n")]


@pytest.mark.parametrize("text", ["", "the same"], ids=["texts of their own", "a text that repeats"])
@pytest.mark.parametrize("image", [b"\x00", b"\xff" * 50_000], ids=["", "images left out"])
def test_batches_of_long_parquet_texts_are_blocks_and_images_make_them_no_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, image: bytes
) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 100_000)
    texts = [f"{text or number}{'x' * 1000}" for number in range(1000)]
    pq.write_table(pa.table({"query": texts, "image": [image] * 1000}), tmp_path / "r.parquet", row_group_size=500)
    sizes = [rows.table.num_rows for rows in InputFile(tmp_path / "r.parquet").batches()]
    assert sum(sizes) == 1000
    assert 80 <= max(sizes) <= 100  # of about 1,000 bytes each


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"query": ["q" * 100] * 1000}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    with pytest.raises(InputError, match=r"r\.parquet: is damaged .*; write or copy it again"):
        load_rows(write(path, bytes(content)))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_of_flat_objects_are_read_at_once_whatever_ends_them(line_end: str) -> None:
    lines = ['{"id": 1, "text": "a\\r\\n"}', '{"id": 2, "text": "b"}']
    for whole in (line_end.join(lines), line_end.join([*lines, ""])):
        block = parse_block(whole.encode(), 5)
        assert {name: column.to_pylist() for name, column in block.columns.items()} == {
            "id": ["1", "2"],
            "text": ["a\r\n", "b"],
        }
        assert isinstance(block.columns["id"], pa.ChunkedArray)  # as Arrow's reader gives them, and no other
        assert block.lines.to_pylist() == [5, 6]
        assert block.next_line == 5 + whole.count("\n")
