"""The leaderboard: methods by audited and clean accuracy as one Markdown page with pictures, from published results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.errors import UserError
from noiseopt.report.export import markdown_table, shown, write_page
from noiseopt.report.kinds import KINDS, length_of
from noiseopt.report.layout import mapping
from noiseopt.report.pareto import pareto_picture
from noiseopt.report.ranking import MARGIN, front, verdict
from noiseopt.report.sources import Source, read
from noiseopt.report.standings import COST, Standing, Standings, standings
from noiseopt.report.statistics import Estimate

GROUPS = {False: "Trained on images", True: "Trained on adversarial examples"}
_HOW = """\
Ordered by audited accuracy: the share of test images that survive every attack of `noiseopt audit`. Clean accuracy
is that of the same images by the same votes. Numbers are means over seeds ± half of the 95 % t-interval over them. A
seed is one training and the draws of its audit; the images are the same for all, so ± has no choice of images in it,
and one that is far below what the median row's deviation gives is luck. *Close* is the share of the images that
survived by a close vote: so far a number may move with the audit's draws. *Noise off*: audited once more, the noise
taken out: what of it the weights are worth alone; *on less off* is the difference, seed by seed. One method *beats*
another here if the two intervals of audited accuracy do not overlap, with three seeds at least, and its clean
accuracy is at most {margin:g} less, about one standard error of a network's on 1,000 images (on 300 images that is
0.006); compared are rows that were trained on the examples of the same adversary, as long. The best row of a kind is
chosen on these same images, and no correction is made for the number of rows, which flatters the best a little. *σ*
is its root mean square in each layer at the end of the training, with an arrow where all seeds' still moved one way:
then the number is one of so many epochs at this learning rate of σ.
"""


def write_leaderboard(folder: str | Path, output: str | Path, *, command: str) -> Path:
    """Write the page of the results in `folder` (one folder a recipe) to `output`; pictures go to figures/ beside it.

    `command` stands at its head. The same results give the same bytes.

    Raises:
        UserError: nothing was published in `folder`, nothing of it was audited, or the page cannot be written.
    """
    sources = [read(found.parent) for found in sorted(Path(folder).glob("*/run.json"))]
    page, pictures = render(sources, folder=str(folder), command=command)
    return write_page(Path(output), page, pictures)


def render(sources: Sequence[Source], *, folder: str, command: str) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    boards = {source.name: (source, standings(source)) for source in sources}
    every = [row for _, board in boards.values() for row in board.rows]
    if not any(row.audited.known for row in every):
        fix = "`noiseopt audit RUN --seeds ...`, then `noiseopt publish RUN DIR`"
        raise UserError("a leaderboard is made of published runs that were audited", got=folder, fix=fix)
    parts = [
        f"Made by `{command}` from the Records and audits published there. Do not edit: run it again.\n",
        "# Which noise helps: the leaderboard\n",
        "What the rows are is said in noiseopt's `docs/noise-zoo.md`, what the audit does in `docs/audit.md`.\n",
        _HOW.format(margin=MARGIN),
    ]
    pictures: dict[str, bytes] = {}
    beside = [name for name, (_, board) in boards.items() if not any(row.audited.known for row in board.rows)]
    for name, (source, board) in boards.items():
        if name not in beside:
            parts += [f"## {source.layout.title or name}\n", *_section(source, board, pictures)]
    for name in beside:
        source, board = boards[name]
        parts += [f"## Not audited, so not ranked: {source.layout.title or name}\n", *_measured(source, board)]
    return "\n".join(parts).rstrip() + "\n", pictures


def _section(source: Source, board: Standings, pictures: dict[str, bytes]) -> Iterator[str]:
    yield "".join(f"- {line}\n" for line in _how(source, board))
    placed = [(title, board.group(adversarial=adversarial)) for adversarial, title in GROUPS.items()]
    placed = [(title, rows) for title, rows in placed if any(row.placed for row in rows)]
    if placed:
        name = f"leaderboard-{source.name.removeprefix('leaderboard-')}.png"
        pictures[name] = pareto_picture(placed)
        yield f"![Audited by clean accuracy of every method, with the Pareto front](figures/{name})\n"
    for title, rows in placed:
        yield f"### {title}\n"
        yield "".join(f"- {sentence}\n" for sentence in verdict(rows))
        yield _table(source, rows)
    if missing := [row.label for row in board.rows if not row.placed]:
        yield f"Not audited yet: {', '.join(missing)}.\n"
    if board.notes:
        yield "".join(f"- {note}\n" for note in board.notes)


def _how(source: Source, board: Standings) -> Iterator[str]:
    about = source.about
    data, recipe = mapping(about.get("data")), mapping(about.get("recipe"))
    parts = ", ".join(f"{part} {n:,}" for part, n in mapping(data.get("counts")).items() if isinstance(n, int))
    training, asked = mapping(recipe.get("training")), mapping(recipe.get("data"))
    usual = length_of(training)
    others = [f"{row.label} for {row.length}" for row in board.rows if row.length and row.kind != "made"]
    longer = f"; {', '.join(others)}, and compared only with rows as long" if others else ""
    length = f" Each network is trained for {usual}{longer}." if usual else ""
    pooled = asked.get("split") is not None and asked.get("test", "pooled") == "pooled"
    drawn = ", drawn anew from the published training and test images together" if pooled else ""
    yield f"Images: {data.get('name')}: {parts}{drawn}.{length}"
    settings = board.settings
    if settings:
        eps = float(settings["eps"])
        seeds = ", ".join(map(str, board.seeds))
        yield (
            f"Audited: seeds {seeds}, the first {board.images:,} test images, L∞ radius {eps:.3g} "
            f"({255 * eps:.3g}/255), up to {max(settings['draws'])} draws, {settings['votes']} votes."
        )
    strict = mapping(mapping(recipe.get("evaluation")).get("strict"))
    measured = sorted({r.count for r in source.records if r.protocol == "strict" and r.metric == "accuracy"})
    counts = [f"{' or '.join(f'{n:,}' for n in measured)} test images"] if measured else []
    draws = [f"{strict['draws']} draws"] if strict.get("draws") else []
    told = ", ".join(["the strict protocol, noise on where nothing else is said", *draws, *counts])
    yield f"The columns between: {told}."
    commands = [str(command) for command in (about.get("command"), *board.commands) if command]
    if commands:
        yield "Commands: " + ", ".join(f"`{command}`" for command in commands) + "."
    if any(row.cost is not None for row in board.rows):
        command = f"python -m benchmarks.training_cost {source.name}"
        yield f"Cost: time of a training step over the plain network's, interleaved (`{command}`)."
    else:
        command = f"python -m benchmarks.training_cost {source.name} --json {source.folder / COST}"
        yield f"Cost: not measured yet (`{command}`)."


def _table(source: Source, rows: Sequence[Standing]) -> str:
    columns = _columns(source, rows)
    leading, off = front(rows), any(row.audited_off.known for row in rows)
    header = [
        "Method",
        "What",
        "Clean",
        *(title for title, *_ in columns),
        "Audited",
        *(["Clean, noise off", "Audited, noise off", "On less off"] if off else []),
        "Close",
        "Front",
        "Masking",
        "σ",
        "Cost",
    ]
    seeds = max((row.audited.seeds for row in rows), default=0)
    order = sorted((row for row in rows if row.placed), key=lambda row: -row.audited.mean)
    lines = [
        [
            row.label,
            KINDS[row.kind],
            shown(row.clean),
            *(shown(row.measured(key, noise=noise)) for _, key, noise in columns),
            _seeds(row.audited, seeds),
            *([shown(row.clean_off), _seeds(row.audited_off, row.audited.seeds), shown(row.worth)] if off else []),
            f"{row.close:.1%}" if row.close else "",
            "●" if row in leading else "",
            _masked(row.masking, row.audited.seeds),
            str(row.levels or ""),
            "" if row.cost is None else f"{row.cost:.2f}",
        ]
        for row in order
    ]
    return markdown_table(header, lines, left=2)


def _columns(source: Source, rows: Sequence[Standing]) -> list[tuple[str, str, bool]]:
    """(header, column, noise) of what was measured besides clean accuracy; the noise off where any row has that."""
    found = []
    for column in source.layout.columns:
        if column.key != "clean":
            found.append((column.title, column.key, True))
            if any(row.measured(column.key, noise=False).known for row in rows):
                found.append((f"{column.title}, noise off", column.key, False))
    return found


def _measured(source: Source, board: Standings) -> Iterator[str]:
    """What was measured of a run that was not audited, such as the settings among which another one's were chosen."""
    data, asked = mapping(source.about.get("data")), mapping(mapping(source.about.get("recipe")).get("data"))
    part = f"{asked.get('measure') or 'test'} images"
    seeds = max((number.seeds for row in board.rows for number in row.numbers.values()), default=0)
    command = source.about.get("command")
    how = f"{data.get('name')}, {part}; {seeds} seed{'s' if seeds != 1 else ''}; the strict protocol"
    yield f"{how} (`{command}`).\n" if command else f"{how}.\n"
    columns = [(c.title, c.key, True) for c in source.layout.columns if c.key == "clean"] + _columns(source, board.rows)
    header = ["Method", "What", *(title for title, *_ in columns)]
    lines = [
        [row.label, KINDS[row.kind], *(shown(row.measured(key, noise=noise)) for _, key, noise in columns)]
        for row in board.rows
    ]
    yield markdown_table(header, lines, left=2)


def _seeds(number: Estimate, wanted: int) -> str:
    few = f" ({number.seeds} of {wanted} seeds)" if 0 < number.seeds < wanted else ""
    return shown(number) + few


def _masked(masking: Mapping[str, Any], seeds: int) -> str:
    return ", ".join(f"{name} {count}/{seeds}" for name, count in masking.items())
