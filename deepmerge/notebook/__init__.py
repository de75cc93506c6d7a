"""The notebook door: the functions behind the commands, on data in memory or on disk, without an MLflow run."""
