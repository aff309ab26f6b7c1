"""Whether a judge still agrees with people as its certificate says, and what changed if it does not."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from caliber_pipeline.core.agreement import Floats
from caliber_pipeline.core.intervals import CONFIDENCE, paired_difference_interval, proportion_interval

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
        raise ValueError(f"the certified agreement is {certified}; give one between 0 and 1")
    agrees = np.asarray(is_agreeing, dtype=np.float64)
    hits = np.cumsum(agrees)
    misses = np.arange(1, agrees.size + 1) - hits
    mass = betainc(hits + 1, misses + 1, certified)
    with np.errstate(divide="ignore"):  # no mass below the certified agreement: no evidence at all
        alternative = np.log(mass) + betaln(hits + 1, misses + 1) - np.log(certified)
    return np.asarray(alternative - xlogy(hits, certified) - xlogy(misses, 1 - certified))


def run_drift_test(is_agreeing: npt.ArrayLike, certified: float, *, alpha: float = ALPHA) -> DriftTest:
    """Test audited records, in their order, against the certified agreement; alarm at evidence 1 / alpha.

    `certified` is best the lower end of the certificate's interval: held against the point estimate, an unlucky
    certificate would raise alarms of its own.
    """
    agrees = np.asarray(is_agreeing, dtype=np.float64)
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
    before, now, new = (np.asarray(a, dtype=np.bool_) for a in (anchors_before, anchors_now, audited))
    if not before.size or before.shape != now.shape or not new.size:
        raise ValueError(
            f"{before.size} anchors before, {now.size} now and {new.size} audited records; "
            "give the same anchors twice and at least one audited record"
        )
    from scipy.stats import binomtest

    gained, lost = int((~before & now).sum()), int((before & ~now).sum())
    low, high = paired_difference_interval(gained, lost, before.size, confidence=confidence)
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    judge = Change((gained - lost) / before.size, float(low), float(high))
    return DriftSplit(judge, _difference(new, now, confidence), p_value)


def _difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], confidence: float) -> Change:
    """Difference of two independent shares: Newcombe (1998), Stat. Med. 17:873-890, method 10, from our intervals."""
    a, b = float(first.mean()), float(second.mean())
    a_low, a_high = map(float, proportion_interval(first.sum(), first.size, confidence=confidence))
    b_low, b_high = map(float, proportion_interval(second.sum(), second.size, confidence=confidence))
    below, above = np.hypot(a - a_low, b_high - b), np.hypot(a_high - a, b - b_low)
    return Change(a - b, float(a - b - below), float(a - b + above))
