"""What the program asks of LangGraph's savers beyond what LangGraph does."""

from collections.abc import Mapping

from langgraph.checkpoint.base import BaseCheckpointSaver


class PersonaSaver(BaseCheckpointSaver[str]):
    """A saver that can forget the oldest checkpoints of a thread."""

    async def akeep(self, thread_id: str, count: int) -> None:
        """Delete all but the `count` newest checkpoints of a thread; ids grow with time."""
        raise NotImplementedError

    def connections(self) -> Mapping[str, int]:
        """Count its connections by state: size (the most), open, used, and waiting for one.

        Empty where there is no pool.
        """
        return {}
