"""What stands before a language model and changes how it replies, and nothing else."""

from persona_mcp.state.model import ChatModel, ModelInfo, Offer


class ModelLayer:
    """Half of a `ChatModel`: all but `stream` is asked of the model behind."""

    def __init__(self, model: ChatModel) -> None:
        """Stand before this one."""
        self._model = model

    async def info(self) -> ModelInfo:
        """Say which model answers; see `ChatModel`."""
        return await self._model.info()

    async def offered(self) -> Offer:
        """Say which models there are; see `ChatModel`."""
        return await self._model.offered()

    async def check(self) -> str:
        """Say whether it is there; see `ChatModel`."""
        return await self._model.check()

    async def aclose(self) -> None:
        """Close the model; see `ChatModel`."""
        await self._model.aclose()
