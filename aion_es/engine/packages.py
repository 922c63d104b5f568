"""A package of code: the files of a folder or an archive, and the content hash that is its version."""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from aion_es.errors import PackageError

_LENGTH: Final = 8
"""Bytes of each length in the canonical form."""


@dataclass(frozen=True)
class PackageFiles:
    """The files of a package, as they would lie in a directory on `sys.path`.

    Attributes:
        files: Content by path, in the order of the paths; `/` between their parts.
    """

    files: Mapping[str, bytes]

    @cached_property
    def content(self) -> bytes:
        """The canonical form: for each file its path and its bytes, each after its length.

        Neither the order of an archive nor times and permissions are in it, so the same files have the
        same hash, whatever they came in.
        """
        return b"".join(
            part
            for path, data in self.files.items()
            for raw in (path.encode(), data)
            for part in (len(raw).to_bytes(_LENGTH, "big"), raw)
        )

    @cached_property
    def version(self) -> str:
        """SHA-256 of the canonical form, in 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """Path by module name, packages before what is in them; `__main__` is a program, not a part of one."""
        found: dict[str, str] = {}
        for path in self.files:
            *folders, last = path.removesuffix(".py").split("/")
            if not path.endswith(".py") or not all(n.isidentifier() for n in (*folders, last)):
                continue
            if last == "__init__" and folders:
                found[".".join(folders)] = path
            elif last not in {"__init__", "__main__"}:
                found.setdefault(".".join((*folders, last)), path)
        return dict(sorted(found.items()))

    @cached_property
    def own_names(self) -> frozenset[str]:
        """What the package may import of itself by its absolute name: the modules at its top."""
        return frozenset(name.partition(".")[0] for name in self.modules)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "PackageFiles":
        """Read a package from a folder, a zip (a wheel is one) or a tar archive, compressed or not.

        A folder with an `__init__.py` stands for itself, as `import FOLDER` would find it; any other
        folder, and every archive, for what is in it. Left out are `__pycache__`, and files and folders
        whose name begins with a dot.

        Raises:
            PackageError: The path is empty, there is nothing to read, it is neither folder nor archive, it
                holds no Python module, or a path in it leads out of it or is not UTF-8.
        """
        if not os.fspath(path):
            raise PackageError("", "the path is empty; '.' is the current directory")
        place = Path(path)
        try:
            files = dict(sorted(_found(place)))
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise PackageError(place.name, f"cannot be read: {error}") from error
        package = cls(files)
        if not package.modules:
            raise PackageError(
                place.name, "holds no Python module at its top, nor in folders there"
            )
        return package

    @classmethod
    def of_content(cls, content: bytes) -> "PackageFiles":
        """Return the files that a canonical form tells of; who reads it from somewhere checks its hash."""
        pieces = list(_pieces(content))
        names = (raw.decode() for raw in pieces[::2])
        return cls(dict(zip(names, pieces[1::2], strict=True)))


def _pieces(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        begin = at + _LENGTH
        at = begin + int.from_bytes(content[at:begin], "big")
        yield content[begin:at]


def _found(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        found = _in_folder(place)
    elif not place.exists():
        raise PackageError(place.name, f"there is no {place}")
    elif zipfile.is_zipfile(place):
        found = _in_zip(place)
    elif tarfile.is_tarfile(place):
        found = _in_tar(place)
    else:
        raise PackageError(place.name, "is neither a folder nor a zip or tar archive")
    for name, data in found:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise PackageError(place.name, f"{name!r} leads out of the package")
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts):
            if not _is_text(name):
                raise PackageError(place.name, f"{name!a} is not a name in UTF-8")
            yield str(path), data


def _is_text(name: str) -> bool:
    """Return whether a name can be written down; one that is not UTF-8 is read with surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_folder(place: Path) -> Iterator[tuple[str, bytes]]:
    base = place
    if (place / "__init__.py").is_file():
        name = place.resolve().name
        if not name.isidentifier():
            raise PackageError(
                place.name, "holds an __init__.py, and its own name is not one that can be imported"
            )
        place = place.resolve()
        base = place.parent
    for folder, folders, names in os.walk(place):
        # What is left out below need not be read: it may be large.
        folders[:] = [f for f in folders if f != "__pycache__" and not f.startswith(".")]
        for name in names:
            path = Path(folder, name)
            yield path.relative_to(base).as_posix(), path.read_bytes()


def _in_zip(place: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(place) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, archive.read(member)


def _in_tar(place: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(place) as archive:
        for member in archive:
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise PackageError(place.name, f"{member.name!r} is a link or a device, not a file")
            yield member.name, stream.read()
