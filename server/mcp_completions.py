"""What the MCP door proposes while an argument of a prompt or of an address is written."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mcp_types import CompleteRequestParams, Completion, PromptReference

from persona_mcp.server.admission import check_scope, check_world, home_of
from persona_mcp.server.mcp_prompts import persona_of
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.state.callers import current_caller
from persona_mcp.state.errors import NotFound

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

MOST = 100
"""MCP allows no more in one answer."""
BEGUN = re.compile("[A-Za-z0-9_-]{0,64}")
"""What an id may begin with; a database takes neither NUL characters nor endless patterns."""
Given = Mapping[str, str]
Begun = tuple[list[str], int]
"""Values that begin so, the likeliest first, and how many there are."""
Completer = Callable[["Store", str, Given], Awaitable[Begun]]


async def completion(store: "Store", params: CompleteRequestParams) -> Completion:
    """Propose values for an argument; for one that nothing is known of, none.

    Raises:
        Forbidden: The caller may not read.
        NotFound: No world is open to it.
        RateLimited: It completes too often.
        StorageUnavailable: The database did not answer.
    """
    check_scope("completion/complete", "read")
    await store.limits.admit_completion(current_caller())
    await check_world(store, home_of(store))
    given = dict((params.context and params.context.arguments) or {})
    if isinstance(params.ref, PromptReference):
        completer = PROMPTED.get(params.argument.name)
        if persona_id := persona_of(params.ref.name):
            given["persona_id"] = persona_id
    else:
        scheme = str(params.ref.uri).partition("://")[0]
        completer = ADDRESSED.get((scheme, params.argument.name))
    if completer is None:
        return Completion(values=[], total=0, has_more=False)
    found, total = await completer(store, params.argument.value, given)
    return Completion(values=found[:MOST], total=total, has_more=total > MOST)


def beginning(pairs: Sequence[tuple[str, str]], begun: str) -> Begun:
    """Keep the ids that begin so, or whose name does, in any case."""
    start = begun.casefold()
    found = [
        id
        for id, name in pairs
        if id.casefold().startswith(start) or name.casefold().startswith(start)
    ]
    return found, len(found)


async def personas(store: "Store", begun: str, given: Given) -> Begun:
    """Propose personas of the caller's usual world by their id or name."""
    names = await store.personas.names(home_of(store))
    return beginning(list(names.items()), begun)


async def others(store: "Store", begun: str, given: Given) -> Begun:
    """Propose whom `a` knows, personas and users; everybody while `a` is not written."""
    if not given.get("a"):
        return await personas(store, begun, given)
    asked = {"persona_id": given["a"], "limit": 200}
    try:
        known = await call_operation(store, "relationship_list", asked)
    except NotFound:  # a user, or somebody who is not there
        return await personas(store, begun, given)
    pairs = [(one["other_persona_id"], one["other_name"]) for one in known["relationships"]]
    return beginning(pairs, begun)


async def conversations(store: "Store", begun: str, given: Given) -> Begun:
    """Propose conversations of the caller's usual world by their id, the last used first."""
    if not BEGUN.fullmatch(begun):
        return [], 0
    return await store.conversations.begun(home_of(store), begun, MOST)


async def memories(store: "Store", begun: str, given: Given) -> Begun:
    """Propose memories of the caller's usual world by their id, the newest first."""
    if not BEGUN.fullmatch(begun):
        return [], 0
    return await store.memory_store.begun(home_of(store), begun, MOST)


async def worlds(store: "Store", begun: str, given: Given) -> Begun:
    """Propose worlds that are open to the caller by their id or name."""
    known = (await store.personas.worlds()).items()
    return beginning([pair for pair in known if current_caller().opens(pair[0])], begun)


async def topics(store: "Store", begun: str, given: Given) -> Begun:
    """Propose what the persona that is chosen likes to talk about, the dearest first."""
    if not given.get("persona_id"):
        return [], 0
    try:
        found = await store.personas.resolve(home_of(store), given["persona_id"])
    except NotFound:
        return [], 0
    liking = found.spec.topic_preferences
    return beginning([(topic, "") for topic in sorted(liking, key=lambda t: -liking[t])], begun)


ADDRESSED: dict[tuple[str, str], Completer] = {
    ("persona", "id"): personas,
    ("conversation", "id"): conversations,
    ("memory", "id"): memories,
    ("relationship", "a"): personas,
    ("relationship", "b"): others,
    ("world", "id"): worlds,
}
"""By the kind of a resource, and the variable of its address."""
PROMPTED: dict[str, Completer] = {"persona_id": personas, "topic": topics}
"""By the argument of a prompt, which means the same in all of them."""
