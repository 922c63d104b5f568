"""What a projection is: a name, a version, tables, and a handler that folds recorded events into rows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import ClassVar, Self

from sqlalchemy import Connection, Table

from aion_es.store.port import RecordedEvent


class Projection(ABC):
    """Rows that follow from events, and can be thrown away and made again.

    Subclass it, name it, list its tables and fold. The runner commits the rows of a batch together with
    the checkpoint, so `apply` sees every event exactly once in committed history: after a crash, or a
    lost race with another process, the batch is rolled back whole and comes again.

    Attributes:
        name: Unique in a read model; part of the checkpoint, so never renamed.
        version: Raise it when the rows would come out differently. The runner then folds again from the
            first event, into tables beside the old ones, which answer until the new ones have caught up.
        wants: Event types that `apply` is given; `None` for all.
        tables: What it owns, named by `apply` without a schema. Made and replaced by the runner.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    wants: ClassVar[frozenset[str] | None] = None
    tables: ClassVar[Sequence[Table]]

    @abstractmethod
    def apply(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Fold `batch` into the rows, on the read model's thread, inside its transaction.

        Args:
            connection: In a transaction that is neither to be committed nor rolled back here.
            batch: In the store's order; possibly empty of what matters here.

        Anything raised, `SystemExit` too, rolls the batch back and stops this projection only, until a
        retry succeeds.
        """

    def forget(self) -> None:  # noqa: B027 - most projections keep nothing in memory
        """Drop what `apply` keeps in memory between batches; the next batch must be right without it.

        Called when a transaction was rolled back, or when another process moved the checkpoint.
        """

    def twin(self) -> Self:
        """Return another instance that does the same and shares no memory with this one.

        It makes the rows anew, when an operator asks for that, while this one keeps those that answer.
        """
        made = deepcopy(self)
        made.forget()
        return made
