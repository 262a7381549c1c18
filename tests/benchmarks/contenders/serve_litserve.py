"""LitServe around the same ONNX file: JSON of the Open Inference Protocol in, and out."""

import json
import sys
from pathlib import Path

import litserve
import numpy as np
import onnxruntime

BUNDLE, PORT, THREADS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
TYPES = {"FP32": np.float32, "INT64": np.int64}
MANIFEST = json.loads((BUNDLE / "manifest.json").read_bytes())


class Api(litserve.LitAPI):
    """One model."""

    def setup(self, device: str) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(BUNDLE / MANIFEST["model"]["file"], options)

    def decode_request(self, request: dict) -> dict:
        """Arrays."""
        return {
            entry["name"]: np.array(entry["data"], TYPES[entry["datatype"]]).reshape(entry["shape"])
            for entry in request["inputs"]
        }

    def predict(self, x: dict) -> list:
        """Run."""
        return self.session.run(None, x)

    def encode_response(self, output: list) -> dict:
        """Lists."""
        names = [entry.name for entry in self.session.get_outputs()]
        return {
            "outputs": [
                {"name": name, "shape": list(array.shape), "data": array.ravel().tolist()}
                for name, array in zip(names, output, strict=True)
            ]
        }


if __name__ == "__main__":
    api = Api(api_path=f"/v2/models/{MANIFEST['name']}/infer")
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="error", access_log=False)
