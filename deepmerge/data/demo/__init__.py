"""The demo sample, made from a seed, and its size unless one asks for another."""

from typing import Literal

# 2880 images: enough for a network to learn something from noisy images (240 galaxies are not) in minutes.
GALAXIES = 720
# Nearly the share of merger galaxies in the release (406 of 2233), before flipped copies even the classes.
MERGER_FRACTION = 1 / 6
SEED = 0

# What an encounter brings into an image: the other galaxy, displaced stars, what these gain by being young, and what
# nuclei gain.
Ingredient = Literal["companion", "tides", "young stars", "nuclei"]
