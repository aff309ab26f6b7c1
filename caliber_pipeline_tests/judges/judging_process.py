"""A process that judges, for tests that kill or interrupt it: arguments are the URL, the cache and the records."""

import sys
from pathlib import Path

from caliber_pipeline.judges.openai_judge import OpenAIJudge
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.judges.runner import run_judge
from caliber_pipeline.stores.verdict_cache import VerdictCache
from caliber_pipeline_tests.judges.scripted import make_task


def main(url: str, cache_path: str, n: str) -> None:
    settings = OpenAIJudgeSettings(
        model="m", base_url=url, max_concurrency=16, input_price=100.0, output_price=1000.0, max_output_tokens=20
    )
    task = make_task({f"r{i}": f"answer {i}" for i in range(int(n))})
    with VerdictCache(Path(cache_path)) as cache:
        run_judge(OpenAIJudge(settings), task, cache=cache, on_progress=lambda done, _: print(done, flush=True))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
