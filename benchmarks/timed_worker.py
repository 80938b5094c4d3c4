"""A worker of `benchmarks.batch` in a process of its own; its model takes as long as it is told to.

python -m benchmarks.timed_worker SECONDS        started by `benchmarks.batch`
"""

import sys

from benchmarks.batch import TimedModel
from benchmarks.instant import HashEmbedder
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.dialogue_worker import Worker
from persona_mcp.server.batch.model_pool import ModelPool, Post
from persona_mcp.server.batch.worker_process import main
from persona_mcp.state.dialogue_spec import ModelSpec


def timed_worker(settings: Settings, share: ModelSpec) -> Worker:
    """Make a worker whose share of the model takes so long for each reply."""
    configure_logging(settings.log)
    post = Post("timed", TimedModel(float(sys.argv[1])), share.slots or 1)
    return Worker(dialogue_host(settings, HashEmbedder()), ModelPool([post]))


if __name__ == "__main__":
    main(timed_worker)
