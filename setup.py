"""What pyproject.toml cannot say: the folder experiments/ goes into the package as deepmerge/experiments."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["deepmerge*"]), "deepmerge.experiments"],
    package_dir={"deepmerge.experiments": "experiments"},
    package_data={
        "deepmerge.experiments": ["*.yaml"],
        "deepmerge.report": ["*.css", "*.jinja"],
        "deepmerge.gallery": ["*.css", "*.js", "*.jinja"],
    },
)
