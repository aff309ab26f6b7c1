import numpy as np
import pandas as pd
import pytest

from caliber_pipeline.core.annotator_agreement import describe_annotators


def annotations_of(*rows: tuple[str, str, int, bool]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "annotator", "score", "is_gold"])
    return frame.assign(created_at=pd.date_range("2026-01-01", periods=len(frame), tz="UTC"))


def test_people_are_described_alone_in_pairs_and_together() -> None:
    scores = {"ann": [1, 0, 1, 1], "ben": [1, 0, 0, 1]}
    rows = [(f"r{i}", who, score, False) for who, given in scores.items() for i, score in enumerate(given)]
    table = describe_annotators(annotations_of(*rows, ("r0", "ann", 0, False), ("r9", "gold", 1, True)))

    def value(who: str, metric: str) -> object:
        return table[(table["annotator"] == who) & (table["metric"] == metric)]["value"].iloc[0]

    # After the second look at r0 ann has 0 0 1 1 against ben's 1 0 0 1: po 1/2, pe 1/2.
    assert value("ann", "cohen_kappa") == 0
    assert value("ann", "agreement") == 0.5
    assert value("ann", "bias") == 0
    assert value("ann", "retest") == 0
    assert value("ben", "accept_rate") == 0.5
    # four accepts of eight, two split records: 1 - 4 * 7 / 32
    assert value("(all)", "krippendorff_alpha") == pytest.approx(0.125)
    assert 0 < float(str(value("ben", "dawid_skene_recall"))) < 1
    assert "gold" not in set(table["annotator"])
    told = table[
        table["metric"].isin(["krippendorff_alpha", "cohen_kappa", "agreement", "accept_rate", "bias", "retest"])
    ]
    assert ((told["ci_low"] <= told["value"]) & (told["value"] <= told["ci_high"])).all()


def test_one_annotator_alone_has_no_agreement_and_gold_alone_has_no_rows() -> None:
    lone = describe_annotators(annotations_of(("r0", "ann", 1, False)))

    assert set(lone["metric"]) == {"krippendorff_alpha", "accept_rate", "bias"}
    assert lone.loc[lone["metric"] == "bias", "reason"].iloc[0] == "nobody else judged these records"
    assert describe_annotators(annotations_of(("r0", "gold", 1, True))).empty


def test_a_pair_of_one_verdict_has_a_reason_instead_of_a_kappa() -> None:
    table = describe_annotators(annotations_of(("r0", "ann", 1, False), ("r0", "ben", 1, False)))

    kappa = table[table["metric"] == "cohen_kappa"].iloc[0]
    assert pd.isna(kappa["value"])
    assert kappa["reason"] == "both give one and the same verdict throughout"


def test_copies_of_records_in_their_groups_narrow_no_interval() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((60, 1)) < 0.5) ^ (rng.random((60, 2)) < 0.15)

    def described(n_copies: int) -> pd.DataFrame:
        rows = [
            (f"r{i}.{k}", who, int(scores[i, j]), False)
            for i in range(60)
            for k in range(n_copies)
            for j, who in enumerate(("ann", "ben"))
        ]
        again = [(record, who, score, gold) for record, who, score, gold in rows if record.split(".")[0] < "r3"]
        frame = annotations_of(*again, *rows)
        table = describe_annotators(frame.assign(group=frame["record_id"].str.split(".").str[0]))
        return table.set_index(["annotator", "other", "metric"])

    single, copied = described(1), described(5)

    width = (copied["ci_high"] - copied["ci_low"]) / (single["ci_high"] - single["ci_low"])
    told = width.dropna()
    assert set(told.index.get_level_values("metric")) == {
        "krippendorff_alpha", "cohen_kappa", "agreement", "accept_rate", "bias", "retest",
    }  # fmt: skip
    assert told.between(0.95, 1.15).all()  # 0.45 where groups are ignored; few of them leave few degrees of freedom


def test_few_groups_are_marked() -> None:
    rows = [(f"r{i}", who, int(i % 3 > 0), False) for i in range(40) for who in ("ann", "ben")]
    frame = annotations_of(*rows)
    table = describe_annotators(frame.assign(group=frame["record_id"].str[-1]))

    marked = table[table["metric"].isin(["krippendorff_alpha", "cohen_kappa", "agreement"])]
    assert set(marked["reason"]) == {"only 10 groups: the interval may be too narrow"}
