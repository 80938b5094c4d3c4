"""What the graphs of a service work with, and the graphs, compiled.

Compiling them takes LangGraph, which is most of what a service imports; what runs a graph does not
(`graph_runs`).
"""

import time
from dataclasses import dataclass
from typing import Any

from persona_mcp.config.saver import PersonaSaver
from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.plain import plain
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.graphs.walks import walked
from persona_mcp.graphs.watching import watched
from persona_mcp.nodes.appraising import appraiser_of
from persona_mcp.nodes.parts import Limits, Parts
from persona_mcp.server.graph_runs import DIALOGUE, GRAPH
from persona_mcp.server.store import Store
from persona_mcp.server.summaries import Summaries
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.index.indexer import Indexer
from persona_mcp.state.memory.search import MemorySearch
from persona_mcp.state.model import ChatModel
from persona_mcp.state.watching import Watch

RELATIONSHIP = "relationship"


@dataclass(frozen=True)
class Graphs:
    """The graphs of a service, compiled; their types are LangGraph's.

    Attributes:
        chat: An exchange whose reply our own model writes, in one step.
        conversation: The same graph, each node a step: the host's model may be waited for.
        dialogue: A turn of a talk between personas, each node a step.
        relationship: An update, in one step.
    """

    chat: Any
    conversation: Any
    dialogue: Any
    relationship: Any


def graphs_of(parts: Parts, checkpointer: PersonaSaver, watch: Watch) -> Graphs:
    """Compile the graphs; each of their nodes is watched."""
    chat = walked(watched(build_conversation(parts), GRAPH, watch))
    conversation = watched(build_conversation(parts), GRAPH, watch)
    dialogue = watched(build_dialogue(parts), DIALOGUE, watch)
    relationship = walked(watched(build_relationship(parts), RELATIONSHIP, watch))
    return Graphs(
        plain(chat.compile(checkpointer=checkpointer, name=GRAPH)),
        plain(conversation.compile(checkpointer=checkpointer, name=GRAPH)),
        plain(dialogue.compile(checkpointer=checkpointer, name=DIALOGUE)),
        plain(relationship.compile(name=RELATIONSHIP)),
    )


def parts_of(
    store: Store,
    memories: MemorySearch,
    model: ChatModel,
    embedder: Embedder,
    indexer: Indexer,
    summaries: Summaries,
    process: str,
) -> Parts:
    """Collect what the nodes of the graphs work with."""
    settings = store.settings
    return Parts(
        database=store.database,
        memories=memories,
        model=model,
        appraiser=appraiser_of(store.settings.relationships, model, embedder),
        laws=store.laws,
        limits=Limits(
            settings.conversation.window_turns,
            settings.prompts.memories,
            settings.conversation.attempts,
        ),
        process=process,
        world=settings.world,
        now=time.time,
        written=indexer.wake,
        outgrown=summaries.ask,
        embedder=embedder,
    )
