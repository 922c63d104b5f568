"""Page tokens: bound to what was asked, and useless in any other shape."""

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from aion_es.aggregates.attributes import AttributeSchema
from aion_es.errors import InvalidPageTokenError
from aion_es.projections import ReadModel
from aion_es.testing.clock import ManualClock
from aion_es.visibility import Visibility, WorkflowType
from aion_es.visibility.page_tokens import read_token
from tests.unit.projections.histories import NOON


async def token_of(visibility: Visibility, filter: str = "") -> str:
    token = (await visibility.page(filter, page_size=1)).next_page_token
    assert token is not None
    return token


def altered(token: str, **fields: Any) -> str:
    """Return a token with other contents and a digest that fits, as somebody may make it by hand."""
    names = ("mark", "now", "value", "run_id")
    body = from_json(base64.urlsafe_b64decode(token)[6:])
    raw = to_json([fields.get(name, old) for name, old in zip(names, body, strict=True)])
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()[:6] + raw).decode()


async def test_a_damaged_token_is_refused(visibility: Visibility) -> None:
    token = await token_of(visibility)
    swapped = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]
    wrong: Any
    for wrong in ("", "x", token[:-4], token + "!", "bnVsbA==", "é", swapped, 5):
        with pytest.raises(InvalidPageTokenError, match="it is damaged"):
            await visibility.page(page_token=wrong)


@pytest.mark.parametrize(
    ("filter", "order_by"),
    [
        ("WorkflowType = 'ship'", ""),
        ("WorkflowType = 'checkout' AND total > 1", ""),
        ("WorkflowType = 'checkout'", "StartTime ASC"),
        ("WorkflowType = 'checkout'", "RunId DESC"),
    ],
)
async def test_a_token_of_another_filter_or_order_is_refused(
    visibility: Visibility, filter: str, order_by: str
) -> None:
    token = await token_of(visibility, "WorkflowType = 'checkout'")
    with pytest.raises(InvalidPageTokenError, match="another filter or order"):
        await visibility.page(filter, order_by=order_by, page_token=token)


async def test_a_token_fits_the_same_filter_however_it_is_written(visibility: Visibility) -> None:
    token = await token_of(visibility, "WorkflowType = 'checkout'")
    expected = await visibility.page("WorkflowType = 'checkout'", page_token=token)
    for other in (
        " ( WorkflowType='checkout' ) ORDER BY StartTime desc",
        WorkflowType == "checkout",
    ):
        assert (await visibility.page(other, page_token=token)).rows == expected.rows


@pytest.mark.parametrize(
    "fields",
    [
        {"value": "text"},
        {"value": None},
        {"value": 2**63},
        {"value": 1.5},
        {"value": [1]},
        {"run_id": 7},
        {"run_id": "a\0"},
        {"now": 10**30},
        {"now": "soon"},
        {"mark": None},
    ],
)
async def test_a_token_made_by_hand_never_reaches_the_database(
    visibility: Visibility, fields: dict[str, Any]
) -> None:
    token = altered(await token_of(visibility), **fields)
    with pytest.raises(InvalidPageTokenError):
        await visibility.page(page_token=token)


@given(token=st.one_of(st.text(), st.binary().map(lambda raw: base64.b64encode(raw).decode())))
def test_any_text_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageTokenError):
        read_token(token)


async def test_now_is_one_instant_in_all_pages(model: ReadModel) -> None:
    clock = ManualClock(NOON)
    visibility = Visibility(model, None, AttributeSchema(), clock=clock)  # type: ignore[arg-type]  # the runner is not asked
    later = "StartTime >= now() ORDER BY StartTime"
    first = await visibility.page(later, page_size=1)
    clock.advance(timedelta(hours=1))
    rest = await visibility.page(later, page_token=first.next_page_token)
    assert [run.workflow_id for run in (*first.rows, *rest.rows)] == ["a", "b", "c", "d"]
    assert await visibility.count(later) == 0
