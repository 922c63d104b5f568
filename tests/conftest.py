"""What every test may ask for: a read model's URL, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql.cluster import Cluster, NoPostgreSQLError, running_cluster


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster | str]:
    """A running cluster, or the reason why there is none."""
    try:
        with running_cluster() as cluster:
            yield cluster
    except NoPostgreSQLError as error:
        yield f"no PostgreSQL to test with: {error}"


@pytest.fixture
def postgresql_url(postgresql_cluster: Cluster | str) -> Iterator[str]:
    """The URL of a new, empty database, gone after the test; skips where there is no PostgreSQL."""
    if isinstance(postgresql_cluster, str):
        pytest.skip(postgresql_cluster)
    name = postgresql_cluster.create_database()
    yield postgresql_cluster.url(name)
    postgresql_cluster.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def read_model_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty read model: every test that takes it runs on both databases."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        return url
    return f"sqlite:///{tmp_path}/read-model.db"
