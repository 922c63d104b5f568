"""Shipped to users for their tests: a clock to turn, stores that fail on demand, given/when/then, the store contract.

Everything is imported when it is asked for: pytest and hypothesis are an extra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aion_es.testing.aggregates import given, given_schedule
    from aion_es.testing.clock import ManualClock
    from aion_es.testing.faults import FaultyStore
    from aion_es.testing.store_contract import StoreContract

__all__ = ["FaultyStore", "ManualClock", "StoreContract", "given", "given_schedule"]

_HOMES: Final = {
    "FaultyStore": "faults",
    "ManualClock": "clock",
    "StoreContract": "store_contract",
    "given": "aggregates",
    "given_schedule": "aggregates",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for.

    Raises:
        AttributeError: There is no such name here.
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
