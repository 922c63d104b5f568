"""Shipped to users for their tests: the store contract suite."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aion_es.testing.store_contract import StoreContract

__all__ = ["StoreContract"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: pytest and hypothesis are an extra.

    Raises:
        AttributeError: There is no such name here.
    """
    if name == "StoreContract":
        from aion_es.testing.store_contract import StoreContract

        return StoreContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
