"""Make tiny seeded models of sounds with their feature extractors, sounds of many kinds, and what transformers answers.

Run as `python -m tests.support.make_audio_models DIRECTORY`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from ortc.frontend.samples.odd_sounds import Lengths, odd_sounds, plain_sounds

LABELS = ("bell", "rain", "speech", "train")
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "O", "N", "'")
RATE = 8000
LENGTHS = Lengths(RATE, 400, 4000)


def _wave(**more: Any) -> Any:
    """The configuration of a tiny Wav2Vec2."""
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(8, 10),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        initializer_range=0.4,
        vocab_size=len(LETTERS),
        pad_token_id=0,
        **more,
    )


def classifier(directory: Path) -> None:
    """A Wav2Vec2 with four classes, whose waves are normalized and masked."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    torch.manual_seed(7)
    named: dict[str, Any] = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    config = _wave(feat_extract_norm="layer", classifier_proj_size=8, **named)
    model = Wav2Vec2ForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(6.0)
    model.save_pretrained(directory)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=True).save_pretrained(directory)


def speller(directory: Path) -> None:
    """A Wav2Vec2 for speech recognition, whose tokenizer has words, an apostrophe and lower case."""
    import torch
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(8)
    model = Wav2Vec2ForCTC(_wave(feat_extract_norm="group"))
    with torch.no_grad():
        model.lm_head.weight.mul_(6.0)
    model.save_pretrained(directory)
    vocabulary = directory / "letters.json"
    vocabulary.write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}), "utf-8")
    Wav2Vec2CTCTokenizer(str(vocabulary), do_lower_case=True).save_pretrained(directory)
    vocabulary.unlink()
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=False).save_pretrained(directory)


def spectrograms(directory: Path) -> None:
    """An AST over log-mel spectrograms, with scores of several classes at once."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(9)
    fields: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ASTConfig(
        intermediate_size=24,
        max_length=48,
        num_mel_bins=32,
        initializer_range=0.4,
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        **fields,
    )
    ASTForAudioClassification(config).save_pretrained(directory)
    ASTFeatureExtractor(sampling_rate=16_000, max_length=48, num_mel_bins=32).save_pretrained(directory)


MODELS = {
    "classifier": (classifier, "audio-classification"),
    "speller": (speller, "ctc"),
    "spectrograms": (spectrograms, "audio-classification"),
}


def main(root: Path) -> None:
    """Write models, sounds, and expected.json with the answers by model and sound."""
    import transformers

    from ortc.frontend.samples.sounds import read_sound

    warnings.simplefilter("ignore")
    sounds = root / "sounds"
    sounds.mkdir()
    for file in (*plain_sounds(LENGTHS), *odd_sounds(LENGTHS)):
        (sounds / file.name).write_bytes(file.content)
    expected: dict[str, dict[str, Any]] = {}
    for name, (make, task) in MODELS.items():
        make(root / name)
        known = {"ctc": "automatic-speech-recognition"}.get(task, task)
        more = {"top_k": None} if task == "audio-classification" else {}
        pipeline: Any = transformers.pipeline(known, model=str(root / name), **more)
        rate = pipeline.feature_extractor.sampling_rate
        expected[name] = {
            path.name: pipeline(read_sound(path, rate), **more)
            for path in sorted(sounds.iterdir())
            if name != "spectrograms" or len(read_sound(path, rate)) >= 400
        }
    (root / "expected.json").write_text(json.dumps(expected), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
