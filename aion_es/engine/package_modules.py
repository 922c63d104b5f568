"""The modules of packages: each version's in a namespace of its own, so that several live in one process.

A module `shop.flows` of a package is really `aion_package_HASH.shop.flows`. Under that name it is in
`sys.modules`, where pickle, dataclasses and `typing.get_type_hints` look for it, and relative imports work
as ever. An absolute import of the package's own name is led there by the `__import__` among the module's
builtins: the interpreter takes it from there for every import statement of the module, also for one in a
function that runs much later. All else is imported as everywhere.
"""

import builtins
import importlib
import importlib.abc
import importlib.util
import inspect
import io
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from importlib.resources.abc import TraversableResources
from types import ModuleType
from typing import Any, Final

from aion_es.authoring.definitions import (
    ActivityDefinition,
    WorkflowDefinition,
    activity_definition,
    workflow_definition,
)
from aion_es.engine.packages import PackageFiles
from aion_es.errors import DefinitionError, PackageError

_PREFIX: Final = "aion_package_"
_ROOT_DIGITS: Final = 16
"""Hexadecimal digits of the version in a module's name: 64 bits, so that no two packages share one."""


@dataclass(frozen=True, eq=False)
class LoadedPackage:
    """A package of code that is loaded in this process.

    Attributes:
        version: Content hash of its files, in 64 hexadecimal digits; what its runs are pinned to.
        name: What it was loaded from; for people.
        workflows: Its workflows by type, each with the package's version in place of its label.
        activities: Its activities by type.
    """

    version: str
    name: str
    workflows: Mapping[str, WorkflowDefinition]
    activities: Mapping[str, ActivityDefinition]

    def module(self, name: str) -> ModuleType:
        """Return one of its modules by the name that it has inside the package: `shop.models`.

        Raises:
            ModuleNotFoundError: It has none of this name.
        """
        return importlib.import_module(f"{_root(self.version)}.{name}")


def load(files: PackageFiles, name: str) -> LoadedPackage:
    """Import every module of a package and return what they define; `release` gives it back.

    Workflows and activities that its modules import from elsewhere are not the package's: another version
    of them would not be another version of it.

    Raises:
        PackageError: A module cannot be imported; an annotation cannot be resolved; two functions share a
            type; it defines neither a workflow nor an activity. Nothing of it stays loaded.
    """
    _FINDER.acquire(files)
    try:
        modules = _imported(files, name)
        package = _scanned(files, name, modules)
    except BaseException as error:
        release(files.version, purge=True)
        if isinstance(error, (PackageError, KeyboardInterrupt)):
            raise
        raise PackageError(name, f"raised {type(error).__name__}: {error}") from error
    return package


def release(version: str, *, purge: bool) -> None:
    """Give back what `load` gave; with `purge`, and nobody else using it, its modules leave the process."""
    _FINDER.release(version, purge=purge)


def _imported(files: PackageFiles, name: str) -> list[ModuleType]:
    modules: list[ModuleType] = []
    for module in files.modules:
        try:
            modules.append(importlib.import_module(f"{_root(files.version)}.{module}"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Also what is no Exception, as pytest.importorskip raises: this engine need not end for it.
            raise PackageError(
                name, f"importing {module!r} raised {type(error).__name__}: {error}"
            ) from error
    return modules


def _scanned(files: PackageFiles, name: str, modules: Sequence[ModuleType]) -> LoadedPackage:
    workflows: dict[str, WorkflowDefinition] = {}
    activities: dict[str, ActivityDefinition] = {}
    try:
        for function in _functions(files, modules):
            if (workflow := _definition(workflow_definition, function)) is not None:
                _ = workflow.signature.hints
                _take(workflows, replace(workflow, version=files.version))
            if (activity := _definition(activity_definition, function)) is not None:
                _ = activity.signature.hints
                _take(activities, _findable(files, activity))
    except DefinitionError as error:
        raise PackageError(name, str(error)) from error
    if not workflows and not activities:
        raise PackageError(name, "defines neither a workflow nor an activity")
    return LoadedPackage(files.version, name, workflows, activities)


def _functions(files: PackageFiles, modules: Sequence[ModuleType]) -> Iterator[Any]:
    """Yield the functions that a package's modules define, each once."""
    own = f"{_root(files.version)}."
    seen: set[int] = set()
    for module in modules:
        for value in list(vars(module).values()):
            if (
                inspect.isfunction(value)
                and str(value.__module__).startswith(own)
                and id(value) not in seen
            ):
                seen.add(id(value))
                yield value


def _definition(look: Callable[[object], Any], function: object) -> Any:
    try:
        return look(function)
    except DefinitionError:
        return None


def _take(known: dict[str, Any], definition: Any) -> None:
    if definition.type in known:
        raise DefinitionError(
            definition.signature.where,
            f"the package defines {definition.type!r} twice; a package holds one version of a type",
        )
    known[definition.type] = definition


def _findable(files: PackageFiles, definition: ActivityDefinition) -> ActivityDefinition:
    """Let another process find an activity that runs in one: there is no file that it could import."""
    if definition.executor != "process":
        return definition
    return replace(definition, function=_ProcessFunction(files, definition.function))


class _ProcessFunction:
    """A function of a package that is pickled together with the package."""

    def __init__(self, files: PackageFiles, function: Callable[..., Any]) -> None:
        self._files = files
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        function = self._function
        return _function_of, (self._files.content, function.__module__, function.__qualname__)


def _function_of(content: bytes, module: str, name: str) -> Any:
    """Return a function of a package, in a process that may not know the package yet."""
    if module.partition(".")[0] not in sys.modules:
        _FINDER.acquire(PackageFiles.of_content(content))
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


# ----------------------------------------------------------------------------- the importer


def _root(version: str) -> str:
    return f"{_PREFIX}{version[:_ROOT_DIGITS]}"


class _Loader(importlib.abc.SourceLoader):
    """Loads the modules of one package from memory."""

    def __init__(self, files: PackageFiles) -> None:
        self._files = files
        self._root = _root(files.version)
        self._place = f"aion-package:{files.version[:12]}/"
        # A copy, as a dict: that is what the interpreter looks into. See the module's docstring.
        self._builtins = {**vars(builtins), "__import__": self._import}

    def spec(self, fullname: str) -> ModuleSpec | None:
        """Return what the import system must know of a module; `None` if the package has no such one."""
        name = fullname[len(self._root) + 1 :]
        is_folder = not name or any(path.startswith(_folder(name)) for path in self._files.files)
        if name not in self._files.modules and not is_folder:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))

    def is_package(self, fullname: str) -> bool:
        """See `InspectLoader`. A folder without `__init__.py` is a package with nothing in it, as elsewhere."""
        path = self._path(fullname)
        return path is None or path.endswith("__init__.py")

    def get_filename(self, fullname: str) -> str:
        """Return what tracebacks show as the file; there is none on any disk."""
        name = fullname[len(self._root) + 1 :]
        return self._place + (self._path(fullname) or f"{_folder(name)}__init__.py")

    def get_data(self, path: str | bytes) -> bytes:
        """Return a file of the package, by what `get_filename` gives or a path beside it.

        Raises:
            OSError: It holds no such file.
        """
        name = str(path).removeprefix(self._place)
        data = self._files.files.get(name)
        if data is not None:
            return data
        if name.endswith("__init__.py"):
            return b""  # of a folder that has none
        raise OSError(f"no {name!r} in the package")

    def exec_module(self, module: ModuleType) -> None:
        """Run a module with the builtins that know its package."""
        module.__dict__["__builtins__"] = self._builtins
        super().exec_module(module)

    def get_resource_reader(self, fullname: str) -> TraversableResources:
        """Return what `importlib.resources.files` reads the files of a package with."""
        return _Resources(self._files, _folder(fullname[len(self._root) + 1 :]))

    def _path(self, fullname: str) -> str | None:
        return self._files.modules.get(fullname[len(self._root) + 1 :])

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in self._files.own_names:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = builtins.__import__(f"{self._root}.{name}", globals, locals, fromlist or (), 0)
        # `import shop.flows` binds `shop`; what was imported there is the namespace around it.
        return found if fromlist else sys.modules[f"{self._root}.{top}"]


class _Resources(TraversableResources):
    def __init__(self, files: PackageFiles, folder: str) -> None:
        self._files = files
        self._folder = folder

    def files(self) -> zipfile.Path:
        """Return the package's folder; a zip in memory is the standard library's own file tree."""
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            for path, data in self._files.files.items():
                archive.writestr(path, data)
        return zipfile.Path(zipfile.ZipFile(memory), self._folder)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of every package that is loaded in this process, and of nothing else."""

    def __init__(self) -> None:
        self._loaders: dict[str, _Loader] = {}
        self._users: dict[str, int] = {}
        self._lock = threading.Lock()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - all is known from the name
        target: ModuleType | None = None,  # noqa: ARG002 - see above
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if not fullname.startswith(_PREFIX):
            return None
        loader = self._loaders.get(fullname.partition(".")[0])
        return None if loader is None else loader.spec(fullname)

    def acquire(self, files: PackageFiles) -> None:
        root = _root(files.version)
        with self._lock:
            if self not in sys.meta_path:
                # In front: path finders would look for what the packages' `__path__` says on the disk.
                sys.meta_path.insert(0, self)
            if root not in self._loaders:
                self._loaders[root] = _Loader(files)
            self._users[root] = self._users.get(root, 0) + 1

    def release(self, version: str, *, purge: bool) -> None:
        root = _root(version)
        with self._lock:
            users = self._users.get(root, 0) - 1
            self._users[root] = max(users, 0)
            if users > 0 or not purge:
                return
            self._loaders.pop(root, None)
            self._users.pop(root, None)
            for name in [n for n in sys.modules if n == root or n.startswith(f"{root}.")]:
                del sys.modules[name]


def _folder(name: str) -> str:
    return f"{name.replace('.', '/')}/" if name else ""


_FINDER: Final = _Finder()
