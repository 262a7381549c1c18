"""A model's own feature extractor and its answers to sounds, by transformers' pipelines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ortc.common.arrays import Array
from ortc.common.errors import StageError
from ortc.frontend.reference.answers import labelled_model
from ortc.frontend.reference.model import Reference
from ortc.frontend.samples.sounds import read_sound
from ortc.inspection.feature_extractors import SPECTROGRAMS, WAVES
from ortc.plan.audio_processing import AudioProcessing, Features, LogMel, Spelling, WaveFeatures
from ortc.plan.processing import AnswerForm, Kind, Processing
from ortc.plan.texts import MASK, WAVE
from ortc.spec.model_sources import HuggingFaceSource

HELP = "`interface: tensors` in `model` builds a bundle of the model's tensors, without sounds"
SPELLER = "Wav2Vec2CTCTokenizer"
"""The tokenizer of transformers whose way to spell is reproduced."""


class ReferenceAudio:
    """The model's own feature extractor, and for transcripts its tokenizer.

    Args:
        source: the model's source.
        directory: the model's files.
        form: how the bundle answers; the spelling of transcripts is added to it.
        inputs: names of the model's inputs.

    Raises:
        StageError: transformers cannot load one of them, or what it does cannot be reproduced.
    """

    def __init__(self, source: HuggingFaceSource, directory: Path, form: AnswerForm, inputs: Sequence[str]) -> None:
        self.extractor = load_extractor(directory)
        self.tokenizer: Any = None
        if form.kind == "transcript":
            self.tokenizer = _load_tokenizer(directory)
            form = form.model_copy(update={"spelling": _spelling(self.tokenizer, directory)})
        audio = AudioProcessing(
            input=WAVE,
            mask=MASK if MASK in inputs else None,
            rate=int(self.extractor.sampling_rate),
            features=_features(self.extractor),
        )
        self.processing = Processing(task=source.task, audio=audio, answer=form)

    def samples(self, path: Path) -> Array:
        """A file's samples at the model's rate, [samples]."""
        return read_sound(path, int(self.extractor.sampling_rate))

    def array(self, path: Path) -> Array:
        """What the extractor makes of a file, [samples] or [frames, bands]."""
        found = self.extractor(self.samples(path), sampling_rate=int(self.extractor.sampling_rate), return_tensors="np")
        values: Array = found[WAVE][0]
        return values

    def answers(self, paths: Sequence[Path], reference: Reference) -> list[Any]:
        """What the model answers to every sound by itself, as JSON has it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _ANSWERS[self.processing.answer.kind](self, paths, reference)


def load_extractor(directory: Path) -> Any:
    """Load the feature extractor of a model's files, which works on numpy.

    Raises:
        StageError: transformers cannot, or it is not reproduced.
    """
    import transformers
    from transformers.models.audio_spectrogram_transformer import (
        feature_extraction_audio_spectrogram_transformer as module,
    )

    # With torchaudio beside it, that extractor computes in float32. transformers is untyped.
    spectrograms: Any = module
    spectrograms.is_speech_available = lambda: False
    try:
        # transformers is untyped.
        auto: Any = transformers.AutoFeatureExtractor
        extractor = auto.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # The code of any extractor, over any configuration.
        raise StageError(
            f"the model's feature extractor cannot be made: {type(error).__name__}: {error}", help=HELP
        ) from error
    return extractor


def _features(extractor: Any) -> Features:
    """The extractor's settings.

    Raises:
        StageError: it is not reproduced.
    """
    name = type(extractor).__name__
    if name == WAVES and extractor.feature_size == 1:
        return WaveFeatures(normalize=bool(extractor.do_normalize))
    if name == SPECTROGRAMS:
        normal = {"mean": float(extractor.mean), "std": float(extractor.std)} if extractor.do_normalize else {}
        return LogMel(frames=int(extractor.max_length), bands=int(extractor.num_mel_bins), **normal)
    raise StageError(f"preprocessor_config.json: the feature extractor {name} is not reproduced", help=HELP)


def _load_tokenizer(directory: Path) -> Any:
    import transformers

    try:
        load: Any = transformers.AutoTokenizer.from_pretrained
        tokenizer = load(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        # The code of any tokenizer, over any configuration.
        raise StageError(
            f"transformers cannot load the tokenizer: {type(error).__name__}: {error}", help=HELP
        ) from error
    if type(tokenizer).__name__ != SPELLER:
        raise StageError(f"the tokenizer {type(tokenizer).__name__} is not reproduced, {SPELLER} is", help=HELP)
    return tokenizer


def _spelling(tokenizer: Any, directory: Path) -> Spelling:
    """How the tokenizer spells the tokens that the model has scores of.

    Raises:
        StageError: the blank is none of them.
    """
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    tokens = tuple(map(str, tokenizer.convert_ids_to_tokens(list(range(int(config.vocab_size))))))
    blank = tokenizer.pad_token_id
    if blank is None or not 0 <= blank < len(tokens) or tokens.count(tokens[blank]) != 1:
        raise StageError(
            f"the tokenizer's padding token {tokenizer.pad_token!r}, which is the blank of CTC, is none of the model's "
            f"{len(tokens)} tokens",
            help=HELP,
        )
    return Spelling(
        tokens=tokens,
        blank=int(blank),
        delimiter=str(tokenizer.word_delimiter_token),
        space=str(tokenizer.replace_word_delimiter_char),
        lower_case=bool(tokenizer.do_lower_case),
        clean_up=bool(tokenizer.clean_up_tokenization_spaces),
    )


def _labels(audio: ReferenceAudio, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    classify: Any = transformers.pipeline(
        "audio-classification",
        model=labelled_model(audio.processing.answer, reference),
        feature_extractor=audio.extractor,
        top_k=None,
    )
    rows = [classify(audio.samples(path), top_k=None) for path in paths]
    return [[{"label": entry["label"], "score": float(entry["score"])} for entry in row] for row in rows]


def _transcripts(audio: ReferenceAudio, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    spell: Any = transformers.pipeline(
        "automatic-speech-recognition",
        model=labelled_model(audio.processing.answer, reference),
        feature_extractor=audio.extractor,
        tokenizer=audio.tokenizer,
    )
    return [{"text": str(spell(audio.samples(path))["text"])} for path in paths]


_ANSWERS: Mapping[Kind, Callable[[ReferenceAudio, Sequence[Path], Reference], list[Any]]] = {
    "labels": _labels,
    "transcript": _transcripts,
}
