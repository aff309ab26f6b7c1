"""From verdicts and notes to what a strategy may look at."""

import pandas as pd

from caliber_pipeline.core.conforming import empty_frame
from caliber_pipeline.core.labels import select_notes
from caliber_pipeline.core.misalignments import find_misalignments
from caliber_pipeline.core.patterns import discover_patterns
from caliber_pipeline.core.proposals import TrainEvidence, select_train
from caliber_pipeline.encoders.neighbours import encode_neighbours
from caliber_pipeline.encoders.notes import encode_notes
from caliber_pipeline.encoders.protocol import Encoder


def find_patterns(labels: pd.DataFrame, records: pd.DataFrame, encoder: Encoder) -> pd.DataFrame:
    """The patterns in the notes on labelled records, fitted on train; without a note nothing is encoded.

    Args:
        labels: record_id, human_score, human_notes.
        records: record_id, query, output, reference, split.
        encoder: Of the notes.
    """
    notes = select_notes(labels, records)
    if notes.empty:
        return empty_frame("patterns")
    return discover_patterns(notes, *encode_notes(encoder, [str(text) for text in notes["text"]]))


def gather_evidence(
    scored: pd.DataFrame, records: pd.DataFrame, patterns: pd.DataFrame, encoder: Encoder
) -> TrainEvidence:
    """What proposals may rest on: the errors on train, the patterns in the notes, and the records of train.

    Args:
        scored: Verdicts with labels, as `core.judge_scores.join_labels` gives them.
        records: record_id, query, output, reference, split.
        patterns: Of the `patterns` schema.
        encoder: Of records, where neighbours can tell whether a lone label is in doubt.
    """
    misalignments = find_misalignments(scored, records, patterns, encode_neighbours(encoder, scored, records))
    return select_train(scored, misalignments, patterns, records)
