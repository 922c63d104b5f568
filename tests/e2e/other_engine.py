"""The other process of `test_two_engines`: drives the same workflows to their end, and says which ended well."""

import asyncio
import sys

from aion_es import Engine
from tests.crash.engine_shapes import ACTIVITIES, SHAPES, WORKFLOWS


async def main(url: str, names: list[str]) -> None:
    async with Engine.open(url, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
        shapes = [SHAPES[index % len(SHAPES)] for index in range(len(names))]
        results = await asyncio.gather(
            *(
                shape.drive(engine, shape.code, name)
                for shape, name in zip(shapes, names, strict=True)
            )
        )
        for shape, name, result in zip(shapes, names, results, strict=True):
            if result == shape.result:
                print(name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
