"""The logic of every stage: tables in, tables out; no Dagster, no network, no clock, no files.

A stage is a module of its asset's name; the modules behind it stand below it, in the order in which data pass.

* Every stage: `schemas`, `conforming`, `errors`, `arguments`, `criteria`, `fingerprints`, `column_lineage`,
  `input_formats`.
* `records`: `columns`, `column_names`, `text_bytes`, `splits`.
* `annotations`: `annotation_events`, `annotation_imports`, `annotation_formats`, `judged_texts`, `staleness`, `labels`.
* `annotator_agreement`: `annotators`, `human_ceiling`.
* `judge_scores`: `judge_prompt`, `judge_reply`, `verdicts`, `pricing`, `usage`.
* `alignment_metrics`: `agreement`, `intervals`, `means`, `weights`, `planning`, `estimation`, `abstention`.
* `drift`.
* `patterns`: `notes`, `fault_kinds`, `clustering`, `consensus_clustering`, `stability`, `themes`, `ties`, `keywords`,
  `theme_prompts`, `pattern_map`.
* `misalignments`: `attribution`, which makes the relabel queue too.
* `learnings`: `enrichment`, `evidence_metadata`, `sanitizer`.
* `optimized_criteria`: `proposals`, `proposed_change`, `example_selection`, `rewriting`, `shown_records`,
  `proposal_checks` write the next version; `gate`, `paired_gain`, `selection_bias`, `stopping`, `loop` decide about it;
  `ablation` tells what its parts are worth.
* `calibration_history`, `calibrated_judge`, `report`, `plain_words`.
"""
