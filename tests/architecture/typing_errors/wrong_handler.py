"""A handler that takes something else than its channel carries, or is none."""

from aion_es import Context
from tests.architecture.typing_channels import Approval, Order, approval, stop


def take_order(order: Order) -> None:
    """Take an order."""
    print(order)


async def take_number(number: int) -> None:
    """Take a number."""
    print(number)


def ask(given: Approval) -> str:
    """Give something back, which nobody would see."""
    return given.by


def handle(ctx: Context) -> None:
    """Hand the channels to the wrong functions."""
    tasks = [
        ctx.on_signal(approval, take_order),  # error
        ctx.on_signal(approval, take_number),  # error
        ctx.on_signal(approval, ask),  # error
        ctx.on_signal(stop, take_number),  # error
    ]
    print(tasks)
