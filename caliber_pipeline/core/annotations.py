"""Stage `annotations`: people's verdicts, from a file of their own or from the records, and the labels they give."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.column_names import ANNOTATION_ALIASES, GOLD, SCORE_FORMS
from caliber_pipeline.core.columns import Faults, blank_to_null, is_blank, parse_scores, require_text, resolve_columns
from caliber_pipeline.core.conforming import conform_table, frame_from_arrow
from caliber_pipeline.core.fingerprints import fingerprint_frame
from caliber_pipeline.core.records import ParsedRows
from caliber_pipeline.core.schemas import ANNOTATIONS, UTC_TIMESTAMP

UNNAMED: Final = "unnamed"
FINGERPRINTED = ("record_id", "annotator", "score", "notes", "severity", "inclusion_probability", "is_gold")


def parse_annotations(
    rows: pa.Table,
    lines: pa.Array,
    record_ids: pd.Series,
    *,
    source: str,
    mapping: Mapping[str, str] | None = None,
) -> ParsedRows:
    """Parse rows of text into annotations.

    A row is rejected where its record is unknown, its score is blank or of no known form, one of its other values
    cannot be read, or the same annotator's verdict on the same record at the same time was there before.

    Args:
        rows: One string column per column of the file, blank as null; a binary column is one that is no text.
        lines: The line on which each row starts.
        record_ids: The ids of the known records.
        source: The file's name, for messages.
        mapping: Our column names to the file's, where the aliases do not fit.

    Raises:
        InputError: a required column, or one that was named, is missing or no text.
    """
    columns = resolve_annotation_columns(rows.column_names, mapping or {}, source=source)
    require_text(rows, columns.values(), source=source)
    nulls = pa.nulls(rows.num_rows, pa.string())
    texts = {
        name: blank_to_null(rows.column(columns[name])) if name in columns else pa.chunked_array([nulls])
        for name in ANNOTATION_ALIASES
    }
    faults = Faults(rows.num_rows)
    ids = pc.utf8_trim_whitespace(texts["record_id"])
    known = pa.array(record_ids, pa.string(), from_pandas=True)
    faults.add(is_blank(ids), "record_id is blank")
    is_unknown = pc.and_(pc.is_valid(ids), pc.invert(pc.is_in(ids, known)))
    faults.add_values(is_unknown, "record_id", ids, "among the records")
    scores, is_wrong = parse_scores(texts["score"])
    faults.add_values(is_wrong, "score", texts["score"], SCORE_FORMS)
    faults.add(is_blank(texts["score"]), "score is blank: not annotated yet")
    annotators = pc.fill_null(pc.utf8_trim_whitespace(texts["annotator"]), UNNAMED)
    created_at = _parse_times(texts["created_at"], faults)
    table = pa.table(
        {
            "record_id": ids,
            "annotator": annotators,
            "score": scores,
            "notes": texts["notes"],
            "severity": _parse_numbers("severity", texts["severity"], faults, low=0.0, high=None),
            "created_at": created_at,
            "criteria_version": texts["criteria_version"],
            "inclusion_probability": _parse_numbers(
                "inclusion_probability", texts["inclusion_probability"], faults, low=0.0, high=1.0
            ),
            "is_gold": pc.equal(annotators, GOLD),
        }
    )
    _reject_repeats(table, lines, faults)
    accepted = table.filter(pc.invert(faults.is_faulty))
    return ParsedRows(
        frame_from_arrow(conform_table(accepted, ANNOTATIONS, "annotations")), faults.is_faulty, faults.reasons
    )


def resolve_annotation_columns(names: Sequence[str], mapping: Mapping[str, str], *, source: str) -> dict[str, str]:
    """Which column of a file of annotations holds which of our columns.

    Raises:
        InputError: a required column, or one that was named, is missing.
    """
    required = ("record_id", "score")
    return resolve_columns(names, ANNOTATION_ALIASES, required, mapping, source=source, setting="annotation_columns")


def annotations_from_records(records: pd.DataFrame) -> pd.DataFrame:
    """The annotations that came in the records file: its gold labels and the scores of single annotators."""
    human = records.loc[records["human_score"].notna(), ["record_id", "human_score", "human_notes"]]
    gold = human.rename(columns={"human_score": "score", "human_notes": "notes"}).assign(annotator=GOLD, is_gold=True)
    ratings = pa.array(records["ratings"], from_pandas=True)
    flat = pc.list_flatten(ratings)
    is_scored = pc.is_valid(pc.struct_field(flat, "score"))
    flat, parents = flat.filter(is_scored), pc.list_parent_indices(ratings).filter(is_scored)
    single = pa.table(
        {
            "record_id": pa.array(records["record_id"], from_pandas=True).take(parents),
            **{name: pc.struct_field(flat, name) for name in ("annotator", "score", "notes")},
        }
    )
    both = pa.concat_tables(
        [_complete(pa.Table.from_pandas(gold, preserve_index=False)), _complete(single)], promote_options="none"
    )
    return frame_from_arrow(both)


def combine_annotations(from_records: pd.DataFrame, from_file: pd.DataFrame) -> pd.DataFrame:
    """All annotations, sorted by record and annotator."""
    both = pd.concat([from_records, from_file], ignore_index=True)
    return both.sort_values(["record_id", "annotator", "created_at"], kind="stable", ignore_index=True)


def fingerprint_annotations(annotations: pd.DataFrame) -> str:
    """Fingerprint of what labels, weights and patterns read of the annotations; their order does not matter."""
    return fingerprint_frame(annotations, FINGERPRINTED)


def complete_annotations(annotations: pd.DataFrame) -> pd.DataFrame:
    """With `is_gold` and `created_at`, where they are not given: nobody's label is gold, and no time is known."""
    complete = annotations.assign()
    if "is_gold" not in complete:
        complete["is_gold"] = False
    if "created_at" not in complete:
        complete["created_at"] = pd.NaT
    return complete


def latest_verdicts(annotations: pd.DataFrame) -> pd.DataFrame:
    """The rows of which the annotator judged the record last."""
    ordered = annotations.sort_values("created_at", na_position="first", kind="stable")
    return ordered.drop_duplicates(["record_id", "annotator"], keep="last")


def _complete(table: pa.Table) -> pa.Table:
    """The table with the columns of the schema that it lacks, as null."""
    for field in ANNOTATIONS:
        if field.name not in table.column_names:
            empty = pa.nulls(table.num_rows, field.type) if field.nullable else pa.array([False] * table.num_rows)
            table = table.append_column(field.name, empty)
    return conform_table(table.select(ANNOTATIONS.names), ANNOTATIONS, "annotations")


def _parse_times(texts: pa.ChunkedArray, faults: Faults) -> pa.Array:
    parsed = pd.to_datetime(texts.to_pandas(), errors="coerce", utc=True, format="ISO8601")
    is_wrong = pa.chunked_array([pa.array(parsed.isna() & texts.is_valid().to_pandas())])
    faults.add_values(is_wrong, "created_at", texts, "a date and time like 2026-01-31T12:00:00Z")
    return pa.array(parsed, pa.timestamp("ns", tz="UTC"), from_pandas=True).cast(UTC_TIMESTAMP, safe=False)


def _parse_numbers(name: str, texts: pa.ChunkedArray, faults: Faults, *, low: float, high: float | None) -> pa.Array:
    numbers = pd.to_numeric(texts.to_pandas().astype(object), errors="coerce").astype("float64")
    is_in_range = (numbers > low) & ((numbers <= high) if high is not None else (numbers < float("inf")))
    is_wrong = pa.chunked_array([pa.array(texts.is_valid().to_pandas() & ~is_in_range)])
    faults.add_values(is_wrong, name, texts, f"a number over {low:g}" + (f" and at most {high:g}" if high else ""))
    return pa.array(numbers.where(is_in_range), pa.float64(), from_pandas=True)


def _reject_repeats(table: pa.Table, lines: pa.Array, faults: Faults) -> None:
    frame = table.select(["record_id", "annotator", "created_at"]).to_pandas().assign(line=lines.to_pandas())
    sound = frame[~faults.is_faulty.to_numpy(zero_copy_only=False)]
    keys = ["record_id", "annotator", "created_at"]
    is_repeat = pd.Series(data=False, index=frame.index)
    is_repeat[sound.index] = sound.duplicated(keys)
    if not is_repeat.any():
        return
    first_line = sound.groupby(keys, dropna=False)["line"].transform("first").reindex(frame.index).fillna(0)
    is_named = frame["annotator"] != UNNAMED
    who = ("annotator '" + frame["annotator"].fillna("") + "' judged").where(is_named, "somebody judged")
    where = " '" + frame["record_id"].fillna("") + "' before, on line " + first_line.astype("int64").astype(str)
    advice = "give each verdict its own created_at"
    reasons = who + where + "; " + is_named.map({True: advice, False: f"name the annotators' column, or {advice}"})
    faults.add(pa.array(is_repeat), pa.array(reasons, pa.string(), from_pandas=True))
