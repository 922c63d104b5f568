"""The contract that every event store keeps, as tests to inherit.

A store's test file is this, and nothing more::

    class TestMyStore(StoreContract):
        @asynccontextmanager
        async def open_store(self) -> AsyncIterator[EventStore]:
            store = MyStore(...)  # empty, and its own
            yield store
            await store.aclose()

Needs the `testing` extra and pytest's `asyncio_mode = "auto"`. The hooks and class attributes that a
store may set are those of `StoreContractBase`.

Where the port is silent, the suite settles it, after EventStoreDB:

- The expected revision -1 says the same as `NO_STREAM`.
- An expectation that holds always writes. Only one that does not hold is looked at as a repeat: it is
  one if the events stored after the expected revision have the ids given, in order; data is not
  compared. `NO_STREAM` then means the beginning of the stream's present life. An empty batch is
  never a repeat.
- A deleted stream has head -1 and reads as unknown. `NO_STREAM`, `ANY` and its last revision before
  the deletion admit an append, which gets the next revision; `EXISTS` is `StreamDeletedError`, for
  `append` and `delete` alike; any other revision conflicts, with `actual` -1. Afterwards only what
  was appended since is read.
- Deleting a stream that is unknown or deleted already changes nothing, and is an error only if the
  expectation does not hold.
- `head` does not look at metadata: a stream whose events are all hidden keeps its revision.
- What deletion and metadata hide from `read` and `subscribe`, `read_all` and `subscribe_all` may
  still give until it is reclaimed; no test looks there.
- A subscription or consumer that waits when its store closes gets `StoreClosedError`; one that waits
  when it is itself closed just ends; a consumer whose group is deleted, `ConsumerGroupNotFoundError`.
- A consumer group's attempt counts what was handed out and not answered, too: by time-out, or because
  the consumer left. `max_retries` 2 means three attempts. A replayed event begins at attempt 1 again.
"""

import pytest

# Before the modules are imported, so that a failing assertion in them shows its values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "base",
            "appends",
            "reads",
            "subscriptions",
            "groups",
            "group_settings",
            "streams",
            "lifecycle",
        )
    )
)

from aion_es.testing.store_contract.appends import AppendContract  # noqa: E402 - see above
from aion_es.testing.store_contract.base import StoreContractBase  # noqa: E402
from aion_es.testing.store_contract.group_settings import GroupSettingsContract  # noqa: E402
from aion_es.testing.store_contract.groups import ConsumerGroupContract  # noqa: E402
from aion_es.testing.store_contract.lifecycle import LifecycleContract  # noqa: E402
from aion_es.testing.store_contract.reads import ReadContract  # noqa: E402
from aion_es.testing.store_contract.streams import StreamContract  # noqa: E402
from aion_es.testing.store_contract.subscriptions import SubscriptionContract  # noqa: E402

__all__ = ["StoreContract", "StoreContractBase"]


class StoreContract(
    AppendContract,
    ReadContract,
    SubscriptionContract,
    ConsumerGroupContract,
    GroupSettingsContract,
    StreamContract,
    LifecycleContract,
):
    """Everything that the port promises; subclass it and give `open_store`."""
