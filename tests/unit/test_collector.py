"""The garbage collector is relaxed while an engine is open, and as before afterwards."""

import gc
from collections.abc import Iterator

import pytest

from aion_es import Engine, EngineOptions
from aion_es.collector import paused_collector


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


async def test_it_is_relaxed_while_an_engine_is_open_and_restored_by_the_last() -> None:
    async with Engine.open("memory://"):
        assert gc.get_threshold() == (50_000, 20, 10)
        async with Engine.open("memory://"):
            assert gc.get_threshold() == (50_000, 20, 10)
        assert gc.get_threshold() == (50_000, 20, 10)
    assert gc.get_threshold() == (700, 10, 10)


async def test_it_is_left_alone_where_the_options_say_so() -> None:
    async with Engine.open("memory://", options=EngineOptions(collector_threshold=None)):
        assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [(90_000, 30, 5), (0, 10, 10)], ids=["higher", "off"])
async def test_a_programs_own_setting_is_kept(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    async with Engine.open("memory://"):
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_a_pause_ends_also_by_an_error_and_leaves_a_disabled_collector_disabled() -> None:
    def fails() -> None:
        with paused_collector():
            assert not gc.isenabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
