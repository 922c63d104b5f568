"""A signal with a payload that its channel does not carry."""

from aion_es import Context, WorkflowHandle
from tests.architecture.typing_channels import Approval, approval, stop


async def send(handle: WorkflowHandle[str]) -> None:
    """Send the wrong thing, nothing where something is carried, and something where nothing is."""
    await handle.signal(approval, "ana")  # error
    await handle.signal(approval)  # error
    await handle.signal(stop, "now")  # error


async def receive(ctx: Context) -> str:
    """Take the payload for another type."""
    return await ctx.receive(approval)  # error


def unused() -> Approval:
    """Keep the import honest: the payload's type exists."""
    return Approval("ana")
