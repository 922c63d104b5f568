"""A query answered, or its answer used, as another type."""

from aion_es import Context, WorkflowHandle
from tests.architecture.typing_channels import phase, price_of


def answer(ctx: Context) -> None:
    """Answer a text with a number, and a number with a text."""
    ctx.answer(phase, lambda: 1)  # error
    ctx.answer(price_of, lambda item: item)  # error


async def ask(handle: WorkflowHandle[str]) -> int:
    """Use a text as a number."""
    return await handle.query(phase)  # error
