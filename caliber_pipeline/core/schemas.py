"""The declared schema of every stored table: names, types, nullability and what each column means."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa


def _required(name: str, type_: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, type_, nullable=False, metadata={"description": description})


def _optional(name: str, type_: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, type_, nullable=True, metadata={"description": description})


STRINGS: Final = pa.list_(pa.string())
UTC_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

RATING: Final = pa.struct(
    [
        _required("annotator", pa.string(), "Who judged"),
        _optional("score", pa.int8(), "1 accept, 0 reject; null where there is a note alone"),
        _optional("notes", pa.string(), "Why"),
    ]
)

RECORDS: Final = pa.schema(
    [
        _required("record_id", pa.string(), "Unique id; made from the content where the file brings none"),
        _required("query", pa.string(), "What the judged system was asked"),
        _required("output", pa.string(), "What the judged system answered"),
        _optional("reference", pa.string(), "A known good answer"),
        _optional("human_score", pa.int8(), "Gold label from the records file: 1 accept, 0 reject"),
        _optional("human_notes", pa.string(), "The note that came with the gold label"),
        _required("ratings", pa.list_(RATING), "Verdicts of single annotators that came in the records file"),
        _optional("llm_score", pa.int8(), "A recorded judge's verdict: 1 accept, 0 reject"),
        _optional("llm_reasoning", pa.string(), "A recorded judge's reasoning"),
        _required("metadata", pa.map_(pa.string(), pa.string()), "Every other column of the row, by name"),
        _required("group", pa.string(), "What belongs together: never split between train, dev and test"),
        _required("split", pa.string(), "train, dev or test, by a stable hash of the group"),
        _required("line", pa.int64(), "The line of the input file on which the row starts"),
    ]
)

REJECTED_ROWS: Final = pa.schema(
    [
        _required("source", pa.string(), "Name of the input file"),
        _optional("line", pa.int64(), "The line on which the row starts; null where the format has none"),
        _required("reason", pa.string(), "Why the row was rejected, with the value at fault"),
        _optional("raw", pa.string(), "The row as it was read"),
    ]
)

ANNOTATIONS: Final = pa.schema(
    [
        _required("record_id", pa.string(), "The annotated record"),
        _required("annotator", pa.string(), "Who judged; 'gold' for the records file's human_score"),
        _required("score", pa.int8(), "The person's verdict: 1 accept, 0 reject"),
        _optional("notes", pa.string(), "Why, in the person's words"),
        _optional("severity", pa.float64(), "How bad a wrong verdict here would be; 1 where not given"),
        _optional("created_at", UTC_TIMESTAMP, "When the person judged"),
        _optional("criteria_version", pa.string(), "The criteria that the person saw"),
        _optional("inclusion_probability", pa.float64(), "Probability (0, 1] with which the record was sampled"),
        _required("is_gold", pa.bool_(), "Overrides the consensus of the annotators"),
    ]
)

JUDGE_SCORES: Final = pa.schema(
    [
        _required("record_id", pa.string(), "The judged record"),
        _required("status", pa.string(), "scored, unparseable, refused, failed, or skipped (spending cap reached)"),
        _optional("llm_score", pa.int8(), "The verdict: 1 accept, 0 reject; null unless status is scored"),
        _optional("llm_reasoning", pa.string(), "The judge's reasoning"),
        _optional("confidence", pa.float64(), "Probability [0, 1] of the given verdict, by the judge's own account"),
        _optional(
            "vote_share", pa.float64(), "Share of repeated votes that agree with the verdict; null without votes"
        ),
        _optional("n_votes", pa.int32(), "How many votes were counted; null without votes"),
        _optional("failure_reason", pa.string(), "Why there is no verdict; null where status is scored"),
        _required("provider", pa.string(), "Who gave the verdict"),
        _required("model", pa.string(), "The model that gave the verdict"),
        _optional("prompt_tokens", pa.int64(), "Tokens sent, all attempts"),
        _optional("completion_tokens", pa.int64(), "Tokens received, all attempts"),
        _optional("cost_usd", pa.float64(), "Price of the tokens in US dollars; null where the price is unknown"),
        _optional("latency_s", pa.float64(), "Seconds from the first attempt to the verdict"),
        _required("n_attempts", pa.int32(), "Calls that the verdict took, cached or not; 0 where it took none"),
        _required("is_cached", pa.bool_(), "The verdict was read from the cache"),
        _required("is_example", pa.bool_(), "The judge was shown this record as an example; left out of its figures"),
        _required("fingerprint", pa.string(), "sha256 of all that the verdict depends on"),
    ]
)

ALIGNMENT_METRICS: Final = pa.schema(
    [
        _required("split", pa.string(), "train, dev, test or all"),
        _optional("slice_column", pa.string(), "The metadata column of a slice; null for the whole split"),
        _optional("slice_value", pa.string(), "The value that the slice's records share"),
        _required("metric", pa.string(), "Name of the figure"),
        _optional("value", pa.float64(), "The figure; null where undefined"),
        _optional("ci_low", pa.float64(), "Lower end of the 95 % interval"),
        _optional("ci_high", pa.float64(), "Upper end of the 95 % interval"),
        _required("n", pa.int64(), "Records that the figure rests on"),
        _optional("reason", pa.string(), "Why the figure is undefined or not to be trusted"),
    ]
)

PATTERNS: Final = pa.schema(
    [
        _required("pattern_id", pa.string(), "Id of the pattern; 'unclustered-…' for the notes that belong to none"),
        _required("polarity", pa.string(), "reject or accept: the verdict that the notes explain"),
        _required("name", pa.string(), "A short name"),
        _required("description", pa.string(), "What the notes have in common"),
        _required("is_unclustered", pa.bool_(), "This row collects the notes that belong to no pattern"),
        _required("count", pa.int64(), "How many records' notes belong to it"),
        _required("record_ids", STRINGS, "Those records"),
        _required("train_record_ids", STRINGS, "Those of them in train, from which the pattern was fitted"),
        _required("examples", STRINGS, "Representative notes, the most typical first"),
        _required("keywords", STRINGS, "Words that set the notes apart (c-TF-IDF)"),
        _optional("confidence", pa.float64(), "Mean membership strength [0, 1]"),
        _optional("stability", pa.float64(), "Bootstrap Jaccard co-membership [0, 1]; null where not computed"),
        _required("method", pa.string(), "The clustering method that really ran"),
        _required("notes_fingerprint", pa.string(), "Fingerprint of the notes that were clustered"),
    ]
)

MISALIGNMENTS: Final = pa.schema(
    [
        _required("record_id", pa.string(), "The record on which judge and people differ"),
        _required("split", pa.string(), "train, dev or test"),
        _required("kind", pa.string(), "false_positive (judge accepts, people reject) or false_negative"),
        _required("query", pa.string(), "The query"),
        _required("output", pa.string(), "The output"),
        _optional("reference", pa.string(), "The reference answer"),
        _required("human_score", pa.int8(), "The people's verdict"),
        _required("llm_score", pa.int8(), "The judge's verdict"),
        _optional("human_notes", pa.string(), "The people's notes"),
        _optional("llm_reasoning", pa.string(), "The judge's reasoning"),
        _optional("confidence", pa.float64(), "The judge's confidence in its verdict"),
        _optional("severity", pa.float64(), "How bad the error is"),
        _optional("pattern_id", pa.string(), "The pattern that the note belongs to; null without a note"),
        _optional("pattern_name", pa.string(), "Its name"),
        _required(
            "attribution",
            pa.string(),
            "judge_error, judge_error_unverified, label_doubt or criteria_gap: who is at fault",
        ),
        _required("attribution_reason", pa.string(), "What the attribution rests on"),
    ]
)

RELABEL_QUEUE: Final = pa.schema(
    [
        _required("record_id", pa.string(), "A record that people should judge, or judge again"),
        _required("reason", pa.string(), "Why: annotators tie or differ, neighbours contradict, the judge abstains"),
        _required("query", pa.string(), "The query"),
        _required("output", pa.string(), "The output"),
        _optional("reference", pa.string(), "The reference answer"),
        _required("n_annotators", pa.int64(), "How many annotators judged it"),
        _required("n_accepts", pa.int64(), "How many of them accept"),
    ]
)

ANNOTATOR_AGREEMENT: Final = pa.schema(
    [
        _required("annotator", pa.string(), "An annotator; '(all)' for a figure over all of them"),
        _optional("other", pa.string(), "The other one of a pair"),
        _required("metric", pa.string(), "Name of the figure"),
        _optional("value", pa.float64(), "The figure; null where undefined"),
        _optional("ci_low", pa.float64(), "Lower end of the 95 % interval"),
        _optional("ci_high", pa.float64(), "Upper end of the 95 % interval"),
        _required("n", pa.int64(), "Records that the figure rests on"),
        _optional("reason", pa.string(), "Why the figure is undefined or not to be trusted"),
    ]
)

LABEL_PLAN: Final = pa.schema(
    [
        _required("record_id", pa.string(), "A record that people should label next"),
        _required("inclusion_probability", pa.float64(), "Probability (0, 1] with which it was chosen"),
        _required("criteria_version", pa.string(), "The champion whose confidence told what to ask"),
    ]
)

DRIFT: Final = pa.schema(
    [
        _required("criteria_version", pa.string(), "The version that was evaluated again"),
        _optional("certified", pa.float64(), "Agreement to hold: the lower end of the certificate's interval"),
        _optional("certified_at", UTC_TIMESTAMP, "When the version won; null without a certificate"),
        _required("n_audited", pa.int64(), "Records labelled since, one per group"),
        _required("n_undated", pa.int64(), "Records whose labels carry no time (created_at), which count as older"),
        _optional("agreement", pa.float64(), "Agreement of judge and people on these"),
        _optional("evidence", pa.float64(), "How many times likelier they are under worse agreement"),
        _required("is_alarm", pa.bool_(), "The evidence reached 20 at some record"),
        _optional("alarm_at", pa.int64(), "After how many audited records it did"),
        _required("n_anchors", pa.int64(), "Frozen records that were judged again"),
        *(
            _optional(f"{part}_{end}", pa.float64(), f"{what}: {meaning}")
            for part, what in (("judge", "Change of agreement on the anchors"), ("data", "The rest of the change"))
            for end, meaning in (
                ("change", "the difference"),
                ("ci_low", "lower end of its 95 % interval"),
                ("ci_high", "upper end of its 95 % interval"),
            )
        ),
        _optional("p_value", pa.float64(), "Exact McNemar test of the judge's part"),
        _required("summary", pa.string(), "The outcome in words"),
    ]
)

SUGGESTION: Final = pa.struct(
    [
        _required("aspect", pa.string(), "What the suggestion is about"),
        _required("suggestion", pa.string(), "What to change"),
        _required("rationale", pa.string(), "Why"),
        _optional("expected_improvement", pa.string(), "What should get better"),
        _required("pattern_ids", STRINGS, "The patterns it comes from"),
        _required("record_ids", STRINGS, "The records it comes from"),
    ]
)

CANDIDATE: Final = pa.struct(
    [
        _required("strategy", pa.string(), "The strategy that wrote it"),
        _required("kind", pa.string(), "What it tries: tighten, loosen, clarify, restructure, examples, …"),
        _required("outcome", pa.string(), "chosen, dropped early, worse, refused or failed, and why"),
        _required("n_screened", pa.int64(), "Train records on which it was tried"),
        _optional("kappa", pa.float64(), "Cohen's kappa on them, as it looks"),
        _optional("kappa_corrected", pa.float64(), "The same, corrected for being the best of several"),
    ]
)

OPTIMIZED_CRITERIA: Final = pa.schema(
    [
        _required("criteria_version", pa.string(), "The version that was decided upon"),
        _optional("base", pa.string(), "The version it was compared with; null for a first one"),
        _required("round", pa.int32(), "Proposals since a person's file"),
        _required("decision", pa.string(), "baseline, promoted, rejected or undecided"),
        _required("decision_reason", pa.string(), "The decision in words"),
        _required("champion", pa.string(), "The champion after the decision"),
        _optional("base_kappa", pa.float64(), "The base's Cohen's kappa on dev, over records judged under both"),
        _optional("kappa", pa.float64(), "This version's Cohen's kappa on the same records"),
        _optional("p_value", pa.float64(), "One-sided paired permutation test of the gain, whole groups swapped"),
        _required("n_compared", pa.int64(), "Dev records judged under both versions"),
        _required("n_groups", pa.int64(), "Groups among them"),
        _optional("mcnemar_p", pa.float64(), "One-sided exact McNemar test; null where records share a group"),
        _required("n_fixed", pa.int64(), "Compared records that only this version gets right"),
        _required("n_broken", pa.int64(), "Compared records that only the base gets right"),
        _optional(
            "new_error_share",
            pa.float64(),
            "Severity of the broken over that of the fixed; null if only broken",
        ),
        _optional("basis", pa.string(), "The records that decided: dev, or train and dev, cross-fitted"),
        _optional("kappa_corrected", pa.float64(), "kappa corrected for being the best version so far; if promoted"),
        _required("is_by_hand", pa.bool_(), "A person promoted it with `caliber promote`"),
        _required("n_calls", pa.int64(), "Calls to the judge and to language models for this evaluation"),
        _optional("cost_usd", pa.float64(), "What they cost in US dollars; null where a price is unknown"),
        _required("n_model_calls", pa.int64(), "Of these, the calls to language models for proposals"),
        _optional("n_model_tokens", pa.int64(), "Their tokens, sent and received; null where unknown"),
        _optional("model_cost_usd", pa.float64(), "What they cost in US dollars; null where the price is unknown"),
        _required("n_test_looks", pa.int64(), "Versions judged on test so far on these data, this one included"),
        _required("n_stale_annotations", pa.int64(), "Annotations made under criteria of another substance"),
        _required("candidates", pa.list_(CANDIDATE), "The proposals that the next version was chosen from"),
        _required("decided_at", UTC_TIMESTAMP, "When it was decided"),
        _required("is_proposed", pa.bool_(), "A next version was written"),
        _required("proposal_reason", pa.string(), "What was proposed, or why nothing was"),
        _optional("stop_reason", pa.string(), "Why the loop ended here; null where it goes on"),
        _optional("proposed_version", pa.string(), "The version that was written"),
        _optional("proposal_base", pa.string(), "The version that the proposal edits"),
        _optional("strategy", pa.string(), "The strategy that wrote the proposal"),
        _optional("proposed_criteria", pa.string(), "The proposed criteria text, clauses included"),
        _required("suggestions", pa.list_(SUGGESTION), "What the proposal changes and from which evidence"),
        _required("example_ids", STRINGS, "Train records that the proposal shows as examples"),
    ]
)

_FIGURES: Final = [
    ("n", pa.int64(), "judged and annotated records, examples left out"),
    ("accuracy", pa.float64(), "accuracy"),
    ("precision", pa.float64(), "precision of accepts"),
    ("recall", pa.float64(), "recall of accepts"),
    ("specificity", pa.float64(), "recall of rejects"),
    ("f1_score", pa.float64(), "F1 of accepts"),
    ("cohen_kappa", pa.float64(), "Cohen's kappa"),
    ("true_positives", pa.int64(), "both accept"),
    ("true_negatives", pa.int64(), "both reject"),
    ("false_positives", pa.int64(), "judge accepts, people reject"),
    ("false_negatives", pa.int64(), "judge rejects, people accept"),
]

CALIBRATION_HISTORY: Final = pa.schema(
    [
        _required("criteria_version", pa.string(), "The evaluated version"),
        _required("evaluated_at", UTC_TIMESTAMP, "When it was evaluated"),
        _optional("base", pa.string(), "The version it was compared with"),
        _required("round", pa.int32(), "Proposals since a person's file"),
        _required("decision", pa.string(), "baseline, promoted, rejected or undecided"),
        _required("decision_reason", pa.string(), "The decision in words"),
        _required("champion", pa.string(), "The champion after the decision"),
        _optional("stop_reason", pa.string(), "Why the loop ended here"),
        _required("decided_at", UTC_TIMESTAMP, "When it was decided; the champion is that of the latest decision"),
        _required("is_by_hand", pa.bool_(), "A person decided with `caliber promote`"),
        _optional("p_value", pa.float64(), "One-sided paired permutation test of the gain over the base"),
        _optional("kappa_corrected", pa.float64(), "Kappa on dev corrected for being the best version so far"),
        _required("n_calls", pa.int64(), "Calls to the judge and to language models"),
        _optional("cost_usd", pa.float64(), "What they cost in US dollars; null where a price is unknown"),
        _required("n_model_calls", pa.int64(), "Of these, the calls to language models for proposals"),
        _optional("n_model_tokens", pa.int64(), "Their tokens, sent and received; null where unknown"),
        _optional("model_cost_usd", pa.float64(), "What they cost in US dollars; null where the price is unknown"),
        _required("n_test_looks", pa.int64(), "Versions judged on test so far on these data"),
        _required("n_stale_annotations", pa.int64(), "Annotations made under criteria of another substance"),
        _required("n_failed", pa.int64(), "Annotated records without a verdict"),
        _required("n_examples", pa.int64(), "Records shown to the judge as examples, left out of its figures"),
        *(
            _optional(f"{split}_{name}", type_, f"On {split}: {description}")
            for split in ("all", "dev", "test")
            for name, type_, description in _FIGURES
        ),
        _required("is_test_sealed", pa.bool_(), "Test was not judged: that is for the first and promoted versions"),
        _required("records_fingerprint", pa.string(), "Fingerprint of the records"),
        _required("annotations_fingerprint", pa.string(), "Fingerprint of the annotations"),
        _required("criteria_fingerprint", pa.string(), "Fingerprint of the criteria"),
    ]
)

LEARNINGS: Final = pa.schema(
    [
        _required("learning_id", pa.string(), "Id of the learning; the same pattern on the same notes gives the same"),
        _required("pattern_id", pa.string(), "The pattern that it was distilled from"),
        _required("polarity", pa.string(), "reject or accept: the verdict that the notes explain"),
        _required("title", pa.string(), "What was learned, in a few words"),
        _required("content", pa.string(), "The same at length"),
        _required("tags", STRINGS, "Lower case, underscores, at most ten"),
        _required("confidence", pa.float64(), "How sure [0, 1]"),
        _required("supporting_item_ids", STRINGS, "The train records whose notes it rests on"),
        _required("recommended_actions", STRINGS, "What to do"),
        _required("counterexamples", STRINGS, "What speaks against it"),
        _optional("scope", pa.string(), "Where it holds"),
        _optional("when_not_to_apply", pa.string(), "Where it does not"),
        _required("kind", pa.string(), "false_positive or false_negative: the error that the theme's records can be"),
        _required("n_missed", pa.int64(), "Train records of the theme that the judge misses"),
        _required("n_caught", pa.int64(), "Train records of the theme that it judges as people do"),
        _required("n_other_missed", pa.int64(), "Noted train records of the same label, other themes, that it misses"),
        _required("n_other_caught", pa.int64(), "Those that it judges as people do"),
        _optional("odds_ratio", pa.float64(), "Odds of a miss in the theme over those elsewhere; null where undefined"),
        _required("p_value", pa.float64(), "Fisher's exact test, one-sided: missed more often than elsewhere"),
        _required("q_value", pa.float64(), "The p-value adjusted over all themes (Benjamini-Hochberg)"),
        _required("is_enriched", pa.bool_(), "The judge misses the theme more often than others (q up to 0.05)"),
        _required("provenance", pa.string(), "What made it: pattern, writer, method, notes; a JSON object"),
    ]
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = MappingProxyType(
    {
        "records": RECORDS,
        "rejected_records": REJECTED_ROWS,
        "annotations": ANNOTATIONS,
        "rejected_annotations": REJECTED_ROWS,
        "judge_scores": JUDGE_SCORES,
        "alignment_metrics": ALIGNMENT_METRICS,
        "patterns": PATTERNS,
        "misalignments": MISALIGNMENTS,
        "relabel_queue": RELABEL_QUEUE,
        "drift": DRIFT,
        "annotator_agreement": ANNOTATOR_AGREEMENT,
        "learnings": LEARNINGS,
        "optimized_criteria": OPTIMIZED_CRITERIA,
        "calibration_history": CALIBRATION_HISTORY,
    }
)
