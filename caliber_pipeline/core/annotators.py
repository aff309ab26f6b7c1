"""Agreement among people: how far they agree, whom their labels follow, and whether a judge may stand in for one."""

from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from caliber_pipeline.core.agreement import ConfusionMatrix, Floats, ratio, to_optional
from caliber_pipeline.core.annotations import complete_annotations
from caliber_pipeline.core.arguments import NUMBER, SHARE, accepts, has_attributes, table_with
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.intervals import CellSample, metric_intervals
from caliber_pipeline.core.means import mean_interval, p_below
from caliber_pipeline.core.paired_gain import cells_by_group

Codes: TypeAlias = npt.NDArray[np.int64]

EPSILON: Final = 0.2  # Calderon et al.'s value for expert annotators; they use 0.15 for trained people, 0.1 for crowds
MIN_ALT_TEST_RECORDS: Final = 30  # the number below which Calderon et al. do not trust the t distribution
MIN_ALT_TEST_ANNOTATORS: Final = 3
MAX_PAIRS: Final = 300  # each takes some milliseconds; nobody reads more

RATINGS: Final = has_attributes("scores", "annotators", wanted="what build_ratings returns")


@dataclass(frozen=True)
class Ratings:
    """Annotators' latest verdicts.

    Attributes:
        record_ids: Shape (n,), sorted.
        annotators: Names of the k annotators, sorted.
        scores: Shape (n, k): 1, 0, or NaN where the annotator did not judge the record.
        turns: Shape (n, k): whose verdict came first on a record, from 0; ignored where there is no verdict. None
            where it is not known: then in the order of the annotators.
        groups: Shape (n,): of records that belong together, as `code_groups` gives them. Intervals and tests take whole
            groups as what is independent.
    """

    record_ids: npt.NDArray[np.object_]
    annotators: tuple[str, ...]
    scores: Floats
    turns: npt.NDArray[np.int64] | None = None
    groups: Codes | None = None

    @property
    def n_raters(self) -> npt.NDArray[np.int64]:
        """Annotators per record."""
        return np.asarray((~np.isnan(self.scores)).sum(axis=1), dtype=np.int64)

    @property
    def n_accepts(self) -> npt.NDArray[np.int64]:
        """Accepting annotators per record."""
        return np.asarray(np.nansum(self.scores, axis=1), dtype=np.int64)

    def at(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Ratings":
        """The chosen records, by a mask or by place."""
        turns = None if self.turns is None else self.turns[chosen]
        return Ratings(self.record_ids[chosen], self.annotators, self.scores[chosen], turns, self.groups_at(chosen))

    def groups_at(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Codes | None:
        """The groups of the chosen records."""
        return None if self.groups is None else code_groups(self.groups[chosen])

    @property
    def first_two(self) -> Floats:
        """The scores without those that came third or later on a record.

        A third person is often asked only where two differ; with all pairs counted, such records would look more
        agreed upon than the same records without a third.
        """
        given = ~np.isnan(self.scores)
        turns = np.broadcast_to(np.arange(len(self.annotators)), given.shape) if self.turns is None else self.turns
        places = np.where(given, turns, np.inf).argsort(axis=1).argsort(axis=1)
        return np.where(given & (places < 2), self.scores, np.nan)


def code_groups(groups: npt.NDArray[np.generic] | pd.Series) -> Codes | None:
    """Groups as numbers from 0, a null one as the record's own; None where no two records share one."""
    codes = pd.factorize(groups)[0].astype(np.int64)
    is_lone = codes < 0
    codes[is_lone] = codes.max(initial=-1) + 1 + np.arange(np.count_nonzero(is_lone))
    return None if codes.max(initial=-1) + 1 == codes.size else codes


def _groups_of(annotations: pd.DataFrame, record_ids: npt.NDArray[np.object_] | pd.Series) -> Codes | None:
    if "group" not in annotations:
        return None
    by_record = annotations.drop_duplicates("record_id").set_index("record_id")["group"]
    return code_groups(by_record.reindex(record_ids))


@accepts(annotations=table_with("record_id", "annotator", "score"))
def build_ratings(annotations: pd.DataFrame) -> Ratings:
    """The annotators' verdicts as a matrix; of repeated verdicts the latest, gold labels left out.

    Args:
        annotations: record_id, annotator, score; created_at and is_gold, where there; group, where records belong
            together.
    """
    given = complete_annotations(annotations)
    people = given[~given["is_gold"].astype(bool)]
    ordered = people.sort_values(["created_at", "annotator"], na_position="first", kind="stable")
    latest = ordered.drop_duplicates(["record_id", "annotator"], keep="last")
    rows, record_ids = pd.factorize(latest["record_id"].to_numpy(dtype=object), sort=True)
    columns, names = pd.factorize(latest["annotator"].to_numpy(dtype=object), sort=True)
    scores = np.full((len(record_ids), len(names)), np.nan)
    scores[rows, columns] = latest["score"].to_numpy(dtype=np.float64)
    turns = np.zeros(scores.shape, dtype=np.int64)
    turns[rows, columns] = np.arange(len(latest))  # in the order of time
    groups = _groups_of(people, record_ids)
    return Ratings(np.asarray(record_ids, dtype=object), tuple(map(str, names)), scores, turns, groups)


@accepts(ratings=RATINGS)
def pairwise_agreement(ratings: Ratings, *, seed: int = 0, max_pairs: int = MAX_PAIRS) -> pd.DataFrame:
    """Pairs of annotators on the records that both judged: agreement and cohen_kappa with intervals, n and n_groups.

    Intervals of `metric_intervals`, by groups where the ratings have them. Pairs that share no record are left out, and
    of a crowd's many pairs all but the `max_pairs` that share most.
    """
    given = (~np.isnan(ratings.scores)).astype(np.float64)
    n_shared = given.T @ given
    pairs = [pair for pair in combinations(range(len(ratings.annotators)), 2) if n_shared[pair]]
    chosen = sorted(sorted(pairs, key=lambda pair: -n_shared[pair])[:max_pairs])
    rows = []
    for i, j in chosen:
        both = ~np.isnan(ratings.scores[:, i]) & ~np.isnan(ratings.scores[:, j])
        first, second = (ratings.scores[both, k].astype(np.int8) for k in (i, j))
        matrix, groups = ConfusionMatrix.from_scores(first, second), ratings.groups_at(both)
        sample = CellSample.from_counts(matrix.cells)
        if groups is not None:
            sample = CellSample.from_units(cells_by_group(first, second, groups, int(groups.max()) + 1))
        intervals = metric_intervals(sample, seed=seed)
        (low, high), (kappa_low, kappa_high) = intervals["accuracy"], intervals["cohen_kappa"]
        rows.append(
            {
                "annotator": ratings.annotators[i],
                "other": ratings.annotators[j],
                "n": matrix.n,
                "n_groups": int(sample.n_units),
                "agreement": matrix.accuracy,
                "agreement_ci_low": low,
                "agreement_ci_high": high,
                "cohen_kappa": matrix.cohen_kappa,
                "ci_low": to_optional(kappa_low),
                "ci_high": to_optional(kappa_high),
            }
        )
    agreement, kappa = ("agreement", "agreement_ci_low", "agreement_ci_high"), ("cohen_kappa", "ci_low", "ci_high")
    return pd.DataFrame(rows, columns=["annotator", "other", "n", "n_groups", *agreement, *kappa])


def krippendorff_alpha(n_accepts: npt.ArrayLike, n_raters: npt.ArrayLike) -> Floats:
    """Krippendorff's alpha for two verdicts: Krippendorff (2011), Computing Krippendorff's alpha-reliability.

    Args:
        n_accepts: Shape (n,): accepting annotators of each record.
        n_raters: Shape (n,): all annotators of it; records with fewer than two do not count.

    Returns:
        A scalar; NaN where all verdicts are the same or no record has two.

    Raises:
        InputError: the arrays do not fit together.
    """
    return alpha_from_sums(alpha_sums(n_accepts, n_raters).sum(axis=0))


def alpha_sums(n_accepts: npt.ArrayLike, n_raters: npt.ArrayLike) -> Floats:
    """What records add to the sums that alpha is made of, shape (n, 3): disagreement, verdicts, accepts."""
    accepts, raters = np.asarray(n_accepts, dtype=np.float64), np.asarray(n_raters, dtype=np.float64)
    if accepts.shape != raters.shape or not ((accepts >= 0) & (accepts <= raters)).all():
        raise InputError(
            f"accepts of {accepts.size} records and annotators of {raters.size}; "
            "give both per record, the first at most the second"
        )
    disagreement = 2 * accepts * (raters - accepts) / np.maximum(raters - 1, 1)
    return np.column_stack([disagreement, raters, accepts]) * (raters >= 2)[:, None]


def alpha_from_sums(sums: Floats) -> Floats:
    """Krippendorff's alpha from sums of `alpha_sums`, shape (..., 3)."""
    observed, total, accepted = np.moveaxis(sums, -1, 0)
    return 1 - ratio(observed, ratio(2 * accepted * (total - accepted), total - 1))


@accepts(ratings=RATINGS)
def annotator_biases(ratings: Ratings) -> pd.DataFrame:
    """Per annotator: n, accept_rate, and bias: own accept rate less the others', on records that others judged too.

    Both with `mean_interval`, by groups where the ratings have them.
    """
    rows = []
    for j, name in enumerate(ratings.annotators):
        own = ratings.scores[:, j]
        is_own = ~np.isnan(own)
        others = ratio(ratings.n_accepts - np.nan_to_num(own), ratings.n_raters - is_own)
        shared = is_own & ~np.isnan(others)
        row: dict[str, object] = {"annotator": name, "n": int(is_own.sum()), "n_shared": int(shared.sum())}
        row["accept_rate"] = float(own[is_own].mean())
        row["accept_rate_ci_low"], row["accept_rate_ci_high"] = mean_interval(own[is_own], ratings.groups_at(is_own))
        row |= dict.fromkeys(("bias", "ci_low", "ci_high"))
        if shared.any():
            halves = (own - others + 1)[shared] / 2  # from [-1, 1] to [0, 1]
            ends = (np.sort(halves).mean(), *mean_interval(halves, ratings.groups_at(shared)))
            row["bias"], row["ci_low"], row["ci_high"] = (float(2 * end - 1) for end in ends)
        rows.append(row)
    accept_rate, bias = ("accept_rate", "accept_rate_ci_low", "accept_rate_ci_high"), ("bias", "ci_low", "ci_high")
    return pd.DataFrame(rows, columns=["annotator", "n", *accept_rate, "n_shared", *bias])


@accepts(annotations=table_with("record_id", "annotator", "score"))
def retest_agreement(annotations: pd.DataFrame) -> pd.DataFrame:
    """Per annotator who judged a record twice: n such records, agreement of first and last verdict, with interval.

    The interval is `mean_interval`, by groups where the annotations have them.

    Args:
        annotations: As `build_ratings` takes them.
    """
    given = complete_annotations(annotations)
    people = given[~given["is_gold"].astype(bool)]
    ordered = people.sort_values("created_at", na_position="first", kind="stable")
    verdicts = ordered.groupby(["annotator", "record_id"])["score"].agg(["first", "last", "count"]).reset_index()
    repeated = verdicts[verdicts["count"] > 1]
    rows = []
    for name, group in repeated.groupby("annotator"):
        same = (group["first"] == group["last"]).to_numpy().astype(np.float64)
        low, high = mean_interval(same, _groups_of(people, group["record_id"]))
        rows.append(
            {"annotator": name, "n": same.size, "agreement": float(same.mean()), "ci_low": low, "ci_high": high}
        )
    return pd.DataFrame(rows, columns=["annotator", "n", "agreement", "ci_low", "ci_high"])


@accepts(ratings=RATINGS)
def majority_labels(ratings: Ratings) -> Floats:
    """Shape (n,): the majority's verdict, NaN for ties."""
    excess = 2 * ratings.n_accepts - ratings.n_raters
    return np.where(excess == 0, np.nan, (excess > 0).astype(np.float64))


@dataclass(frozen=True)
class DawidSkene:
    """Consensus by estimated skill.

    Attributes:
        accept_probability: Shape (n,): posterior probability that the true verdict is accept.
        recall: Shape (k,): each annotator's probability to accept what is acceptable.
        specificity: Shape (k,): to reject what is not.
        prevalence: Share of acceptable records.
    """

    accept_probability: Floats
    recall: Floats
    specificity: Floats
    prevalence: float


@accepts(ratings=RATINGS)
def fit_dawid_skene(ratings: Ratings, *, n_iterations: int = 200, tolerance: float = 1e-8) -> DawidSkene:
    """Dawid & Skene (1979), J. R. Stat. Soc. C 28:20-28: EM, started from the shares of votes.

    Each rate carries one pseudo-verdict each way, so that an annotator with few records is not taken for perfect.
    """
    from scipy.special import expit

    given = ~np.isnan(ratings.scores)
    accepts = np.where(given, np.nan_to_num(ratings.scores), 0.0)
    rejects = given - accepts
    is_rated = ratings.n_raters > 0
    posterior = np.where(is_rated, ratings.n_accepts / np.maximum(ratings.n_raters, 1), 0.5)
    recall = specificity = np.empty(0)
    prevalence = 0.5
    for _ in range(n_iterations):
        prevalence = float((posterior[is_rated].sum() + 1) / (is_rated.sum() + 2))
        recall = (posterior @ accepts + 1) / (posterior @ given + 2)
        specificity = ((1 - posterior) @ rejects + 1) / ((1 - posterior) @ given + 2)
        odds = np.log(prevalence / (1 - prevalence))
        odds += accepts @ np.log(recall / (1 - specificity)) + rejects @ np.log((1 - recall) / specificity)
        previous, posterior = posterior, np.asarray(expit(odds))
        if np.abs(posterior - previous).max(initial=0.0) < tolerance:
            break
    return DawidSkene(posterior, recall, specificity, prevalence)


@dataclass(frozen=True)
class AltTest:
    """The alternative annotator test.

    Attributes:
        winning_rate: Share of annotators whom the judge may replace (ω); 0.5 or more passes.
        advantage: Mean probability that the judge is at least as close to the others as the annotator.
        by_annotator: One row per annotator: annotator, n, n_groups (n where no two records share one), judge_wins,
            annotator_wins, p_value, is_replaceable.
        reason: Why there is no result; None where there is.
    """

    winning_rate: float | None
    advantage: float | None
    by_annotator: pd.DataFrame
    reason: str | None = None


@accepts(ratings=RATINGS, epsilon=NUMBER, alpha=SHARE)
def run_alt_test(ratings: Ratings, llm: Floats, *, epsilon: float = EPSILON, alpha: float = 0.05) -> AltTest:
    """Whether the judge may stand in for an annotator: Calderon, Reichart & Dror (2025), ACL, arXiv 2501.10970.

    Each annotator is left out in turn. On a record, the judge wins where it agrees with at least as many of the others
    as the annotator left out does, and vice versa; a paired t test asks whether the judge's share of wins exceeds the
    annotator's less `epsilon` (what a judge is cheaper by); Benjamini-Yekutieli holds the false discovery rate. Where
    the ratings have groups, the test is `p_below` over them, and it is groups that each annotator needs 30 of.
    """
    columns = ["annotator", "n", "n_groups", "judge_wins", "annotator_wins", "p_value", "is_replaceable"]
    if len(ratings.annotators) < MIN_ALT_TEST_ANNOTATORS:
        reason = f"{len(ratings.annotators)} annotators; the test needs {MIN_ALT_TEST_ANNOTATORS}"
        return AltTest(None, None, pd.DataFrame(columns=columns), reason)
    rows = [_alt_test_row(ratings, llm, j, epsilon) for j in range(len(ratings.annotators))]
    table = pd.DataFrame(rows, columns=columns)
    table = table[table["n_groups"] >= MIN_ALT_TEST_RECORDS].reset_index(drop=True)
    if len(table) < MIN_ALT_TEST_ANNOTATORS:
        what = "judged records" if ratings.groups is None else "groups of judged records"
        reason = (
            f"{len(table)} annotators share {MIN_ALT_TEST_RECORDS} {what} with others; "
            f"the test needs {MIN_ALT_TEST_ANNOTATORS}"
        )
        return AltTest(None, None, table, reason)
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(table["p_value"].to_numpy(dtype=np.float64), method="by")
    table["is_replaceable"] = adjusted <= alpha
    return AltTest(float(table["is_replaceable"].mean()), float(table["judge_wins"].mean()), table)


def _alt_test_row(ratings: Ratings, llm: Floats, left_out: int, epsilon: float) -> dict[str, object]:
    own = ratings.scores[:, left_out]
    others = np.delete(ratings.scores, left_out, axis=1)
    counted = ~np.isnan(own) & ~np.isnan(llm) & (~np.isnan(others)).any(axis=1)
    n, groups = int(counted.sum()), ratings.groups_at(counted)
    n_groups = n if groups is None else int(groups.max()) + 1
    row: dict[str, object] = {"annotator": ratings.annotators[left_out], "n": n, "n_groups": n_groups}
    if n_groups < 2:
        return row
    share = np.nanmean(others[counted], axis=1)
    closeness_of_judge = np.where(llm[counted] == 1, share, 1 - share)
    closeness_of_annotator = np.where(own[counted] == 1, share, 1 - share)
    judge_wins = closeness_of_judge >= closeness_of_annotator
    annotator_wins = closeness_of_annotator >= closeness_of_judge
    return row | {
        "judge_wins": float(judge_wins.mean()),
        "annotator_wins": float(annotator_wins.mean()),
        "p_value": p_below(annotator_wins.astype(np.float64) - judge_wins, epsilon, groups),
    }
