"""Maps as files for other programs: FITS, which DS9 and TOPCAT open, and a note on what is in them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.analysis.saliency import Explainer
from deepmerge.data.formats import fits_file
from deepmerge.jobs.gradcam import own
from deepmerge.jobs.judged import Judged


def header(judged: Judged, explainer: Explainer) -> dict[str, str]:
    """What a FITS header tells of the maps."""
    return {
        "METHOD": explainer.method.title.replace("×", "x"),  # FITS is ASCII
        "LAYER": explainer.layer,
        "RUN_ID": judged.run.info.run_id,
        "DATASET": judged.data.name,
        "DATASRC": judged.data.data_source,
    }


def write_fits(
    path: Path, maps: np.ndarray, targets: Sequence[str], table: pd.DataFrame, cards: Mapping[str, str]
) -> None:
    """Write maps (n, targets, H, W): a cube for each target, by its name, and the table IMAGES, a row a plane.

    The first row of an image is at the bottom, as FITS has it and our figures do.
    """
    from astropy.io import fits
    from astropy.table import Table

    plain = table.astype({name: str for name in table if table[name].dtype.kind not in "iufb"})
    images = fits.table_to_hdu(Table.from_pandas(plain))
    images.name = "IMAGES"
    _units(np.moveaxis(maps, 1, 0), targets, cards, images).writeto(path, overwrite=True)


def write_on_sky(
    folder: Path, images: Sequence[Path], maps: np.ndarray, targets: Sequence[str], cards: Mapping[str, str]
) -> int:
    """Write the maps of images that lie in FITS files of their own with the WCS of these; returns how many have one.

    ``00012_name.fits`` of line 12, with an HDU for each target, lies over ``name.fits`` in DS9. Images that were cut or
    resized to the size of the network have none.
    """
    count = 0
    for line, path in enumerate(images):
        wcs = own.celestial(path, maps.shape[2:])
        if wcs is None:
            continue
        place = folder / f"{line:05d}_{fits_file.plain_name(path.name)}.fits"
        _units(maps[line], targets, cards, header=wcs).writeto(place, overwrite=True)
        count += 1
    return count


def _units(maps: np.ndarray, targets: Sequence[str], cards: Mapping[str, str], *others: Any, header: Any = None) -> Any:
    """An HDU for each target with its maps (targets, …), by its name, and what else there is."""
    from astropy.io import fits

    units = [fits.PrimaryHDU(header=fits.Header({"ORIGIN": "deepmerge", **cards}))]
    for target, each in zip(targets, maps, strict=True):
        unit = fits.ImageHDU(np.ascontiguousarray(each), header, name=target.upper())
        unit.header["BUNIT"] = ("logit", "not normalised")
        units.append(unit)
    return fits.HDUList([*units, *others])


def write_readme(folder: Path, stem: str, explainer: Explainer, targets: Sequence[str], on_sky: int = 0) -> None:
    """Say what lies in a folder of maps."""
    of_files = "Files that begin with i are the map of image i with its WCS.\n" * bool(on_sky)
    (folder / "README.txt").write_text(
        f"{stem}.npy (images, targets, height, width): {explainer.method.title} of {explainer.layer}, for the targets "
        f"{', '.join(targets)}, in units of the logit, not normalised.\nLine i of {stem}.csv is image i.\n{of_files}",
        encoding="utf-8",
    )


def copy(folder: Path, out: Path) -> None:
    """Copy the files of a folder into another one, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir()):
        shutil.copyfile(file, out / file.name)
