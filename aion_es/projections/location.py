"""Where the read model of a store is, if nobody says otherwise: in a file beside it."""

from aion_es.ids import DEFAULT_NAMESPACE


def read_model_beside(url: object, namespace: str) -> str:
    """Return the URL of the read model that belongs to a store: `aion.db` has `aion.readmodel.db`.

    A namespace other than the default one has one of its own, `aion.NAMESPACE.readmodel.db`. A server's is a
    file of that name in the working directory: engines of different servers need directories of their own,
    or `read_model=`. A store that was given open, or is in memory, has one in memory.
    """
    if not isinstance(url, str):
        return "sqlite://"
    name = "readmodel" if namespace == DEFAULT_NAMESPACE else f"{namespace}.readmodel"
    base = url.partition("?")[0]
    scheme, _, path = base.partition("://")
    if scheme.partition("+")[0] in {"esdb", "kurrentdb"}:
        return f"sqlite:///aion.{name}.db"
    if scheme != "sqlite" or path in {"", "/", "/:memory:"}:
        return "sqlite://"
    stem, dot, extension = path.rpartition(".")
    return (
        f"sqlite://{stem}.{name}.{extension}"
        if dot and "/" not in extension
        else f"sqlite://{path}.{name}"
    )
