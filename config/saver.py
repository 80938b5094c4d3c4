"""What the program asks of LangGraph's savers beyond what LangGraph does."""

from langgraph.checkpoint.base import BaseCheckpointSaver


class PersonaSaver(BaseCheckpointSaver[str]):
    """A saver that can forget the oldest checkpoints of a thread."""

    async def akeep(self, thread_id: str, count: int) -> None:
        """Delete all but the `count` newest checkpoints of a thread; ids grow with time."""
        raise NotImplementedError
