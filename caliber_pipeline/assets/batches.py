"""What a run shows of a provider's batches that it leaves under way."""

import dagster as dg

from caliber_pipeline.judges.batch_judge import BatchJudge
from caliber_pipeline.judges.protocol import Judge
from caliber_pipeline.resources import Project
from caliber_pipeline.stores.batch_folder import describe_batches


def observe_batches(context: dg.AssetExecutionContext, project: Project) -> dg.AssetObservation:
    """How many batches of the run's asset and version are under way, of how many records, and since when."""
    table, version = context.asset_key.to_user_string(), context.partition_key
    batches = project.open_batches(table, version)
    words = f"{describe_batches(batches)}; a sensor requests this run again when they have ended"
    context.log.info(words)
    return dg.AssetObservation(
        context.asset_key,
        partition=version,
        description=words,
        metadata={
            "n_batches": len(batches),
            "n_requests": sum(batch.n_requests for batch in batches),
            "sent_at": min((batch.sent_at for batch in batches), default="never"),
            "batch_ids": [str(batch.batch_id) for batch in batches],
        },
    )


def show_endings(judge: Judge) -> dict[str, str]:
    """How the batches ended that gave verdicts, as metadata; nothing where none did."""
    endings = judge.endings if isinstance(judge, BatchJudge) else {}
    return {"batches": ", ".join(f"{n} {how}" for how, n in sorted(endings.items()))} if endings else {}
