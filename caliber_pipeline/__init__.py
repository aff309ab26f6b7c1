"""Calibrate LLM judges against people.

Names are resolved when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caliber_pipeline.api.analysis import Finding as Finding
    from caliber_pipeline.api.analysis import MisalignedRecord as MisalignedRecord
    from caliber_pipeline.api.analysis import MisalignmentAnalysis as MisalignmentAnalysis
    from caliber_pipeline.api.analysis import MisalignmentAnalyzer as MisalignmentAnalyzer
    from caliber_pipeline.api.annotating import AnnotationChange as AnnotationChange
    from caliber_pipeline.api.annotating import AnnotationManager as AnnotationManager
    from caliber_pipeline.api.annotating import AnnotationState as AnnotationState
    from caliber_pipeline.api.calibrated_judge import CalibratedJudge as CalibratedJudge
    from caliber_pipeline.api.dedupers import EmbeddingDeduper as EmbeddingDeduper
    from caliber_pipeline.api.dedupers import InMemoryDeduper as InMemoryDeduper
    from caliber_pipeline.api.discovery import DiscoveryOptions as DiscoveryOptions
    from caliber_pipeline.api.discovery import PatternDiscovery as PatternDiscovery
    from caliber_pipeline.api.discovery_results import ClusteringMethod as ClusteringMethod
    from caliber_pipeline.api.discovery_results import DiscoveredPattern as DiscoveredPattern
    from caliber_pipeline.api.discovery_results import EvidenceItem as EvidenceItem
    from caliber_pipeline.api.discovery_results import PatternDiscoveryResult as PatternDiscoveryResult
    from caliber_pipeline.api.evaluation import EvaluationRunner as EvaluationRunner
    from caliber_pipeline.api.evidence import EvidenceOptions as EvidenceOptions
    from caliber_pipeline.api.evidence import EvidencePipeline as EvidencePipeline
    from caliber_pipeline.api.evidence import PipelineResult as PipelineResult
    from caliber_pipeline.api.evidence_parts import ArtifactSink as ArtifactSink
    from caliber_pipeline.api.evidence_parts import ArtifactWriter as ArtifactWriter
    from caliber_pipeline.api.evidence_parts import Deduper as Deduper
    from caliber_pipeline.api.evidence_parts import EvidenceClusterer as EvidenceClusterer
    from caliber_pipeline.api.evidence_parts import KeywordWriter as KeywordWriter
    from caliber_pipeline.api.evidence_parts import LLMWriter as LLMWriter
    from caliber_pipeline.api.evidence_parts import RedactingSanitizer as RedactingSanitizer
    from caliber_pipeline.api.evidence_parts import Sanitizer as Sanitizer
    from caliber_pipeline.api.hq import BaseMetric as BaseMetric
    from caliber_pipeline.api.hq import CaliberHQ as CaliberHQ
    from caliber_pipeline.api.hq import CaliberMetric as CaliberMetric
    from caliber_pipeline.api.hq import Dataset as Dataset
    from caliber_pipeline.api.hq import DatasetItem as DatasetItem
    from caliber_pipeline.api.hq import WebCaliberHQ as WebCaliberHQ
    from caliber_pipeline.api.iterating import CalibrationOutcome as CalibrationOutcome
    from caliber_pipeline.api.iterating import CalibrationRound as CalibrationRound
    from caliber_pipeline.api.llm_themes import LLMOptions as LLMOptions
    from caliber_pipeline.api.optimization import OptimizationResult as OptimizationResult
    from caliber_pipeline.api.optimization import PromptOptimizer as PromptOptimizer
    from caliber_pipeline.api.optimization import Suggestion as Suggestion
    from caliber_pipeline.api.pattern_display import display_learnings as display_learnings
    from caliber_pipeline.api.pattern_display import display_patterns as display_patterns
    from caliber_pipeline.api.pattern_display import display_pipeline_result as display_pipeline_result
    from caliber_pipeline.api.records import Annotation as Annotation
    from caliber_pipeline.api.records import UploadedRecord as UploadedRecord
    from caliber_pipeline.api.results import EvaluatedRecord as EvaluatedRecord
    from caliber_pipeline.api.results import EvaluationComparison as EvaluationComparison
    from caliber_pipeline.api.results import EvaluationConfig as EvaluationConfig
    from caliber_pipeline.api.results import EvaluationMetrics as EvaluationMetrics
    from caliber_pipeline.api.results import EvaluationResult as EvaluationResult
    from caliber_pipeline.api.results import FailedRecord as FailedRecord
    from caliber_pipeline.api.results import compare as compare
    from caliber_pipeline.api.selection import ExampleSelector as ExampleSelector
    from caliber_pipeline.api.selection import SelectionResult as SelectionResult
    from caliber_pipeline.api.selection import auto_select_strategy as auto_select_strategy
    from caliber_pipeline.api.session import CalibrationSession as CalibrationSession
    from caliber_pipeline.api.session_records import SessionState as SessionState
    from caliber_pipeline.api.upload import RejectedRow as RejectedRow
    from caliber_pipeline.api.upload import UploadHandler as UploadHandler
    from caliber_pipeline.api.upload import UploadResult as UploadResult
    from caliber_pipeline.core.abstention import Abstention as Abstention
    from caliber_pipeline.core.abstention import find_threshold as find_threshold
    from caliber_pipeline.core.abstention import select_abstained as select_abstained
    from caliber_pipeline.core.agreement import ConfusionMatrix as ConfusionMatrix
    from caliber_pipeline.core.agreement import interpret_kappa as interpret_kappa
    from caliber_pipeline.core.agreement import kappa_from_rates as kappa_from_rates
    from caliber_pipeline.core.alignment_metrics import compute_alignment_metrics as compute_alignment_metrics
    from caliber_pipeline.core.alignment_metrics import label_verdict as label_verdict
    from caliber_pipeline.core.alignment_metrics import measure_agreement as measure_agreement
    from caliber_pipeline.core.alignment_metrics import metric_value as metric_value
    from caliber_pipeline.core.annotator_agreement import describe_annotators as describe_annotators
    from caliber_pipeline.core.annotators import annotator_biases as annotator_biases
    from caliber_pipeline.core.annotators import build_ratings as build_ratings
    from caliber_pipeline.core.annotators import fit_dawid_skene as fit_dawid_skene
    from caliber_pipeline.core.annotators import krippendorff_alpha as krippendorff_alpha
    from caliber_pipeline.core.annotators import majority_labels as majority_labels
    from caliber_pipeline.core.annotators import pairwise_agreement as pairwise_agreement
    from caliber_pipeline.core.annotators import retest_agreement as retest_agreement
    from caliber_pipeline.core.annotators import run_alt_test as run_alt_test
    from caliber_pipeline.core.attribution import ask_owner as ask_owner
    from caliber_pipeline.core.attribution import attribute_misalignments as attribute_misalignments
    from caliber_pipeline.core.attribution import build_relabel_queue as build_relabel_queue
    from caliber_pipeline.core.drift import DriftSplit as DriftSplit
    from caliber_pipeline.core.drift import DriftTest as DriftTest
    from caliber_pipeline.core.drift import run_drift_test as run_drift_test
    from caliber_pipeline.core.drift import split_drift as split_drift
    from caliber_pipeline.core.errors import CaliberError as CaliberError
    from caliber_pipeline.core.errors import CriteriaError as CriteriaError
    from caliber_pipeline.core.errors import InputError as InputError
    from caliber_pipeline.core.errors import JudgeError as JudgeError
    from caliber_pipeline.core.errors import MissingStepError as MissingStepError
    from caliber_pipeline.core.errors import ReplyError as ReplyError
    from caliber_pipeline.core.errors import SchemaError as SchemaError
    from caliber_pipeline.core.estimation import RateEstimate as RateEstimate
    from caliber_pipeline.core.estimation import estimate_from_random_sample as estimate_from_random_sample
    from caliber_pipeline.core.estimation import estimate_under_label_shift as estimate_under_label_shift
    from caliber_pipeline.core.evidence_metadata import MetadataConfig as MetadataConfig
    from caliber_pipeline.core.example_selection import SelectionStrategy as SelectionStrategy
    from caliber_pipeline.core.human_ceiling import compute_people_metrics as compute_people_metrics
    from caliber_pipeline.core.intervals import proportion_interval as proportion_interval
    from caliber_pipeline.core.learnings import Enrichment as Enrichment
    from caliber_pipeline.core.learnings import LearningArtifact as LearningArtifact
    from caliber_pipeline.core.learnings import ThemeEvidence as ThemeEvidence
    from caliber_pipeline.core.planning import draw_sample as draw_sample
    from caliber_pipeline.core.planning import labels_for_gain as labels_for_gain
    from caliber_pipeline.core.planning import labels_for_half_width as labels_for_half_width
    from caliber_pipeline.core.planning import plausible_shares as plausible_shares
    from caliber_pipeline.core.planning import power_of_gain as power_of_gain
    from caliber_pipeline.core.planning import sampling_probabilities as sampling_probabilities
    from caliber_pipeline.renderers.console import ConsoleCaliberHQRenderer as ConsoleCaliberHQRenderer
    from caliber_pipeline.renderers.console import ConsoleCaliberRenderer as ConsoleCaliberRenderer
    from caliber_pipeline.renderers.json_renderer import JsonCaliberHQRenderer as JsonCaliberHQRenderer
    from caliber_pipeline.renderers.json_renderer import JsonCaliberRenderer as JsonCaliberRenderer
    from caliber_pipeline.renderers.notebook import NotebookCaliberHQRenderer as NotebookCaliberHQRenderer
    from caliber_pipeline.renderers.notebook import NotebookCaliberRenderer as NotebookCaliberRenderer
    from caliber_pipeline.renderers.protocol import CaliberHQRenderer as CaliberHQRenderer
    from caliber_pipeline.renderers.protocol import CaliberRenderer as CaliberRenderer
    from caliber_pipeline.stores.learning_sinks import InMemorySink as InMemorySink
    from caliber_pipeline.stores.learning_sinks import JsonlSink as JsonlSink
    from caliber_pipeline.stores.learning_sinks import ParquetSink as ParquetSink

_MODULES = {
    "caliber_pipeline.api.analysis": (
        "Finding",
        "MisalignedRecord",
        "MisalignmentAnalysis",
        "MisalignmentAnalyzer",
    ),
    "caliber_pipeline.api.annotating": (
        "AnnotationChange",
        "AnnotationManager",
        "AnnotationState",
    ),
    "caliber_pipeline.api.calibrated_judge": ("CalibratedJudge",),
    "caliber_pipeline.api.dedupers": (
        "EmbeddingDeduper",
        "InMemoryDeduper",
    ),
    "caliber_pipeline.api.discovery": (
        "DiscoveryOptions",
        "PatternDiscovery",
    ),
    "caliber_pipeline.api.discovery_results": (
        "ClusteringMethod",
        "DiscoveredPattern",
        "EvidenceItem",
        "PatternDiscoveryResult",
    ),
    "caliber_pipeline.api.evaluation": ("EvaluationRunner",),
    "caliber_pipeline.api.evidence": (
        "EvidenceOptions",
        "EvidencePipeline",
        "PipelineResult",
    ),
    "caliber_pipeline.api.evidence_parts": (
        "ArtifactSink",
        "ArtifactWriter",
        "Deduper",
        "EvidenceClusterer",
        "KeywordWriter",
        "LLMWriter",
        "RedactingSanitizer",
        "Sanitizer",
    ),
    "caliber_pipeline.api.hq": (
        "BaseMetric",
        "CaliberHQ",
        "CaliberMetric",
        "Dataset",
        "DatasetItem",
        "WebCaliberHQ",
    ),
    "caliber_pipeline.api.iterating": (
        "CalibrationOutcome",
        "CalibrationRound",
    ),
    "caliber_pipeline.api.llm_themes": ("LLMOptions",),
    "caliber_pipeline.api.optimization": (
        "OptimizationResult",
        "PromptOptimizer",
        "Suggestion",
    ),
    "caliber_pipeline.api.pattern_display": (
        "display_learnings",
        "display_patterns",
        "display_pipeline_result",
    ),
    "caliber_pipeline.api.records": (
        "Annotation",
        "UploadedRecord",
    ),
    "caliber_pipeline.api.results": (
        "EvaluatedRecord",
        "EvaluationComparison",
        "EvaluationConfig",
        "EvaluationMetrics",
        "EvaluationResult",
        "FailedRecord",
        "compare",
    ),
    "caliber_pipeline.api.selection": (
        "ExampleSelector",
        "SelectionResult",
        "auto_select_strategy",
    ),
    "caliber_pipeline.api.session": ("CalibrationSession",),
    "caliber_pipeline.api.session_records": ("SessionState",),
    "caliber_pipeline.api.upload": (
        "RejectedRow",
        "UploadHandler",
        "UploadResult",
    ),
    "caliber_pipeline.core.errors": (
        "CaliberError",
        "CriteriaError",
        "InputError",
        "JudgeError",
        "MissingStepError",
        "ReplyError",
        "SchemaError",
    ),
    "caliber_pipeline.core.evidence_metadata": ("MetadataConfig",),
    "caliber_pipeline.core.example_selection": ("SelectionStrategy",),
    "caliber_pipeline.core.learnings": (
        "Enrichment",
        "LearningArtifact",
        "ThemeEvidence",
    ),
    "caliber_pipeline.renderers.console": (
        "ConsoleCaliberHQRenderer",
        "ConsoleCaliberRenderer",
    ),
    "caliber_pipeline.renderers.json_renderer": (
        "JsonCaliberHQRenderer",
        "JsonCaliberRenderer",
    ),
    "caliber_pipeline.renderers.notebook": (
        "NotebookCaliberHQRenderer",
        "NotebookCaliberRenderer",
    ),
    "caliber_pipeline.renderers.protocol": (
        "CaliberHQRenderer",
        "CaliberRenderer",
    ),
    "caliber_pipeline.stores.learning_sinks": (
        "InMemorySink",
        "JsonlSink",
        "ParquetSink",
    ),
    "caliber_pipeline.core.abstention": (
        "Abstention",
        "find_threshold",
        "select_abstained",
    ),
    "caliber_pipeline.core.agreement": (
        "ConfusionMatrix",
        "interpret_kappa",
        "kappa_from_rates",
    ),
    "caliber_pipeline.core.alignment_metrics": (
        "compute_alignment_metrics",
        "label_verdict",
        "measure_agreement",
        "metric_value",
    ),
    "caliber_pipeline.core.annotator_agreement": ("describe_annotators",),
    "caliber_pipeline.core.annotators": (
        "annotator_biases",
        "build_ratings",
        "fit_dawid_skene",
        "krippendorff_alpha",
        "majority_labels",
        "pairwise_agreement",
        "retest_agreement",
        "run_alt_test",
    ),
    "caliber_pipeline.core.attribution": (
        "ask_owner",
        "attribute_misalignments",
        "build_relabel_queue",
    ),
    "caliber_pipeline.core.drift": (
        "DriftSplit",
        "DriftTest",
        "run_drift_test",
        "split_drift",
    ),
    "caliber_pipeline.core.estimation": (
        "RateEstimate",
        "estimate_from_random_sample",
        "estimate_under_label_shift",
    ),
    "caliber_pipeline.core.human_ceiling": ("compute_people_metrics",),
    "caliber_pipeline.core.intervals": ("proportion_interval",),
    "caliber_pipeline.core.planning": (
        "draw_sample",
        "labels_for_gain",
        "labels_for_half_width",
        "plausible_shares",
        "power_of_gain",
        "sampling_probabilities",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)

if not TYPE_CHECKING:  # type checkers know the names above and report any other

    def __getattr__(name: str) -> object:
        """Import the module of a public name when the name is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names beside what is loaded."""
    return sorted({*globals(), *__all__})
