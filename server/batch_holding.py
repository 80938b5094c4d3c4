"""One batch of a world, held in its folder from wherever it was left to its outputs."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from persona_mcp.config.database import empty_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch_casts import Casts, read_casts
from persona_mcp.server.batch_course import Course
from persona_mcp.server.batch_folder import BatchFolder, begin_folder
from persona_mcp.server.batch_results import BEGUN, finish
from persona_mcp.server.batch_settings import Begun, as_begun, begun_with, check_embedder
from persona_mcp.server.batch_store import BatchStore
from persona_mcp.server.batch_worlds import Worlds
from persona_mcp.server.batches import Summary, run_batch
from persona_mcp.server.borrowed_model import BorrowedEmbedder, borrowed_pool
from persona_mcp.server.casting_files import cast_of
from persona_mcp.server.dialogue_host import dialogue_host
from persona_mcp.server.local_engine import LocalEngine
from persona_mcp.state.batch_faults import spec_of
from persona_mcp.state.batch_naming import as_in_world
from persona_mcp.state.batch_plan import BatchPlan, plan_batch
from persona_mcp.state.batch_rows import BatchRows, KeptBatch
from persona_mcp.state.batch import Outcome
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.folding import fold_into
from persona_mcp.state.model import ChatModel
from persona_mcp.state.snapshot_file import canonical

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

FOLDER = "dialogues"
"""Below the data folder: a folder for each world, in it one for each batch."""
KEPT_AT_ONCE = 20
"""Dialogues that become part of a world in one transaction: others write in between."""
