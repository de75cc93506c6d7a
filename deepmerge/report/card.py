"""What a report says of every model: the headline of its test, beside what was published, and its model card."""

from collections.abc import Mapping

from deepmerge.estimate import UNDEFINED, Estimate
from deepmerge.report.page import Section, Table

# What a report says first of a test set, and in which words.
HEADLINE = {
    "auc": "AUC",
    "galaxy_auc": "AUC of galaxies, each by the mean of its views",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy at the sample's own ratio",
    "completeness": "Completeness",
    "purity_at_balance": "Purity, both classes equally many",
    "purity": "Purity at the sample's own ratio",
    "brier_at_balance": "Brier score, both classes equally many (lower is better)",
    "calibration_error_at_balance": "Calibration error (ECE), both classes equally many (lower is better)",
}
# Pristine and noisy, as the notebooks at github.com/deepskies/deepmerge-public print them; their intervals are omitted,
# being over images. The Brier score is that of their test rows, which are nearly at balance.
VARIANTS = ("pristine", "noisy")
PUBLISHED = {
    "auc": ("0.865", "0.820"),
    "accuracy": ("0.793", "0.756"),
    "completeness": ("0.802", "0.780"),
    "purity": ("0.811", "0.770"),
    "brier_at_balance": ("0.149", "0.173"),
}
# 98.6 %: their split rebuilt from the released catalogue (README); 54 %: 1660 of their 3085 test images.
HEADLINE_CAPTION = (
    "On test images; in brackets the 95 % interval over galaxies. A calibration error has none: it is a sum of "
    "absolute values, which noise lifts. Published, set apart on the right: "
    "Ćiprijanović et al. 2020, A&C 32, 100390, arXiv:2004.11981, on Illustris images, rows split at random: 98.6 % of "
    "the test rows have their galaxy in the training set. Hence neither comparable with ours nor an upper or lower "
    "bound for them. Some 54 % of their test rows are mergers: what depends on the class ratio compares with ours at "
    "balance, if at all."
)
# What a model card says of every model of this project.
KIND = "A convolutional network: raw pixels in, probability of a merger out."
METRICS = (
    "Those of the headline table, an image being called a merger from a probability of 0.5 on, with 95 % intervals "
    "over galaxies."
)
ETHICS = "No people are in the data. What misuse can harm is science: see what is not intended."
USES = (
    "Ranking merger candidates for a closer look, in HST-like images simulated as the training images were: same "
    "redshift (z = 2 in the DeepMerge sample), filters, pixel scale, PSF and depth.",
)
MISUSES = (
    "Not for merger rates or fractions without calibration at the survey's merger fraction: probabilities and purity "
    "hold at the class ratio they were trained or measured at, and in a survey mergers are rarer.",
    "Not for other redshifts, depths, filters or PSFs than those of the training images.",
    "Not for real images without domain adaptation and a test on real galaxies with known labels.",
)
FACTORS = (
    "Varied in the DeepMerge sample: viewing angle, stage (past merger, future merger, non-merger), stellar mass.",
    "The same for all its images, hence untested: redshift, filters, depth, PSF, the simulation and its physics.",
)
CAVEATS = (
    "In simulated samples the label is a time window around coalescence, not what an observer would call a merger.",
    "Views of one galaxy are not independent: count galaxies, not images, when you judge a difference.",
    "Intervals hold the scatter of the test galaxies, not that of another training, split or simulation.",
    "Saliency maps show where the network looked, not why, nor that it was right.",
)


def brief(metrics: Mapping[str, str], datasets: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Tabulate some metrics, by name and words for each, of the test images of each data set."""
    texts = {
        words: [measured.get(name, UNDEFINED).text() for measured in datasets.values()]
        for name, words in metrics.items()
    }
    return Table("", ["metric", *datasets], [[words, *row] for words, row in texts.items()])


def headline(datasets: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Tabulate HEADLINE for the test images of each data set and, set apart, what was published.

    datasets: metrics of `metrics.evaluate` by name of the data set. One that is missing is undefined: runs leave out
    NaN. The numbers of images and mergers, and the accuracy of always naming the commoner class, tell how to read
    accuracy and purity.
    """
    unpublished = ["–"] * len(VARIANTS)
    rows = []
    for metric, words in HEADLINE.items():
        ours = [measured.get(metric, UNDEFINED).text() for measured in datasets.values()]
        rows.append([words, *ours, *PUBLISHED.get(metric, unpublished)])
    images, trivial = zip(*(_class_counts(measured) for measured in datasets.values()), strict=True)
    below_accuracy = list(HEADLINE).index("accuracy") + 1
    rows.insert(below_accuracy, ["Accuracy of naming the commoner class every time", *trivial, *unpublished])
    rows.append(["Test images (of which mergers)", *images, *unpublished])
    header = ["metric", *datasets, *(f"published, {variant}, random rows" for variant in VARIANTS)]
    return Table(HEADLINE_CAPTION, header, rows, apart=len(VARIANTS))


def _class_counts(measured: Mapping[str, Estimate]) -> tuple[str, str]:
    """The numbers of images and mergers, and the accuracy of naming the commoner class for every image."""
    if not {"tp", "fp", "tn", "fn"} <= set(measured):
        return "undefined", "undefined"
    tp, fp, tn, fn = (measured[name].value for name in ("tp", "fp", "tn", "fn"))
    total = tp + fp + tn + fn
    return f"{total:.0f} ({tp + fn:.0f})", f"{max(tp + fn, fp + tn) / total:.3f}"


def model_card(
    model: str,
    *,
    architecture: str,
    parameters: int,
    settings: Mapping[str, object],
    parts: Mapping[str, tuple[int, int]],
    protocol: str,
    simulated: bool,
    origin: Mapping[str, str],
) -> Section:
    """Describe a model as a model card (Mitchell et al. 2019, arXiv:1810.03993, section 4).

    model: its name; parameters: number of weights; settings: of network and training; parts: (galaxies, images) of
    train, validation and test; protocol: 'galaxy' or 'rows'; simulated: whether the data are the demo's; origin: what
    it takes to make the model again (fingerprints of data and split, commit, versions, threads). The analyses that the
    paper asks for are those of the report.
    """
    split = {
        "galaxy": "Split by galaxy before any augmentation: no galaxy is in two parts.",
        "rows": "Random rows, as published: galaxies are in training and test at once, so the metrics are optimistic.",
    }[protocol]
    demo = "The training data are simulated demo data, not Illustris: for trying things out, not for science."
    sizes = [[part, f"{galaxies:,}", f"{images:,}"] for part, (galaxies, images) in parts.items()]
    counts = Table("Galaxies and images of each part", ["part", "galaxies", "images"], sizes)
    used = [[name, str(value)] for name, value in settings.items()]
    data = Section(
        "Training and evaluation data",
        notes=[split] * (protocol == "rows"),
        paragraphs=[split] * (protocol == "galaxy"),
        tables=[counts, Table("Settings", ["setting", "value"], used, folded=True)],
    )
    details = {"architecture": architecture, "parameters": f"{parameters:,}", **origin}
    sections = [
        Section("Model details", facts=details, paragraphs=[KIND]),
        Section("Intended use", points=USES),
        Section("Not intended", points=MISUSES),
        Section("Factors", points=FACTORS),
        Section("Metrics", paragraphs=[METRICS]),
        data,
        Section("Ethical considerations", paragraphs=[ETHICS]),
        Section("Caveats and recommendations", points=CAVEATS),
    ]
    return Section(f"Model card: {model}", notes=[demo] * simulated, sections=sections)
