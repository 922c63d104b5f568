"""Who may do what: basic authentication, and the roles that `$acl` in a stream's metadata names."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aion_es.testing.eventstoredb.refusals import AccessDenied, unauthenticated
from aion_es.testing.eventstoredb.stream_metadata import Metadata

ADMINS: Final = "$admins"
OPERATORS: Final = "$ops"
EVERYBODY: Final = "$all"
READ: Final = "$r"
WRITE: Final = "$w"
DELETE: Final = "$d"
READ_METADATA: Final = "$mr"
WRITE_METADATA: Final = "$mw"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, and the roles that he has beside his own name."""

    name: str
    roles: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """True if nothing is forbidden to this user."""
        return ADMINS in self.roles


_SUPERUSER: Final = User("", frozenset({ADMINS}))
_ANONYMOUS: Final = User("anonymous", frozenset())


class Access:
    """Tells users apart and decides what they may do.

    Args:
        users: Passwords by name; None lets everybody do everything, as an insecure server does. `admin`
            and `ops` have the roles that they have on a real server.
    """

    def __init__(self, users: Mapping[str, str] | None) -> None:
        self._users = None if users is None else dict(users)

    def user(self, headers: Mapping[str, str], certified: str | None = None) -> User:
        """Return who calls.

        Args:
            headers: The call's.
            certified: The name in the certificate that the client showed, if it did.

        Raises:
            Refused: The name or the password is wrong.
        """
        if self._users is None:
            return _SUPERUSER
        header = headers.get("authorization")
        if header is None:
            return _ANONYMOUS if certified not in self._users else self._known(certified)
        name, password = _credentials(header)
        if self._users.get(name) != password:
            raise unauthenticated()
        return self._known(name)

    def _known(self, name: str) -> User:
        role = {"admin": ADMINS, "ops": OPERATORS}.get(name)
        return User(name, frozenset({role} if role else ()))

    def require(self, user: User, right: str, stream: str, metadata: Metadata) -> None:
        """Return if `user` has `right` on `stream`.

        Raises:
            AccessDenied: Not so.
        """
        if user.is_admin:
            return
        if user is _ANONYMOUS:
            raise AccessDenied
        roles = metadata.readers(right)
        if roles is None:
            roles = frozenset({ADMINS if stream.startswith("$") else EVERYBODY})
        if not roles & {EVERYBODY, user.name, *user.roles}:
            raise AccessDenied

    def require_operator(self, user: User) -> None:
        """Return if `user` may manage persistent subscriptions.

        Raises:
            AccessDenied: Not so.
        """
        if not user.roles & {ADMINS, OPERATORS}:
            raise AccessDenied


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise unauthenticated()
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise unauthenticated() from error
    name, _, password = decoded.partition(":")
    return name, password
