"""DeepMerge: networks that tell merging galaxies from non-merging ones, tracked in MLflow."""
