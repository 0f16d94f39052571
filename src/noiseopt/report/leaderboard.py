"""The leaderboard: methods by audited and clean accuracy as one Markdown page with pictures, from published results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.errors import UserError
from noiseopt.report.export import markdown_table, shown, write_page
from noiseopt.report.layout import mapping
from noiseopt.report.pareto import pareto_picture
from noiseopt.report.sources import Source, read
from noiseopt.report.standings import COST, ENOUGH, KINDS, Standing, Standings, beats, front, highest, standings

GROUPS = {False: "Trained on images", True: "Trained on adversarial examples"}
_HOW = """\
Ordered by audited accuracy: the share of test images that survive every attack of [`noiseopt audit`](audit.md). Numbers
are means over seeds ± half of the 95 % t-interval over them; a seed is one training, and all seeds are tested on the
same images. One method *beats* another here if the two intervals of audited accuracy do not overlap, with three seeds
at least, and its clean accuracy, to three digits, is not less. The best row of a kind is chosen on these same images,
which flatters it a little.
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
    if not any(row.placed for _, board in boards.values() for row in board.rows):
        fix = "`noiseopt audit RUN --seeds ...`, then `noiseopt publish RUN DIR`"
        raise UserError("a leaderboard is made of published runs that were audited", got=folder, fix=fix)
    parts = [
        f"Made by `{command}` from the Records and audits published there. Do not edit: run it again.\n",
        "# Which noise helps: the leaderboard\n",
        "What the rows are: [noise-zoo.md](noise-zoo.md). What to make of it: [which-noise.md](which-noise.md).\n",
        _HOW,
    ]
    pictures: dict[str, bytes] = {}
    for name, (source, board) in boards.items():
        parts += [f"## {source.layout.title or name}\n", *_section(source, board, pictures)]
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
        yield f"Not measured and audited yet: {', '.join(missing)}.\n"
    if board.notes:
        yield "".join(f"- {note}\n" for note in board.notes)


def _how(source: Source, board: Standings) -> Iterator[str]:
    about = source.about
    data, recipe = mapping(about.get("data")), mapping(about.get("recipe"))
    counts = ", ".join(f"{part} {n:,}" for part, n in mapping(data.get("counts")).items() if isinstance(n, int))
    training = mapping(recipe.get("training"))
    length = f"{training['steps']:,} steps" if training.get("steps") else f"{training.get('epochs')} epochs"
    yield f"Images: {data.get('name')}: {counts}. Each network is trained for {length}."
    settings = board.settings
    if settings:
        eps = float(settings["eps"])
        seeds = ", ".join(map(str, board.seeds))
        yield (
            f"Audited: seeds {seeds}, the first {board.images:,} test images, L∞ radius {eps:.3g} "
            f"({255 * eps:.3g}/255), up to {max(settings['draws'])} draws, {settings['votes']} votes."
        )
    yield "Clean accuracy and the other columns: the strict protocol, noise on, 20 draws."
    commands = [about.get("command"), f"noiseopt audit runs/{source.name} --seeds {','.join(map(str, board.seeds))}"]
    yield "Commands: " + ", ".join(f"`{command}`" for command in commands if command) + "."
    if any(row.cost is not None for row in board.rows):
        command = f"python -m benchmarks.training_cost {source.name}"
        yield f"Cost: time of a training step over the plain network's, interleaved (`{command}`)."
    else:
        yield f"Cost: not measured yet ({COST})."


def verdict(rows: Sequence[Standing]) -> Iterator[str]:
    """What the comparison comes to, in sentences: learned against fixed noise, and the row that leads."""
    best = {kind: highest(rows, kind) for kind in KINDS}
    learned = best["learned"]
    for rival in (best[kind] for kind in KINDS if kind != "learned"):
        if learned is None or rival is None:
            continue
        winners = [r for r in rows if r.kind == "learned" and r.placed and not r.masking and beats(r, rival)]
        if min(learned.audited.seeds, rival.audited.seeds) < ENOUGH:
            yield f"Learned σ against {KINDS[rival.kind]}: no verdict before three seeds."
        elif winners:
            leader = max(winners, key=lambda row: row.audited.mean)
            others = f" (so {'do' if len(winners) > 2 else 'does'} {_named(winners, leader)})" if winners[1:] else ""
            yield f"Learned σ beats {KINDS[rival.kind]}: {_place(leader)} against {_place(rival)}{others}."
        else:
            yield f"No learned σ beats {KINDS[rival.kind]}: the best is {_place(learned)}, against {_place(rival)}."
    known = [row for row in best.values() if row is not None]
    if known:
        leader = max(known, key=lambda row: row.audited.mean)
        yield f"Highest audited accuracy: {_place(leader)}."
    masked = [f"{r.label} ({', '.join(r.masking)})" for r in rows if r.masking]
    if masked:
        yield f"Signs of masking, so not compared: {'; '.join(masked)}."


def _named(winners: Sequence[Standing], leader: Standing) -> str:
    return ", ".join(row.label for row in winners if row is not leader)


def _place(row: Standing) -> str:
    return f"**{row.label}**, audited {shown(row.audited)}, clean {shown(row.clean)}"


def _table(source: Source, rows: Sequence[Standing]) -> str:
    columns = [column for column in source.layout.columns if column.key != "clean"]
    leading = front(rows)
    header = ["Method", "What", "Clean", *(c.title for c in columns), "Audited", "Front", "Masking", "Cost"]
    order = sorted((row for row in rows if row.placed), key=lambda row: -row.audited.mean)
    lines = [
        [
            row.label,
            KINDS[row.kind],
            shown(row.clean),
            *(shown(row.by_column[column.key]) for column in columns),
            shown(row.audited),
            "●" if row in leading else "",
            _masked(row.masking, row.audited.seeds),
            "" if row.cost is None else f"{row.cost:.2f}",
        ]
        for row in order
    ]
    return markdown_table(header, lines, left=2)


def _masked(masking: Mapping[str, Any], seeds: int) -> str:
    return ", ".join(f"{name} {count}/{seeds}" for name, count in masking.items())
