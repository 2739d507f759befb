"""Images of your own, a sub-folder for each class: searched, trained, converted and packed.

Run `python examples/own_images.py FOLDER [IMAGE_SIZE]`, or from a shell:
larq-nas search --data FOLDER --image-size 32 --batch-size 32 --set space.search_channels=8 \
    --set searcher.architecture_learning_rate=0.005 --epochs 6 --train-epochs 10 \
    --directory runs/own_images
larq-nas convert runs/own_images --package packages/own_images
"""

import sys
from typing import Any

import larq_nas
from larq_nas.deploy.package import write_package


def main(
    folder: str,
    image_size: int | None = None,
    directory: str = "runs/own_images",
    package: str = "packages/own_images",
    **settings: Any,
) -> None:
    train, validation = larq_nas.datasets.load(folder, image_size=image_size)
    result = larq_nas.search(train, validation, directory=directory, return_result=True, **settings)
    conversion = larq_nas.convert(result.model, validation)
    write_package(package, conversion, result.model, accuracy=result.accuracy, images=validation)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
