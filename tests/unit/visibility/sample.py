"""Four runs that the tests of queries ask for."""

from typing import Any

from aion_es.events import workflow as ev
from aion_es.events.values import AttributeValue, Failure
from aion_es.projections import ReadModel, VisibilityProjection
from aion_es.projections.checkpoints import install
from tests.unit.projections.histories import History, started


def attribute(kind: Any, value: Any) -> AttributeValue:
    return AttributeValue(type=kind, value=value)


def sample() -> History:
    """Four runs, a minute apart: a (closed), b (failed), c, d; with different attributes."""
    history = History()
    ana = {
        "customer": attribute("String", "ana"),
        "total": attribute("Int", 10),
        "tags": attribute("KeywordList", ("vip", "new")),
    }
    bob = {
        "customer": attribute("String", "bob"),
        "total": attribute("Int", 20),
        "ratio": attribute("Float", 0.1),
    }
    history.add("a", started("ra", attributes=ana)).add("a", ev.WorkflowCompleted(), minute=5)
    history.add("b", started("rb", attributes=bob), minute=1)
    history.add("b", ev.WorkflowFailed(error=Failure(type="Boom", message="no")), minute=3)
    history.add(
        "c",
        started(
            "rc", workflow_type="ship", attributes={"tags": attribute("KeywordList", ("old",))}
        ),
        minute=2,
    )
    history.add("d", started("rd", attributes={"customer": attribute("String", "anna")}), minute=3)
    return history


async def fold(
    model: ReadModel, history: History, projection: VisibilityProjection | None = None
) -> None:
    """Write the rows of a history, on tables that are made for it."""
    folding = projection or VisibilityProjection()
    await model.write(lambda c: install(c, folding))
    await model.write(lambda c: folding.apply(c, history.events))
