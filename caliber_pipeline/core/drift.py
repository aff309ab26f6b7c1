"""Whether a judge still agrees with people as its certificate says, and what changed if it does not."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import Floats, parse_scores
from caliber_pipeline.core.arguments import NUMBER, SHARE, accepts
from caliber_pipeline.core.conforming import conform_frame
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.fingerprints import hash_texts
from caliber_pipeline.core.intervals import CONFIDENCE, paired_difference_interval, proportion_interval
from caliber_pipeline.core.means import design_effect
from caliber_pipeline.core.schemas import DRIFT
from caliber_pipeline.core.splits import CALIBRATION
from caliber_pipeline.core.weights import thin_sampled

Anchors: TypeAlias = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
"""Agreement on frozen records: as certified, and judged again."""

ALPHA: Final = 0.05  # chance of ever raising an alarm where agreement is as certified


@dataclass(frozen=True)
class DriftTest:
    """The state of the test after all audited records.

    Attributes:
        is_alarm: The evidence reached 1 / alpha at some record; it stays raised.
        alarm_at: After how many audited records; None without an alarm.
        evidence: The e-value now: how many times likelier the records are under worse agreement.
        peak_evidence: The largest it has been.
        certified: The agreement it is held against.
        n: Audited records.
        agreement: Agreement among them; None without any.
    """

    is_alarm: bool
    alarm_at: int | None
    evidence: float
    peak_evidence: float
    certified: float
    n: int
    agreement: float | None


@dataclass(frozen=True)
class Change:
    """A difference of agreement with its 95 % interval."""

    value: float
    ci_low: float
    ci_high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.ci_low > 0 or self.ci_high < 0


@dataclass(frozen=True)
class DriftSplit:
    """A change of agreement since the certificate, in two parts that add up to it.

    Attributes:
        judge: On the anchor records judged again: the judge itself changed.
        data: From the anchors, judged again, to the new records: what is judged changed, or how people label it.
        p_value: Exact two-sided McNemar test of the judge's part.
    """

    judge: Change
    data: Change
    p_value: float

    @property
    def in_words(self) -> str:
        """Which part is shown, if any."""
        shown = [f"{name} drift of {part.value:+.1%}" for name, part in self._parts if part.is_shown]
        return " and ".join(shown) or "neither judge drift nor data drift is shown"

    @property
    def _parts(self) -> tuple[tuple[str, Change], ...]:
        return ("judge", self.judge), ("data", self.data)


def evidence_of_drift(is_agreeing: npt.ArrayLike, certified: float) -> Floats:
    """Log evidence after each audited record that agreement is below `certified`.

    A mixture likelihood ratio: the probability of the records under an agreement drawn uniformly below the certified
    one, over that under the certified one. For any true agreement of at least `certified` it is a supermartingale, so
    that by Ville's inequality it ever reaches 1 / alpha with probability alpha at most, however often one looks:
    Ramdas, Grünwald, Vovk & Shafer (2023), Stat. Sci. 38:576-601.

    Args:
        is_agreeing: Shape (n,): judge and people agree, in the order of the audits.
        certified: The agreement to hold, in (0, 1).
    """
    from scipy.special import betainc, betaln, xlogy

    if not 0 < certified < 1:
        raise InputError(f"the certified agreement is {certified}; give one between 0 and 1")
    agrees = parse_scores(is_agreeing, "agreement").astype(np.float64)
    hits = np.cumsum(agrees)
    misses = np.arange(1, agrees.size + 1) - hits
    mass = betainc(hits + 1, misses + 1, certified)
    with np.errstate(divide="ignore"):  # no mass below the certified agreement: no evidence at all
        alternative = np.log(mass) + betaln(hits + 1, misses + 1) - np.log(certified)
    return np.asarray(alternative - xlogy(hits, certified) - xlogy(misses, 1 - certified))


@accepts(certified=NUMBER, alpha=SHARE)
def run_drift_test(is_agreeing: npt.ArrayLike, certified: float, *, alpha: float = ALPHA) -> DriftTest:
    """Test audited records, in their order, against the certified agreement; alarm at evidence 1 / alpha.

    `certified` is best the lower end of the certificate's interval: held against the point estimate, an unlucky
    certificate would raise alarms of its own.
    """
    agrees = parse_scores(is_agreeing, "agreement")
    evidence = np.append(0.0, evidence_of_drift(agrees, certified))
    # compared in logarithms, as a ratio grows beyond what a float holds
    reached = np.flatnonzero(evidence >= -np.log(alpha))
    largest = np.log(np.finfo(np.float64).max)
    return DriftTest(
        is_alarm=bool(reached.size),
        alarm_at=int(reached[0]) if reached.size else None,
        evidence=float(np.exp(min(evidence[-1], largest))),
        peak_evidence=float(np.exp(min(evidence.max(), largest))),
        certified=certified,
        n=agrees.size,
        agreement=float(agrees.mean()) if agrees.size else None,
    )


@accepts(confidence=SHARE)
def split_drift(
    anchors_before: npt.ArrayLike,
    anchors_now: npt.ArrayLike,
    audited: npt.ArrayLike,
    *,
    confidence: float = CONFIDENCE,
) -> DriftSplit:
    """Split a change of agreement into the judge's part and the data's.

    Args:
        anchors_before: Shape (k,): agreement on frozen records with frozen labels, as certified.
        anchors_now: Shape (k,): on the same records, judged again.
        audited: Shape (n,): agreement on new records.
        confidence: Of the intervals.
    """
    before, now, new = (parse_scores(a, "agreement") == 1 for a in (anchors_before, anchors_now, audited))
    if not before.size or before.shape != now.shape or not new.size:
        raise InputError(
            f"{before.size} anchors before, {now.size} now and {new.size} audited records; "
            "give the same anchors twice and at least one audited record"
        )
    from scipy.stats import binomtest

    gained, lost = int((~before & now).sum()), int((before & ~now).sum())
    low, high = paired_difference_interval(gained, lost, before.size, confidence=confidence)
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    judge = Change((gained - lost) / before.size, float(low), float(high))
    ends = difference_interval(new.sum(), new.size, now.sum(), now.size, confidence=confidence)
    data = Change(float(new.mean() - now.mean()), float(ends[0]), float(ends[1]))
    return DriftSplit(judge, data, p_value)


def difference_interval(
    hits: npt.ArrayLike, n: int, other_hits: npt.ArrayLike, other_n: int, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Interval of a share less an independent one: Newcombe (1998), Stat. Med. 17:873-890, method 10, from ours."""
    first, second = np.asarray(hits, dtype=np.float64), np.asarray(other_hits, dtype=np.float64)
    low, high = proportion_interval(first, n, confidence=confidence)
    other_low, other_high = proportion_interval(second, other_n, confidence=confidence)
    a, b = first / n, second / other_n
    return a - b - np.hypot(a - low, other_high - b), a - b + np.hypot(high - a, b - other_low)


@dataclass(frozen=True)
class Certificate:
    """What a version was certified with.

    Attributes:
        agreement: The lower end of the 95 % interval of its accuracy on dev, and on test where that is reported.
        certified_at: When it won.
    """

    agreement: float
    certified_at: pd.Timestamp


def find_certificate(
    history: pd.DataFrame | None, version: str, scored: pd.DataFrame, annotations: pd.DataFrame
) -> Certificate | None:
    """The certificate of a version: its first evaluation that made it champion; None where there is none.

    Of labels that were sampled actively the lower of weighted and counted agreement, so that neither raises an alarm.
    How alike members of a group are is read from the rows of dev and test that were labelled by then.

    Args:
        history: The `calibration_history`.
        version: Whose certificate.
        scored: Its judged rows, as `split_by_time` takes them.
        annotations: For when they were labelled.
    """
    if history is None:
        return None
    won = history[(history["criteria_version"] == version) & history["decision"].isin(["baseline", "promoted"])]
    if won.empty:
        return None
    first = won.sort_values("evaluated_at").iloc[0]
    parts = [split for split in ("dev", "test") if not pd.isna(first[f"{split}_n"]) and first[f"{split}_n"] > 0]
    n = sum(int(first[f"{split}_n"]) for split in parts)
    hits = sum(int(first[f"{split}_true_positives"]) + int(first[f"{split}_true_negatives"]) for split in parts)
    weighted = sum(float(first[f"{split}_accuracy"]) * int(first[f"{split}_n"]) for split in parts)
    if not n:
        return None
    before, _ = split_by_time(scored, annotations, first["evaluated_at"])
    effect = _design_effect(before[before["split"] != "train"])
    lower = hits if np.isclose(weighted, hits) else min(hits, weighted)
    low = float(proportion_interval(lower / effect, n / effect)[0])
    return Certificate(low, first["evaluated_at"]) if 0 < low < 1 else None


def _design_effect(rows: pd.DataFrame) -> float:
    """How many times more records it takes to know the agreement as well, because they come in groups."""
    if rows.empty:
        return 1.0
    return design_effect(
        agreement_of(rows).astype(np.float64), rows["group"].to_numpy(dtype=object), np.ones(len(rows))
    )


def split_by_time(
    scored: pd.DataFrame, annotations: pd.DataFrame, certified_at: pd.Timestamp
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The judged rows labelled before the certificate, and the audited ones: first labelled after it, in that order.

    Of each group only the record that was labelled first is audited, as the test is for independent records. A label
    without a time counts as an old one. Records that the judge was shown as examples, and those of the
    calibration part, are in neither; of those that a plan chose by unequal probabilities, as many are in them as make
    them a plain random sample: a plan asks for what the judge is unsure of, which would look like drift.
    """
    usable = scored["llm_score"].notna() & ~scored["is_example"] & (scored["split"] != CALIBRATION)
    judged = thin_sampled(scored[usable.to_numpy(dtype=bool)])
    first_label = annotations.groupby("record_id")["created_at"].min()
    labelled_at = judged["record_id"].map(first_label)
    is_new = (labelled_at > certified_at).fillna(value=False).to_numpy(dtype=bool)
    audited = judged[is_new].assign(labelled_at=labelled_at[is_new])
    audited = audited.sort_values(["labelled_at", "record_id"]).drop_duplicates("group")
    return judged[~is_new], audited.reset_index(drop=True)


def count_undated(rows: pd.DataFrame, annotations: pd.DataFrame) -> int:
    """How many of the rows have no label that carries a time."""
    dated = annotations.loc[annotations["created_at"].notna(), "record_id"]
    return int((~rows["record_id"].isin(dated)).sum())


def select_anchors(before: pd.DataFrame, n: int) -> pd.DataFrame:
    """Up to n frozen records of dev and test to judge again, one per group: always the same ones, by a stable hash."""
    held_out = before[before["split"] != "train"]
    order = np.argsort(hash_texts(held_out["record_id"]), kind="stable")
    chosen: pd.DataFrame = held_out.iloc[order].drop_duplicates("group").head(n)
    return chosen


def agreement_of(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether judge and people agree, per row."""
    return np.asarray((rows["llm_score"] == rows["human_score"]).to_numpy(dtype=bool))


def build_row(
    version: str,
    certificate: Certificate | None,
    audited: npt.NDArray[np.bool_],
    anchors: Anchors | None = None,
    *,
    n_undated: int = 0,
) -> pd.DataFrame:
    """The one row of the `drift` table of a version.

    Args:
        version: The version.
        certificate: None where there is nothing to hold it against.
        audited: Agreement on the audited records, in their order.
        anchors: Agreement on the anchors as certified, and judged again; None where they were not.
        n_undated: Judged records whose labels carry no time.
    """
    row: dict[str, object] = dict.fromkeys(DRIFT.names)
    row |= {"criteria_version": version, "n_audited": len(audited), "n_anchors": 0, "is_alarm": False}
    row["n_undated"] = n_undated
    if certificate is None:
        row["summary"] = "first evaluation: no certificate to hold it against"
        return _as_frame(row)
    test = run_drift_test(audited, certificate.agreement)
    row |= {"certified": test.certified, "certified_at": certificate.certified_at, "is_alarm": test.is_alarm}
    row |= {"agreement": test.agreement, "evidence": test.evidence, "alarm_at": test.alarm_at}
    row["summary"] = _summarise(test, n_undated)
    if anchors is not None and len(audited):
        split = split_drift(*anchors, audited)
        row |= {
            "n_anchors": len(anchors[0]),
            "p_value": split.p_value,
            "summary": f"{row['summary']}; {split.in_words}",
        }
        for name, change in (("judge", split.judge), ("data", split.data)):
            row |= {f"{name}_change": change.value, f"{name}_ci_low": change.ci_low, f"{name}_ci_high": change.ci_high}
    return _as_frame(row)


def _summarise(test: DriftTest, n_undated: int) -> str:
    if not test.n and n_undated:
        return (
            f"nothing to test: {n_undated} labels carry no time, so that none is known to be newer than the "
            "certificate; give created_at with the annotations, or annotate on the page, which keeps it"
        )
    if not test.n:
        return "no record was labelled since the certificate"
    found = (
        f"agreement {test.agreement:.1%} on {test.n} records labelled since; certified: at least {test.certified:.1%}"
    )
    return f"alarm after {test.alarm_at} records: {found}" if test.is_alarm else f"no alarm: {found}"


def _as_frame(row: dict[str, object]) -> pd.DataFrame:
    return conform_frame(pd.DataFrame({name: pd.Series([row[name]], dtype=object) for name in DRIFT.names}), "drift")
