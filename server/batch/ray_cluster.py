"""The way to a Ray cluster: the library, the connection, the engine over its workers."""

import asyncio
import importlib.util
import os
import secrets
import sys
from typing import Any

import structlog

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.local_engine import Made, enough_for
from persona_mcp.server.batch.model_pool import open_pool
from persona_mcp.server.batch.ray_crew import RayCrew, RayWorker
from persona_mcp.server.batch.worker_engine import WorkerEngine
from persona_mcp.server.batch.worker_shares import shared_out
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.errors import NotConfigured

log = structlog.get_logger(__name__)

ADDRESS = "RAY_ADDRESS"
"""Environment variable that names a cluster; without it one is started on this machine."""
ANYWHERE = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Otherwise `uv run` has Ray build a second environment each time."""
HERE = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Of a cluster that is started here: it tells nobody that it was."""
INSTALL = (
    "the engine ray needs the extra: `pip install 'persona-mcp[ray]'` "
    "(in a checkout: `uv sync --extra ray`)"
)
STORE_BYTES = 256 * 2**20
"""Shared memory of a cluster that is started here: frozen worlds are all that is in it."""
SPARE_CALLS = 8
"""Of a worker beside dialogues: it is to hear that it should stop."""


async def open_ray(
    settings: Settings,
    model: ModelSpec,
    dialogues: int,
    workers: int | None = None,
    made: Made | None = None,
) -> WorkerEngine:
    """Connect to the cluster that RAY_ADDRESS names, or start one here, and start the workers.

    Args:
        settings: In effect; the workers take them over.
        model: Who writes the replies; its places are shared out to the workers.
        dialogues: How many there are to be held, >= 1.
        workers: How many, at most one for each place and dialogue; None for one a processor.
        made: Keeps each call of the model as it comes.

    Raises:
        NotConfigured: Ray is not installed, or the cluster or a worker did not start.
    """
    ray = loaded_ray()
    ours = not ray.is_initialized()
    if ours:
        await asyncio.to_thread(connect, ray, workers)
    processors = int(ray.cluster_resources().get("CPU", 1))
    most = min(workers or max(1, processors), dialogues)
    shares = shared_out(settings.llm, model, most)
    at_once = enough_for(open_pool(settings.llm, model))
    kind = ray.remote(RayWorker).options(
        num_cpus=1,
        max_concurrency=at_once + SPARE_CALLS,
        max_restarts=0,
        scheduling_strategy="SPREAD",
    )
    id = current_correlation_id()
    crew = RayCrew(ray, lambda share: kind.remote(settings, share, id), ours=ours)
    engine = WorkerEngine(crew, shares, at_once, made)
    await engine.begin()
    return engine


def loaded_ray() -> Any:
    """Import Ray, with what it has to know before.

    Raises:
        NotConfigured: It is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise NotConfigured(INSTALL)
    if "ray" not in sys.modules:  # later it would not read them, and its servers would
        for name, value in known_before().items():
            os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - heavy, and an extra

    return ray


def known_before() -> dict[str, str]:
    """Return the variables that Ray is to find when it is imported."""
    if ADDRESS in os.environ:
        return ANYWHERE
    if "RAY_AUTH_MODE" in os.environ:
        return ANYWHERE | HERE
    # Its ports are open to other machines, and whoever is let in runs what he likes.
    return ANYWHERE | HERE | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def connect(ray: Any, workers: int | None) -> None:
    """Connect to the cluster that is named, or start one of this machine with room for all.

    Raises:
        NotConfigured: It does not answer.
    """
    address = os.environ.get(ADDRESS)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=max(workers or 0, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        log.error("no connection to Ray", exc_info=error)
        ray.shutdown()
        raise NotConfigured(
            f"Ray's cluster at {address} does not answer: check {ADDRESS}"
            if address
            else "Ray did not start on this machine; the log has the cause"
        ) from error
