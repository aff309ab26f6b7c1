"""The six steps of calibrating a judge, on a few records: `python -m caliber_pipeline.demo [--full]`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Final

from caliber_pipeline.api.judging import DEFAULT_MODEL, LOCAL, find_judge
from caliber_pipeline.api.results import compare
from caliber_pipeline.api.session import CalibrationSession
from caliber_pipeline.core.criteria import DEFAULT_CRITERIA
from caliber_pipeline.core.errors import CaliberError
from caliber_pipeline.demo_records import demo_annotations, demo_records
from caliber_pipeline.renderers.console import ConsoleCaliberRenderer

N_EXAMPLES: Final = 10
NEEDS: Final = (
    "--full asks a language model, and the environment names none. Set OPENAI_API_KEY, or CALIBER_PROVIDER and that "
    "provider's key, or OPENAI_BASE_URL for an endpoint of your own; CALIBER_MODEL for another model than gpt-4o."
)


def main(arguments: Sequence[str] | None = None, renderer: ConsoleCaliberRenderer | None = None) -> int:
    """Walk through the steps; 0 on success, 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m caliber_pipeline.demo", description=__doc__)
    parser.add_argument("--full", action="store_true", help="judge and propose with the environment's language model")
    is_full = parser.parse_args(arguments).full
    show = renderer or ConsoleCaliberRenderer()
    provider, model = find_judge(None, DEFAULT_MODEL) if is_full else (LOCAL, DEFAULT_MODEL)
    if is_full and provider == LOCAL:
        show.render_message(NEEDS)
        return 2
    try:
        asyncio.run(_walk(show, provider, model))
    except CaliberError as error:
        show.render_message(str(error))
        return 2
    return 0


async def _walk(show: ConsoleCaliberRenderer, provider: str, model_name: str) -> None:
    session = CalibrationSession("demo")

    show.render_message("\n1. Upload. Records are queries and answers; here those of a bicycle shop's assistant.")
    session.upload_records(demo_records())
    show.render_records(session.records[:4])

    show.render_message("\n2. Annotate. A person accepts or rejects each answer, and notes why not.")
    for record_id, score, note in demo_annotations():
        session.annotate(record_id, score, note)
    show.render_progress(session.get_annotation_state())

    show.render_message(
        f"\n3. Evaluate. A judge scores the same records under a first rubric: “{DEFAULT_CRITERIA}”."
        + ("\nThe judge is the embedded default: no LLM, but it needs no key." if provider == LOCAL else "")
    )
    before = await session.evaluate(DEFAULT_CRITERIA, model_name, provider)
    show.render_evaluation(before)

    show.render_message("\n4. Discover patterns. What do people's notes have in common?")
    show.render_patterns(await session.discover_patterns())

    show.render_message("\n5. Analyse. Where does the judge err, and which notes go with its errors?")
    show.render_misalignments(await session.analyze_misalignments(model_name=model_name, llm_provider=provider))

    show.render_message(
        "\n6. Optimise. Criteria are rewritten from the errors on train; dev and test stay unseen, to judge by."
    )
    proposal = await session.optimize_prompt(N_EXAMPLES, model_name, provider)
    show.render_proposal(proposal)
    if proposal.has_changed:
        change = compare(before, await session.evaluate(proposal.version, model_name, provider))
        show.render_message(
            f"On the {change.n} records that it was not shown as examples, it gets {len(change.fixed)} right that were "
            f"wrong before, and {len(change.broken)} wrong that were right."
        )
    show.render_message(
        f"{len(session.records)} records describe and decide nothing: `session.iterate()` and the pipeline promote "
        "only what wins on held-out records, and want some hundreds of labels."
    )


if __name__ == "__main__":
    raise SystemExit(main())
