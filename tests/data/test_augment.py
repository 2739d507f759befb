import numpy as np
import tensorflow as tf

from larq_nas.data.augmentation import cutout, pad_crop_flip


def test_a_square_of_half_the_size_is_cut_out() -> None:
    images = tf.random.stateless_uniform((200, 32, 32, 3), [0, 0], 1.0, 2.0)
    seed = tf.constant([5, 9], tf.int64)
    # Where shifting brought zeros in, a hole cannot be told from it.
    shifting = tf.random.experimental.stateless_split(seed, 3)[0]
    shifted, cut = pad_crop_flip(images, shifting).numpy(), cutout(images, seed).numpy()
    holes = ((cut == 0) & (shifted != 0)).all(axis=-1)
    assert (cut[~holes] == shifted[~holes]).all()
    whole = 0
    for before, hole in zip(shifted, holes, strict=True):
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert 0 < len(rows) <= 16
        assert 0 < len(columns) <= 16
        inside = np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))
        assert (hole[inside] | (before[inside] == 0).all(axis=-1)).all()
        whole += len(rows) == len(columns) == 16
    # Centres fall anywhere, and near the edges a part of the square is outside.
    assert 20 < whole < 120
    assert (cutout(images, seed).numpy() == cut).all()
