"""Keyword spotting: words of one second as spectrograms, which are images (time, mel, 1).

Run `python examples/keyword_spotting.py FOLDER`, of WAV files at 16 kHz in a sub-folder for each
word, as Google's Speech Commands are. Without FOLDER, tensorflow-datasets downloads these.
What was found is runs/keywords/model.tflite.
"""

import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import larq_nas  # isort: skip  (it prepares TensorFlow)
import tensorflow as tf

RATE, MELS = 16_000, 40


def spectrogram(samples: tf.Tensor, label: Any) -> tuple[tf.Tensor, Any]:
    """Return the logarithm of mel bands, about -1 to 1, of samples from -1 to 1."""
    samples = tf.pad(samples[:RATE], [[0, RATE - tf.minimum(tf.size(samples), RATE)]])
    spectrum = tf.abs(tf.signal.stft(samples, frame_length=640, frame_step=320, fft_length=1024))
    bands = tf.signal.linear_to_mel_weight_matrix(MELS, 513, RATE, 60.0, 7600.0)
    return tf.math.log(spectrum @ bands + 1e-3)[..., tf.newaxis] / 7, label


def read_wav(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    samples, rate = tf.audio.decode_wav(tf.io.read_file(path), desired_channels=1)
    with tf.control_dependencies(
        [tf.debugging.assert_equal(rate, RATE, "WAV files must be 16 kHz")]
    ):
        return samples[:, 0], label


def read_folder(folder: Path) -> tuple[list[tf.data.Dataset], list[str]]:
    """Return the recordings of four fifths of the speakers, of the others, and the words.

    A file is SPEAKER_nohash_NUMBER.wav, or of a speaker of its own.
    """
    words = sorted(path.name for path in folder.glob("[!._]*") if path.is_dir())
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in sorted(folder.glob("[!._]*/*.wav")):
        parts[crc32(path.stem.partition("_nohash_")[0].encode()) % 5 == 0].append(path)
    labels = [[words.index(path.parent.name) for path in part] for part in parts]
    data = [
        tf.data.Dataset.from_tensor_slices((list(map(str, part)), own)).map(read_wav)
        for part, own in zip(parts, labels, strict=True)
    ]
    return data, words


def load_speech_commands() -> tuple[list[tf.data.Dataset], list[str]]:
    import tensorflow_datasets as tfds

    splits, info = tfds.load(
        "speech_commands", split=["train", "validation"], as_supervised=True, with_info=True
    )
    of_16_bits = [
        data.map(lambda samples, label: (tf.cast(samples, tf.float32) / 2**15, label))
        for data in splits
    ]
    return of_16_bits, info.features["label"].names


def main(folder: str | None = None, directory: str = "runs/keywords", **settings: Any) -> None:
    parts, words = read_folder(Path(folder)) if folder else load_speech_commands()
    train, validation = (data.map(spectrogram).batch(32).cache() for data in parts)
    train.class_names = words
    quick = {"space": {"search_channels": 8}, "epochs": 8, "train_epochs": 30}
    larq_nas.search(train, validation, directory=directory, **{**quick, **settings})


if __name__ == "__main__":
    main(*sys.argv[1:2])
