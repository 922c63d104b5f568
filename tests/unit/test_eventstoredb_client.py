"""Choosing a client package, reading what a server says of itself, and what is shown of a connection string."""

import importlib
import re
from types import ModuleType

import pytest

from aion_es.errors import UnknownStoreURLError
from aion_es.store.eventstoredb.client import ServerVersion, _text_field, without_password
from aion_es.store.eventstoredb.messages import filter_regex
from aion_es.store.url import open_store, read_model_beside


def _no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> ModuleType:
        if name in {"esdbclient", "kurrentdbclient"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("esdb://127.0.0.1:2113?Tls=false", "aion-es[eventstoredb]"),
        ("esdb+discover://cluster.example:2113", "aion-es[eventstoredb]"),
        ("kurrentdb://127.0.0.1:2113?Tls=false", "aion-es[kurrentdb]"),
        ("kurrentdb+discover://cluster.example:2113", "aion-es[kurrentdb]"),
    ],
)
async def test_without_a_client_package_the_error_says_which_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    _no_client(monkeypatch)
    with pytest.raises(UnknownStoreURLError, match=re.escape(extra)):
        await open_store(url)


async def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_client(monkeypatch)
    with pytest.raises(UnknownStoreURLError) as refused:
        await open_store("esdb://admin:changeit@127.0.0.1:2113")
    assert "changeit" not in str(refused.value)
    assert "esdb://admin:***@127.0.0.1:2113" in str(refused.value)


def test_a_connection_string_without_a_password_is_shown_as_it_is() -> None:
    url = "esdb+discover://one:2113,two:2113?Tls=false"
    assert without_password(url) == url


@pytest.mark.parametrize(
    ("text", "number", "tells_caught_up", "limit"),
    [
        ("22.10.5", (22, 10), False, 2**20),
        ("24.10.6", (24, 10), True, 2**20),
        ("25.0.1", (25, 0), True, 2**20),
        ("25.1.0-rc1", (25, 1), True, 15 * 2**20),
        ("26.0.0.1234", (26, 0), True, 15 * 2**20),
        ("0.0.0", (9999, 0), True, 15 * 2**20),
    ],
)
def test_a_version_says_what_the_server_can_do(
    text: str, number: tuple[int, int], tells_caught_up: bool, limit: int
) -> None:
    version = ServerVersion(text)
    assert (version.number, version.tells_caught_up, version.limit) == (
        number,
        tells_caught_up,
        limit,
    )


def test_a_text_field_is_found_behind_other_fields() -> None:
    method = b"\x0a\x07" + b"\x0a\x05batch"
    assert _text_field(method * 30 + b"\x12\x0724.10.6", 2) == "24.10.6"
    assert _text_field(b"", 2) == ""
    assert _text_field(b"\x12", 2) == ""


@pytest.mark.parametrize(
    ("prefix", "name", "matches"),
    [
        ("aion_workflow-", "aion_workflow-1", True),
        ("aion_workflow-", "aion_workflow", False),
        ("a.b", "axb-1", False),
        ("a.b", "a.b-1", True),
        ("[a]|", "[a]|x", True),
        ("a", "ba", False),
        ("", "orders-1", True),
        ("", "$$orders-1", False),
        ("$$", "$$orders-1", True),
    ],
)
def test_a_filter_means_the_prefix_and_nothing_else(prefix: str, name: str, matches: bool) -> None:
    assert (re.search(filter_regex(prefix), name) is not None) is matches


@pytest.mark.parametrize(
    "url",
    [
        "esdb://127.0.0.1:2113?Tls=false",
        "esdb+discover://user:secret@cluster.example:2113",
        "kurrentdb://one:2113,two:2113",
        "kurrentdb+discover://cluster.example",
    ],
)
def test_the_read_model_of_an_engine_on_a_server_is_a_file_in_the_working_directory(
    url: str,
) -> None:
    assert read_model_beside(url, "aion") == "sqlite:///aion.readmodel.db"
    assert read_model_beside(url, "shop") == "sqlite:///aion.shop.readmodel.db"
