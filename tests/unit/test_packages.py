"""Packages of code: what counts as one, its hash, and modules of several versions side by side in one process."""

import importlib.resources
import inspect
import io
import os
import pickle
import sys
import tarfile
import typing
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aion_es.engine.package_modules import LoadedPackage, load, release
from aion_es.engine.packages import PackageFiles
from aion_es.errors import PackageError, PackageNotFoundError

FLOWS = """
from aion_es import Context, activity, workflow

@activity
async def greet(name: str) -> str:
    return "hello " + name

@workflow(name="greeting")
async def greeting(ctx: Context, name: str) -> str:
    return await ctx.run(greet, name)
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def zipped(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def tarred(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


class Loader:
    """Loads packages and lets go of them when the test is over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.versions: list[str] = []

    def __call__(self, files: dict[str, str]) -> LoadedPackage:
        folder = write(self._folder / f"p{len(self.versions)}", files)
        package = load(PackageFiles.read(folder), folder.name)
        self.versions.append(package.version)
        return package


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Loader]:
    loader = Loader(tmp_path)
    yield loader
    for version in loader.versions:
        release(version, purge=True)


# ------------------------------------------------------------------------------------- the files


def test_the_same_files_have_the_same_version_whatever_they_come_in(tmp_path: Path) -> None:
    files = {"shop/__init__.py": "", "shop/flows.py": FLOWS, "shop/rates.txt": "7"}
    backwards = dict(reversed(files.items()))
    versions = {
        PackageFiles.read(write(tmp_path / "root", files)).version,
        PackageFiles.read(tmp_path / "root" / "shop").version,
        PackageFiles.read(zipped(tmp_path / "a.zip", files)).version,
        PackageFiles.read(zipped(tmp_path / "b.whl", backwards)).version,
        PackageFiles.read(tarred(tmp_path / "c.tar.gz", backwards)).version,
    }
    assert len(versions) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"flows.py": FLOWS + "\n"},
        {"flows2.py": FLOWS},
        {"flows.py": FLOWS, "empty.txt": ""},
        {"flows.p": "y" + FLOWS},
    ],
    ids=["a byte", "a name", "a file that is empty", "a boundary"],
)
def test_whatever_differs_gives_another_version(other: dict[str, str]) -> None:
    def version(files: dict[str, str]) -> str:
        return PackageFiles({n: t.encode() for n, t in sorted(files.items())}).version

    assert version({"flows.py": FLOWS}) != version(other)


def test_caches_and_hidden_files_are_no_part_of_a_package(tmp_path: Path) -> None:
    clean = PackageFiles.read(write(tmp_path / "a", {"shop/flows.py": FLOWS}))
    noisy = {
        "shop/flows.py": FLOWS,
        "shop/__pycache__/flows.cpython-311.pyc": "x",
        ".git/config": "x",
        "shop/.DS_Store": "x",
    }
    assert PackageFiles.read(write(tmp_path / "b", noisy)).version == clean.version
    assert PackageFiles.read(zipped(tmp_path / "c.zip", noisy)).files == clean.files


def test_the_canonical_form_is_read_as_the_files_that_it_was_written_from() -> None:
    files = PackageFiles({"a.py": b"", "shop/b.bin": bytes(range(256)), "ü.txt": b"\n"})
    assert PackageFiles.of_content(files.content).files == files.files


def test_the_modules_are_known_by_the_names_that_importing_them_takes() -> None:
    names = [
        "shop/__init__.py",
        "shop/__main__.py",
        "shop/flows.py",
        "shop/deep/er.py",
        "single.py",
        "shop.py",
        "not-a-name.py",
        "shop-1.dist-info/METADATA",
        "shop/data.json",
    ]
    files = PackageFiles(dict.fromkeys(sorted(names), b""))
    assert files.modules == {
        "shop": "shop/__init__.py",
        "shop.deep.er": "shop/deep/er.py",
        "shop.flows": "shop/flows.py",
        "single": "single.py",
    }
    assert files.own_names == {"shop", "single"}


def test_a_version_that_is_not_even_a_text_is_shown_as_it_is() -> None:
    wrong = PackageNotFoundError(None)  # type: ignore[arg-type]  # what a caller may give
    assert str(wrong) == "no package None is loaded (loaded: none)"


def test_an_empty_path_is_refused_and_the_current_directory_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path / "here", {"a.py": FLOWS}))
    with pytest.raises(PackageError, match="the path is empty"):
        PackageFiles.read("")
    assert list(PackageFiles.read(".").files) == ["a.py"]


def test_a_file_name_that_is_not_utf_8_is_refused_and_shown(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"a.py": FLOWS})
    with open(os.fsencode(folder) + b"/bad\xff.txt", "wb"):  # noqa: PTH123 - no Path can say this name
        pass
    with pytest.raises(PackageError) as refused:
        PackageFiles.read(folder)
    assert refused.value.reason == "'bad\\udcff.txt' is not a name in UTF-8"


def test_what_is_no_package_is_refused_with_the_reason(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        with pytest.raises(PackageError) as refused:
            PackageFiles.read(path)
        assert refused.value.package == path.name
        return refused.value.reason

    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("flows.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert reason(tmp_path / "nothing") == f"there is no {tmp_path / 'nothing'}"
    assert reason(text) == "is neither a folder nor a zip or tar archive"
    assert reason(write(tmp_path / "data", {"a.txt": ""})).startswith("holds no Python module")
    assert (
        reason(zipped(tmp_path / "out.zip", {"../a.py": ""}))
        == "'../a.py' leads out of the package"
    )
    assert reason(zipped(tmp_path / "abs.zip", {"/a.py": ""})) == "'/a.py' leads out of the package"
    assert reason(tmp_path / "link.tar") == "'flows.py' is a link or a device, not a file"
    assert "cannot be imported" not in reason(zipped(tmp_path / "no.zip", {"__init__.py": ""}))
    assert reason(write(tmp_path / "v-1", {"__init__.py": ""})) == (
        "holds an __init__.py, and its own name is not one that can be imported"
    )


# ----------------------------------------------------------------------------------- the modules


def shop(text: str, **more: str) -> dict[str, str]:
    return {
        "shop/__init__.py": "",
        "shop/flows.py": FLOWS,
        "shop/rates.py": f"RATE = {text!r}",
        **{f"shop/{name}.py": code for name, code in more.items()},
    }


IMPORTS: dict[str, str] = {
    "absolute": "import shop.rates\ndef rate(): return shop.rates.RATE",
    "from the package": "from shop import rates\ndef rate(): return rates.RATE",
    "from the module": "from shop.rates import RATE\ndef rate(): return RATE",
    "with another name": "import shop.rates as r\ndef rate(): return r.RATE",
    "relative": "from . import rates\ndef rate(): return rates.RATE",
    "relative to a module": "from .rates import RATE as R\ndef rate(): return R",
    "everything": "from shop.rates import *\ndef rate(): return RATE",
    "when called": "def rate():\n    import shop.rates\n    return shop.rates.RATE",
    "when called, relative": "def rate():\n    from .rates import RATE\n    return RATE",
    "from a class": "class Rates:\n    from shop.rates import RATE\ndef rate(): return Rates.RATE",
    "by name": "from importlib import import_module\n"
    "def rate(): return import_module('.rates', __package__).RATE",
    "in code made later": "def rate():\n    found = {}\n"
    "    exec('from shop.rates import RATE', found)\n    return found['RATE']",
}


@pytest.mark.parametrize("code", IMPORTS.values(), ids=IMPORTS)
def test_imports_of_the_own_name_find_the_own_version(loaded: Loader, code: str) -> None:
    one = loaded(shop("one", user=code))
    two = loaded(shop("two", user=code))
    assert [p.module("shop.user").rate() for p in (one, two)] == ["one", "two"]
    assert "shop" not in sys.modules


def test_everything_else_is_imported_as_everywhere(loaded: Loader) -> None:
    package = loaded(shop("one", user="import json, os.path as path\nfrom xml import dom"))
    user = package.module("shop.user")
    assert user.json is sys.modules["json"]
    assert user.path is sys.modules["os.path"]
    assert user.dom is sys.modules["xml.dom"]


def test_an_installed_module_of_the_same_name_is_not_touched(
    loaded: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", installed)
    package = loaded(shop("own", user="import shop\nfrom shop import rates"))
    assert package.module("shop.user").rates.RATE == "own"
    assert sys.modules["shop"] is installed


def test_modules_of_a_folder_without_init_are_found(loaded: Loader) -> None:
    package = loaded(
        {"flows.py": FLOWS, "plain/inner.py": "X = 1", "use.py": "from plain.inner import X"}
    )
    assert package.module("use").X == 1


def test_a_package_that_is_loaded_again_is_the_same_one(loaded: Loader) -> None:
    assert loaded(shop("one")).module("shop.rates") is loaded(shop("one")).module("shop.rates")


MODELS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from pydantic import BaseModel

@dataclass
class Line:
    KIND: ClassVar[str] = "line"
    amount: int
    next: Line | None = None

class Order(BaseModel):
    lines: list[Line]
"""


def test_classes_of_a_package_are_found_where_python_looks_for_them(loaded: Loader) -> None:
    models: Any = loaded(shop("one", models=MODELS)).module("shop.models")
    order = models.Order.model_validate({"lines": [{"amount": 1, "next": {"amount": 2}}]})
    assert order.lines == [models.Line(1, models.Line(2))]
    assert typing.get_type_hints(models.Line)["next"] == models.Line | None
    assert pickle.loads(pickle.dumps(order)) == order


def test_source_and_other_files_of_a_package_can_be_read(loaded: Loader) -> None:
    files = shop("one") | {"shop/texts/hello.txt": "hello"}
    package = loaded(files)
    rates = package.module("shop.rates")
    assert inspect.getsource(rates) == files["shop/rates.py"] + "\n"
    text = importlib.resources.files(package.module("shop")) / "texts" / "hello.txt"
    assert text.read_text() == "hello"


def test_a_package_holds_what_its_modules_define_and_not_what_they_import(loaded: Loader) -> None:
    user = "from tests.architecture.typing_channels import charge, checkout\nfrom shop.flows import greet, greeting as g"
    package = loaded(shop("one", user=user))
    assert list(package.workflows) == ["greeting"]
    assert list(package.activities) == ["greet"]
    assert package.workflows["greeting"].version == package.version


def test_modules_that_nobody_uses_any_more_leave_the_process(loaded: Loader) -> None:
    one, again = loaded(shop("one")), loaded(shop("one"))
    name = one.module("shop.rates").__name__
    release(one.version, purge=True)
    assert name in sys.modules
    release(again.version, purge=True)
    assert [n for n in sys.modules if n.startswith(name.partition(".")[0])] == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.py": "X = 1"}, "defines neither a workflow nor an activity"),
        (
            {"a.py": "import nowhere"},
            "importing 'a' raised ModuleNotFoundError: No module named 'nowhere'",
        ),
        ({"a.py": "def"}, "importing 'a' raised SyntaxError: invalid syntax (a.py, line 1)"),
        ({"a.py": "raise SystemExit(2)"}, "importing 'a' raised SystemExit: 2"),
        (
            {"a.py": "import pytest\npytest.importorskip('nowhere')"},
            "importing 'a' raised Skipped: could not import 'nowhere'",
        ),
        (
            {"a.py": "import asyncio\nraise asyncio.CancelledError('x')"},
            "importing 'a' raised CancelledError: x",
        ),
        (
            {"a.py": FLOWS, "b.py": FLOWS},
            "the package defines 'greet' twice; a package holds one version",
        ),
        ({"a.py": FLOWS.replace("-> str", "-> 'Nowhere'")}, "an annotation cannot be resolved"),
    ],
    ids=["nothing in it", "import", "syntax", "exit", "skip", "cancel", "twice", "annotation"],
)
def test_a_package_that_cannot_be_used_is_refused_and_leaves_nothing_behind(
    loaded: Loader, files: dict[str, str], reason: str
) -> None:
    before = set(sys.modules)
    with pytest.raises(PackageError) as refused:
        loaded(files)
    assert reason in refused.value.reason
    assert {n for n in set(sys.modules) - before if n.startswith("aion_package_")} == set()


PROCESS = """
import os
from dataclasses import dataclass
from aion_es import activity

@dataclass
class Number:
    value: int

@activity(executor="process")
def double(number: Number) -> Number:
    from crunch.size import FACTOR
    return Number(number.value * FACTOR)
"""


def test_an_activity_of_a_package_runs_in_a_process_that_has_never_heard_of_it(
    loaded: Loader,
) -> None:
    package = loaded({"crunch/jobs.py": PROCESS, "crunch/size.py": "FACTOR = 2"})
    number: Any = package.module("crunch.jobs").Number
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        done = pool.submit(package.activities["double"].function, number(21)).result(60)
    assert done == number(42)
