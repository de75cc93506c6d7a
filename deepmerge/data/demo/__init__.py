"""The demo sample, made from a seed, and its size unless one asks for another."""

# 2880 images: enough for a network to learn something from noisy images (240 galaxies are not) in minutes.
GALAXIES = 720
# Nearly the share of merger galaxies in the release (406 of 2233), before flipped copies even the classes.
MERGER_FRACTION = 1 / 6
SEED = 0
