"""The bodies of the networks: from standardised images (n, H, W, F) to features (n, k). Built-in Keras layers only."""

from dataclasses import dataclass
from typing import Any

import keras

from deepmerge import config
from deepmerge.model import symmetry
from deepmerge.model.layers import FastBatchNormalization, FastConv2D

DENSE_UNITS = (64, 32)  # units of the two hidden dense layers, Ciprijanovic et al. 2020, table 1
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3))  # (filters, kernel size), ibid.
# Of 'compact': twice the filters where images are large, since what is pooled afterwards needs few weights.
COMPACT_CONVOLUTIONS = ((16, 5), (32, 3), (32, 3))


def features(x: keras.KerasTensor, settings: config.Network, for_training: bool, precision: str) -> keras.KerasTensor:
    """The features that the architecture of `settings` makes of images; see `network.build`."""
    make = {"default": _plain, "published": _plain, "compact": _compact, "invariant": _invariant}
    return make[settings.architecture](x, _Blocks(settings, for_training, precision))


def _plain(x: keras.KerasTensor, blocks: "_Blocks") -> keras.KerasTensor:
    """Three convolutions and two dense layers, as published or with dropout behind the last batch norm alone."""
    published = blocks.settings.architecture == "published"
    x = _flattened(x, blocks, drops=published)
    return blocks.dense(x if published else blocks.dropout(x), drops=not published)


def _invariant(x: keras.KerasTensor, blocks: "_Blocks") -> keras.KerasTensor:
    """'default', its features averaged over the turns and flips between the dense layers, in training too."""
    shape = x.shape[1:]
    x = blocks.dropout(_flattened(symmetry.all_turns(x), blocks))
    x = symmetry.mean_over_turns(blocks.dense(x, DENSE_UNITS[:1], drops=True), shape)
    return blocks.dense(x, DENSE_UNITS[1:], drops=True)


def _flattened(x: keras.KerasTensor, blocks: "_Blocks", drops: bool = False) -> keras.KerasTensor:
    for number, (filters, size) in enumerate(CONVOLUTIONS, 1):
        x = blocks.convolution(x, filters, size, f"conv_{number}")
        x = keras.layers.MaxPooling2D(2, **blocks.keep)(x)
        x = blocks.dropout(x) if drops else x
    return keras.layers.Flatten(**blocks.keep)(x)


def _compact(x: keras.KerasTensor, blocks: "_Blocks") -> keras.KerasTensor:
    """Three convolutions and a residual block (He et al. 2016, arXiv:1512.03385); mean and maximum of each filter."""
    for number, (filters, size) in enumerate(COMPACT_CONVOLUTIONS, 1):
        x = blocks.convolution(x, filters, size, f"conv_{number}")
        x = keras.layers.MaxPooling2D(2, **blocks.keep)(x)
    within = blocks.convolution(x, filters, 3, "conv_4")
    x = keras.layers.Add(**blocks.keep)([x, blocks.convolution(within, filters, 3, "conv_5")])
    means = keras.layers.GlobalAveragePooling2D(**blocks.keep)(x)
    x = keras.layers.Concatenate(**blocks.keep)([means, keras.layers.GlobalMaxPooling2D(**blocks.keep)(x)])
    return blocks.dense(blocks.dropout(x), drops=True)


@dataclass(frozen=True)
class _Blocks:
    """What the architectures are made of, with the settings of a network."""

    settings: config.Network
    for_training: bool
    precision: str

    @property
    def keep(self) -> dict[str, Any]:
        return {"dtype": self.precision}

    def convolution(self, x: keras.KerasTensor, filters: int, size: int, name: str) -> keras.KerasTensor:
        """Convolution, ReLU and batch norm, over channels or over the image width."""
        settings = self.settings
        over_width = {"architecture": settings.architecture == "published", "channels": False, "width": True}
        convolution = FastConv2D if self.for_training else keras.layers.Conv2D
        norm = FastBatchNormalization if self.for_training else keras.layers.BatchNormalization
        x = convolution(self._scaled(filters), size, padding="same", activation="relu", name=name, **self.keep)(x)
        axis = 2 if over_width[settings.batch_norm] else -1
        return norm(axis=axis, momentum=settings.momentum, **self.keep)(x)

    def dense(self, x: keras.KerasTensor, units: tuple[int, ...] = DENSE_UNITS, *, drops: bool) -> keras.KerasTensor:
        """Hidden dense layers, each with dropout behind it where it drops."""
        settings = self.settings
        softmax = {"architecture": settings.architecture == "published", "relu": False, "softmax": True}
        for number in units:
            x = keras.layers.Dense(
                self._scaled(number),
                activation="softmax" if softmax[settings.hidden] else "relu",
                kernel_regularizer=keras.regularizers.L2(settings.l2),
                **self.keep,
            )(x)
            if drops:
                x = self.dropout(x)
        return x

    def dropout(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Drop a share of the units in training."""
        return keras.layers.Dropout(self.settings.dropout, **self.keep)(x)

    def _scaled(self, units: int) -> int:
        return max(1, round(units * self.settings.width))
