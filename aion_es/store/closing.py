"""What is closed by leaving its `async with` block."""

from abc import abstractmethod
from types import TracebackType
from typing import Self


class ClosesOnExit:
    """Gives a class with `aclose` its `async with`."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Close it; twice is fine."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
