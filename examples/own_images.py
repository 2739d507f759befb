"""Images of your own, a sub-folder for each class: searched, trained, converted and packed.

Run `python examples/own_images.py FOLDER [IMAGE_SIZE]`, or from a shell:
larq-nas search --data FOLDER --image-size 32 --batch-size 32 --set space.search_channels=8 \
    --set searcher.architecture_learning_rate=0.005 --epochs 6 --train-epochs 10 \
    --directory runs/own_images
larq-nas convert runs/own_images --package packages/own_images

Both take minutes for a thousand images. More epochs and larger images are better.
"""

import sys
from typing import Any

import larq_nas
from larq_nas.deploy.package import write_package

QUICK = {
    "space": {"search_channels": 8},
    "searcher": {"architecture_learning_rate": 0.005},  # decides in few steps
    "epochs": 6,
    "train_epochs": 10,
}


def main(
    folder: str,
    image_size: int | None = 32,
    directory: str = "runs/own_images",
    package: str = "packages/own_images",
    **settings: Any,
) -> None:
    train, validation = larq_nas.datasets.load(folder, 32, image_size=image_size)
    result = larq_nas.search(
        train, validation, directory=directory, return_result=True, **{**QUICK, **settings}
    )
    conversion = larq_nas.convert(result.model, validation)
    write_package(package, conversion, result.model, accuracy=result.accuracy, images=validation)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
