"""Train the digits network: `python -m examples.digits.train`. A few CPU seconds; needs scikit-learn.

Writes three files: `weights.safetensors`, `samples.npz` (real inputs from the training part, for calibration, parity
and the golden self-test) and `heldout.npz` (what `accuracy.py` judges by; the training never sees it).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from examples.digits.accuracy import scale
from examples.digits.model import build

HELD_OUT = 360
SAMPLES = 128
EPOCHS = 24
BATCH = 64


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fixed stratified split: images, labels of the training part, then of the held-out part.

    Images are uint8 [count, 8, 8] with grey levels from 0 to 16, labels int64 [count].
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    train_images, held_images, train_labels, held_labels = train_test_split(
        data.images.astype(np.uint8), data.target, test_size=HELD_OUT, stratify=data.target, random_state=0
    )
    return train_images, train_labels, held_images, held_labels


def train(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> nn.Module:
    """The trained network, in evaluation mode; the same seed on the same machine gives the same weights."""
    # Sums in another order are other sums: one thread makes a run repeatable on any number of cores.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    x, y = torch.from_numpy(scale(images)), torch.from_numpy(labels)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, epochs=EPOCHS, steps_per_epoch=-(-len(x) // BATCH)
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.cross_entropy(model(_shifted(x[rows])), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _shifted(images: Tensor) -> Tensor:
    """Each image moved by up to one pixel in each direction, the border filled with background."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    dy, dx = torch.randint(0, 3, (2, count, 1, 1))
    rows = dy + torch.arange(height).view(1, height, 1)
    columns = dx + torch.arange(width).view(1, 1, width)
    return padded[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)


def main() -> None:
    """Train, write the files, print the held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="directory for the files")
    output: Path = parser.parse_args().output

    train_images, train_labels, held_images, held_labels = load_split()
    model = train(train_images, train_labels)
    with torch.inference_mode():
        answers = model(torch.from_numpy(scale(held_images))).argmax(dim=1).numpy()

    output.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), output / "weights.safetensors")
    # Not compressed: the bytes would depend on the version of zlib.
    np.savez(output / "samples.npz", image=scale(train_images[:SAMPLES]))
    np.savez(output / "heldout.npz", images=held_images, labels=held_labels.astype(np.uint8))
    print(f"accuracy on {len(held_labels)} held-out images: {np.mean(answers == held_labels):.4f}")


if __name__ == "__main__":
    main()
