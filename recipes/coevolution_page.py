"""The page of a proof of coevolution: the verdict, figures, and differences to each rival."""

from pathlib import Path

from recipes.coevolution import RIVALS, Results
from recipes.engine.page import Cell, Section, Table, write_page
from recipes.intervals import cell
from recipes.verdict import DECIDING


def tables(results: Results) -> list[Table]:
    """The figures, their differences to each rival, and the verdicts."""
    arms = results["arms"]
    controls = list(
        dict.fromkeys(name for of in results["verdict"].values() for name in of["alone"])
    )
    return [
        _table("figures", {arm: of_arm["figures"] for arm, of_arm in arms.items()}),
        *(
            _table(
                f"better than {rival} by",
                {
                    arm: of_arm["against"][rival]
                    for arm, of_arm in arms.items()
                    if rival in of_arm["against"]
                },
            )
            for rival in RIVALS
            if rival in arms
        ),
        Table(
            columns=("arm", *DECIDING, "verdict", *(f"by {name} alone" for name in controls)),
            rows=[
                (
                    arm,
                    *(found["sides"][side] for side in DECIDING),
                    found["verdict"],
                    *(found["alone"].get(name) for name in controls),
                )
                for arm, found in results["verdict"].items()
            ],
        ),
    ]


def _table(title: str, of_arms: Results) -> Table:
    measures = dict.fromkeys(measure for of_arm in of_arms.values() for measure in of_arm)
    rows: list[tuple[Cell, ...]] = [
        (measure, *(cell(of_arm.get(measure)) for of_arm in of_arms.values()))
        for measure in measures
    ]
    return Table(columns=(title, *of_arms), rows=rows)


def write_coevolution_page(out: Path, results: Results) -> None:
    """Write OUT/coevolution.html."""
    *figures, verdicts = tables(results)
    compute = Table(
        columns=("arm", "steps", "TFLOP"),
        rows=[
            (arm, each["steps"], each["flops"] / 1e12) for arm, each in results["compute"].items()
        ],
    )
    sections = [
        Section(
            heading="Verdict",
            text="By rule, from the intervals of differences to the controls, paired by seed: see "
            "recipes.verdict.",
            tables=[verdicts, _reasons(results)],
        ),
        Section(
            heading="Figures",
            text="Mean over seeds and half of its 95% interval (Student's t). Nats are of all "
            f"tokens of an image, in noise that leaves {results['psnr']:.1f} dB; fewer are better.",
            tables=figures,
        ),
        Section(
            heading="Understanding by generating",
            text="How well linear maps read the trunk's states after each layer, of the first "
            "tokens of an image; 0 is chance. Before stage 3 it was the start's.",
            tables=[_table("after", results["understanding"])],
        ),
        Section(
            heading="Operations of stage 3; raster's are of all three",
            text="; ".join(f"{run}: {why}" for run, why in results["stopped"].items()),
            tables=[compute],
        ),
    ]
    intro = "Stage 3 in several ways, and what a fresh AR model makes of the tokens it leaves."
    write_page(out / "coevolution.html", "Do both models gain?", intro, sections)


def _reasons(results: Results) -> Table:
    """What the rule says of each measure."""
    found = results["verdict"]
    words = {
        arm: {name: word for of in each["measures"].values() for name, word in of.items()}
        for arm, each in found.items()
    }
    measures = dict.fromkeys(name for of_arm in words.values() for name in of_arm)
    rows: list[tuple[Cell, ...]] = [
        (name, *(of_arm.get(name) for of_arm in words.values())) for name in measures
    ]
    return Table(columns=("measure", *words), rows=rows)
