"""The page on which orders are compared, with a curve for each."""

from pathlib import Path

from ar.evaluation.useless_tokens import LEAST_FALL
from recipes.comparison import curves_of, first_runs
from recipes.engine import pictures
from recipes.engine.page import Section, Table, write_page
from recipes.orders_report import NOISE, Results, Runs, tables


def write_orders_page(out: Path, results: Results, runs: Runs) -> None:
    """Draw a curve for each arm, and write OUT/orders.html around them."""
    drawn, about, *others = tables(results)
    numbers = results["images"]
    level = results["psnr"]
    seen = out / "pictures"
    sections = [
        Section(
            heading="What is drawn, said and understood",
            text=f"Judge, in whose features distances are taken: {results['judge']}. Distances of "
            f"{numbers['generated']} generated images to {numbers['real']} real ones; the rebuilt "
            "ones are each arm's bound. "
            + ("" if level is None else _about_nats(level))
            + "Log-likelihood in nats for each dimension, of arms with the same patches. The best "
            "guidance of a seed, and the layer that the trunk is read after, is the best of the "
            "other seeds. Half of the 95% interval over seeds, where there are several: how "
            "trainings differ, on test images that are the same for all.",
            tables=[drawn],
        ),
        Section(
            heading="What no arm is expected to pass",
            text="Of the first run: images rebuilt from its tokens, as many training images, "
            "halves of the real ones; what the judge says of real ones, and of what it cannot see.",
            tables=[_bounds(results)],
        ),
        Section(
            heading="What the orders are like",
            text="EQ is made of its gini, of how far gradients agree and of transfer, all of small "
            "models without a condition that learn by squared error. Lost, as a share of that "
            "gain: without positions, and where each is taken for the one before, which misleads "
            "above 1. The gini and the variation of "
            "nats are of the arm's own AR model, told captions. A token is useless if the error "
            f"does not surely fall by {LEAST_FALL:.0%} of the mean image's with it. A position is "
            "told as far as a small net names it more often than by chance.",
            tables=[about],
            pictures=_drawn(out, results),
        ),
        *(Section(heading="Against raster", tables=[table]) for table in others),
        Section(heading="Operations", tables=[_operations(results)]),
        Section(
            heading="Drawn from the same captions",
            text="The first seed of every arm, with the guidance that draws nearest to real "
            "images; below, the paths.",
            pictures=[(seen / "drawn.png", "drawn by all"), (seen / "paths.png", "paths")],
        ),
        Section(
            heading="Images from their first tokens, and drawn ones",
            text="The first seed; drawn from the same captions and without guidance.",
            pictures=[
                (runs[arm, seed] / "pictures" / "separate" / f"{name}.png", f"{arm}: {name}")
                for arm, seed in first_runs(runs)
                for name in ("strips", "generated")
            ],
        ),
    ]
    intro = "AR models of one size on images in many orders, at equal total operations."
    write_page(out / "orders.html", "Which order is best?", intro, sections)


def _operations(results: Results) -> Table:
    """What each arm costs."""
    costs = {arm: of["compute"] for arm, of in results["arms"].items()}
    return Table(
        columns=("order", "steps", "GFLOP a step", "stage 1", "encoding", "total, TFLOP"),
        rows=[
            (
                arm,
                cost["steps"],
                cost["step"] / 1e9,
                cost["stage_1"] / 1e12,
                cost["encoding"] / 1e12,
                cost["total"] / 1e12,
            )
            for arm, cost in costs.items()
        ],
    )


def _about_nats(level: float) -> str:
    return (
        f"Nats are of noisy tokens that leave {level:.1f} dB, in noise that is a share of what the "
        "AR model scales each channel by. Where that is its own deviation, an order whose channels "
        "matter unequally pays for bits that hardly show. By a Gaussian of all tokens, which is "
        "told no captions, in that noise and in one that is the same for all channels. "
    )


def _bounds(results: Results) -> Table:
    """A row for each kind of images."""
    bounds = results["bounds"]
    measures = list(dict.fromkeys(name for of_one in bounds.values() for name in of_one))
    return Table(
        columns=("images", *measures),
        rows=[(who, *(of.get(measure) for measure in measures)) for who, of in bounds.items()],
    )


def _drawn(out: Path, results: Results) -> list[tuple[Path, str]]:
    drawn = []
    names = dict.fromkeys(name for arm in results["arms"].values() for name in arm["curves"])
    for name in names:
        path = out / "pictures" / f"{name.replace(' ', '-')}.png"
        pictures.curves(curves_of(results["arms"], name), path, x_label="tokens", y_label=name)
        drawn.append((path, name))
    path = out / "pictures" / "rate.png"
    rate = {
        arm: {round(at["nats"]): at["psnr"] for at in of_arm["rate"].values()}
        for arm, of_arm in results["arms"].items()
        if arm != NOISE
    }
    pictures.curves(rate, path, x_label="nats", y_label="PSNR in dB", log2_x=True)
    return [*drawn, (path, "PSNR against nats")]
