"""What sentence-transformers makes of the model for texts: a graph for one of its backends, or the vectors of texts.

    make_texts.py MODEL OUTPUT KIND TEXTS

KIND is onnx, onnx-int8, openvino or openvino-int8, each made by the exporter that its documentation names: the file
OUTPUT then holds a model that sentence-transformers loads. `reference` writes OUTPUT, an .npy file of the vectors in
fp32, of one text at a time. TEXTS is JSON: to calibrate on, or to answer.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

MODEL, OUTPUT, KIND = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
TEXTS = json.loads(Path(sys.argv[4]).read_text("utf-8"))


def main() -> None:
    """Make it."""
    if KIND == "reference":
        model = SentenceTransformer(str(MODEL), device="cpu")
        np.save(OUTPUT, np.stack([model.encode([text], show_progress_bar=False)[0] for text in TEXTS]))
        return
    backend = KIND.removesuffix("-int8")
    options = {"export": True, **({"provider": "CPUExecutionProvider"} if backend == "onnx" else {})}
    model = SentenceTransformer(str(MODEL), device="cpu", backend=backend, model_kwargs=options)
    model.save_pretrained(str(OUTPUT))
    if KIND == "onnx-int8":
        from sentence_transformers import export_dynamic_quantized_onnx_model

        flags = Path("/proc/cpuinfo").read_text("utf-8")
        settings = "avx512_vnni" if "avx512_vnni" in flags else "avx2"
        export_dynamic_quantized_onnx_model(model, settings, str(OUTPUT))
    if KIND == "openvino-int8":
        from optimum.intel import OVQuantizationConfig
        from sentence_transformers import export_static_quantized_openvino_model

        # Its default are sentences from a hub; these are what ours is calibrated on.
        folder = OUTPUT / "calibration"
        folder.mkdir()
        with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text"])
            rows.writerows([text] for text in TEXTS)
        export_static_quantized_openvino_model(
            model,
            OVQuantizationConfig(num_samples=len(TEXTS)),
            str(OUTPUT),
            dataset_name=str(folder),
            dataset_split="train",
            column_name="text",
        )


if __name__ == "__main__":
    main()
