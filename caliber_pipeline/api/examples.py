"""What a judge is shown: labelled records, or pairs of input and output that are quoted as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from caliber_pipeline.api.fields import Item, parse_score, read_field, read_id, read_text
from caliber_pipeline.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from caliber_pipeline.core.criteria import ExampleRef


class Example(BaseModel):
    """One example; with a human_score a record and its verdict, without one a pair that is quoted as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_id: str | None = None
    query: str | None = None
    output: str | None = None
    reference: str | None = None
    human_score: Literal[0, 1] | None = None
    human_notes: str | None = None

    @classmethod
    def parse(cls, item: Item) -> Example:
        """An example from a model, dict or object with any of the usual names, or the id of an annotated record."""
        if isinstance(item, Example):
            return item
        if isinstance(item, str | Integral):
            return cls(record_id=str(item))
        score = read_field(item, "human_score", read_field(item, "score", read_field(item, "label")))
        texts = {name: read_text(item, name) for name in ("query", "output", "reference", "human_notes")}
        has_id = read_field(item, "record_id") is not None
        parsed = None if score is None else parse_score(score, what="the score of an example")
        return cls.model_validate({**texts, "record_id": read_id(item) if has_id else None, "human_score": parsed})


def resolve_examples(
    examples: Iterable[Item], records: pd.DataFrame, labels: pd.DataFrame
) -> tuple[pd.DataFrame, tuple[ExampleRef, ...], str]:
    """What to show the judge.

    Args:
        examples: As `EvaluationConfig.examples`.
        records: Where the texts of examples that bring only an id come from.
        labels: Where their verdicts come from.

    Returns:
        The labelled examples as a judge takes them, what the criteria hold of them, and the quoted pairs as a text to
        add to the criteria (empty without any).

    Raises:
        InputError: an example is neither a labelled record nor a pair of texts, or ids repeat.
    """
    from caliber_pipeline.core.criteria import ExampleRef
    from caliber_pipeline.core.fingerprints import content_hashes

    parsed = [Example.parse(example) for example in examples]
    known = _known_records([e.record_id for e in parsed if e.record_id], records, labels)
    completed = [_complete(example, known) for example in parsed]
    shown = [example for example in completed if example.human_score is not None]
    pairs = [example for example in completed if example.human_score is None]
    frame = _example_frame(shown)
    hashes = content_hashes(frame)
    refs = [ExampleRef(record_id=i, content_hash=h) for i, h in zip(frame["record_id"], hashes, strict=True)]
    repeated = sorted({ref.record_id for ref in refs if refs.count(ref) > 1})
    if repeated:
        raise InputError(f"{len(repeated)} examples repeat, e.g. {repeated[:3]}; give each once")
    return frame, tuple(refs), "".join(map(_quote, pairs))


def _known_records(
    record_ids: Sequence[str], records: pd.DataFrame, labels: pd.DataFrame
) -> Mapping[str, Mapping[str, object]]:
    from caliber_pipeline.api.records import column_values

    texts = records.loc[records["record_id"].isin(record_ids), ["record_id", "query", "output", "reference"]]
    rows = texts.merge(labels[["record_id", "human_score", "human_notes"]], on="record_id", how="left")
    columns = {str(name): column_values(rows[name]) for name in rows.columns}
    return {columns["record_id"][i]: {name: columns[name][i] for name in columns} for i in range(len(rows))}


def _complete(example: Example, known: Mapping[str, Mapping[str, object]]) -> Example:
    given = example.model_dump(exclude_none=True)
    completed = Example.model_validate({**known.get(example.record_id or "", {}), **given})
    if completed.query is None or completed.output is None:
        raise InputError(f"example {given} has no query and output, and its record is not among the records")
    if completed.human_score is None and completed.record_id is not None:
        raise InputError(f"example '{completed.record_id}' has no human_score; annotate it or leave it out")
    return completed


def _example_frame(examples: Sequence[Example]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow
    from caliber_pipeline.core.schemas import RECORDS
    from caliber_pipeline.core.splits import content_ids

    names = ("record_id", "query", "output", "reference", "human_score", "human_notes")
    columns = {name: [getattr(example, name) for example in examples] for name in names}
    made = content_ids(pd.Series(columns["query"], dtype=object), pd.Series(columns["output"], dtype=object))
    columns["record_id"] = [given or new for given, new in zip(columns["record_id"], made, strict=True)]
    schema = pa.schema([RECORDS.field(name) for name in names])
    return frame_from_arrow(pa.table(columns, schema=schema))


def _quote(pair: Example) -> str:
    return f"\n\nExample input:\n{pair.query}\nExample output:\n{pair.output}"
