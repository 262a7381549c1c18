"""Prepare images with a model's own image processor, over JSON lines on stdin and stdout.

The program is `python -m ortc.frontend.samples.image_worker`.

A process of its own: transformers imports torch for it, which the compiler does without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ortc.common.arrays import Array, write_arrays
from ortc.common.errors import StageError
from ortc.execution.worker_protocol import serve
from ortc.frontend.samples.images import open_image

Json = dict[str, Any]


def process(request: Json) -> Json:
    """{directory, files, model, output} -> nothing; what the processor gives is written by name, images along axis 0.

    Raises:
        StageError: an image cannot be read, the processor fails, or its images are of several sizes.
    """
    import transformers

    # transformers is untyped.
    auto: Any = transformers.AutoImageProcessor
    try:
        # The one that works on Pillow's images: the other needs torchvision.
        processor = auto.from_pretrained(
            request["model"], local_files_only=True, backend="pil", trust_remote_code=False
        )
    except Exception as error:
        raise StageError(
            f"the model's image processor cannot be made: {type(error).__name__}: {error}",
            help="give the samples as .npz with an array an input, or by an entry point",
        ) from error
    rows: dict[str, list[Array]] = {}
    for file in request["files"]:
        name = Path(file).relative_to(request["directory"]).as_posix()
        image = open_image(Path(file), Path(request["directory"]))
        try:
            prepared = processor(images=image, return_tensors="np")
        except Exception as error:
            raise StageError(
                f"the model's image processor fails on `{name}`: {type(error).__name__}: {error}"
            ) from error
        for key, value in prepared.items():
            if not isinstance(value, np.ndarray):
                continue
            if value.shape[:1] != (1,):
                raise StageError(
                    f"the model's image processor gives `{key}` of shape {list(value.shape)} for `{name}`, not one row",
                    help="give the samples as .npz with an array an input, or by an entry point",
                )
            rows.setdefault(key, []).append(value)
    arrays = {}
    for key, values in rows.items():
        if len(shapes := {value.shape[1:] for value in values}) > 1:
            found = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise StageError(
                f"the model's image processor gives `{key}` in several sizes, such as {found}",
                help="give images of one size, or the samples as .npz",
            )
        arrays[key] = np.concatenate(values)
    write_arrays(Path(request["output"]), arrays)
    return {}


if __name__ == "__main__":
    serve({"process": process})
