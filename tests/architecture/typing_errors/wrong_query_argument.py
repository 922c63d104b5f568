"""A query asked with an argument that it does not take."""

from aion_es import WorkflowHandle
from tests.architecture.typing_channels import phase, price_of


async def ask(handle: WorkflowHandle[str]) -> None:
    """Ask with the wrong thing, without it, and with one where none is taken."""
    await handle.query(price_of, 1)  # error
    await handle.query(price_of)  # error
    await handle.query(phase, "book")  # error
