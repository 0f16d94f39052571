"""The leaderboard: methods by audited and clean accuracy as one Markdown page with pictures, from published results."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.errors import UserError
from noiseopt.report.export import markdown_table, shown, write_page
from noiseopt.report.layout import mapping
from noiseopt.report.pareto import pareto_picture
from noiseopt.report.sources import Source, read
from noiseopt.report.standings import COST, ENOUGH, KINDS, MARGIN, Standing, Standings, beats, front, highest, standings

_RIVALS = {
    "none": "the network without noise",
    "fixed": "the one fixed σ",
    "allocation": "the fixed σ for each layer",
    "paper": "the noise of another paper",
}
GROUPS = {False: "Trained on images", True: "Trained on adversarial examples"}
_HOW = """\
Ordered by audited accuracy: the share of test images that survive every attack of `noiseopt audit`. Clean accuracy
is that of the same images by the same votes. Numbers are means over seeds ± half of the 95 % t-interval over them. A
seed is one training and the draws of its audit; the images are the same for all, so ± has no choice of images in it,
and one that is far below what the median row's deviation gives is luck. *Close* is the share of the images that
survived by a close vote: so far a number may move with the audit's draws. *Noise off*: audited once more, the noise
taken out: what of it the weights are worth alone. One method *beats* another here if the two
intervals of audited accuracy do not overlap, with three seeds at least, and its clean accuracy is at most {margin:g}
less, about one standard error of a network's on 1,000 images; compared are rows that were trained on the examples of
the same adversary. The best row of a kind is chosen on these same images, which flatters it a little. *σ* is its root
mean square in each layer at the end of the training, with an arrow where it still moved: then the number is one of so
many epochs at this learning rate of σ.
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
    length = f"{training['steps']:,} steps" if training.get("steps") else f"{training.get('epochs')} epochs"
    pooled = asked.get("split") is not None and asked.get("test", "pooled") == "pooled"
    drawn = ", drawn anew from the published training and test images together" if pooled else ""
    yield f"Images: {data.get('name')}: {parts}{drawn}. Each network is trained for {length}."
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


def verdict(rows: Sequence[Standing]) -> Iterator[str]:
    """What the comparison comes to, in sentences: learned against fixed noise, and the row that leads.

    Rows are compared with those that were trained on the examples of the same adversary.
    """
    for adversary in dict.fromkeys(row.adversary for row in rows):
        same = [row for row in rows if row.adversary == adversary]
        for kind, words in _RIVALS.items():
            for said in _against(same, kind, words):
                yield f"**{adversary}.** {said}" if adversary else said
    known = [row for kind in KINDS if (row := highest(rows, kind)) is not None]
    if known:
        top = max(row.audited.mean for row in known)
        leaders = [_place(row) for row in known if row.audited.mean == top]
        yield f"Highest audited accuracy: {'; '.join(leaders)}."
    masked = [f"{r.label} ({', '.join(r.masking)})" for r in rows if r.masking]
    if masked:
        yield f"Signs of masking, so not compared: {'; '.join(masked)}."
    deviations = [row.audited.deviation for row in rows if row.audited.has_interval and not row.masking]
    if len(deviations) > 1:
        middle = statistics.median(deviations)
        yield f"Standard deviation of audited accuracy over seeds, the median of these rows: {middle:.3f}."


def _against(rows: Sequence[Standing], kind: str, words: str) -> Iterator[str]:
    """Learned σ against the row of another kind that has the highest audited accuracy; `words` for that kind."""
    learned, rival = highest(rows, "learned"), highest(rows, kind)
    if learned is None or rival is None:
        return
    if min(learned.audited.seeds, rival.audited.seeds) < ENOUGH:
        yield f"Learned σ against {words}: no verdict before three seeds."
        return
    winners = [row for row in rows if row.kind == "learned" and row.placed and not row.masking and beats(row, rival)]
    if not winners:
        yield f"No learned σ beats {words} of highest audited accuracy: {_place(learned)}, against {_place(rival)}."
        return
    leader = max(winners, key=lambda row: row.audited.mean)
    yield f"Learned σ beats {words} of highest audited accuracy: {_place(leader)}, against {_place(rival)}."
    if others := [row.label for row in winners if row is not leader]:
        yield f"So {'do' if len(others) > 1 else 'does'} {', '.join(others)}."
    unbeaten = [r for r in rows if r.kind == kind and r.placed and not r.masking and not beats(leader, r)]
    if unbeaten:
        listed = "; ".join(f"{row.label} ({shown(row.clean)}, audited {shown(row.audited)})" for row in unbeaten)
        yield f"Not beaten by {leader.label}, for their clean accuracy or their interval: {listed}."


def _place(row: Standing) -> str:
    return f"**{row.label}**, audited {shown(row.audited)}, clean {shown(row.clean)}"


def _table(source: Source, rows: Sequence[Standing]) -> str:
    columns = _columns(source, rows)
    leading, off = front(rows), any(row.audited_off.known for row in rows)
    header = [
        "Method",
        "What",
        "Clean",
        *(title for title, *_ in columns),
        "Audited",
        *(["Clean, noise off", "Audited, noise off"] if off else []),
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
            shown(row.audited) + (f" ({row.audited.seeds} of {seeds} seeds)" if row.audited.seeds < seeds else ""),
            *([shown(row.clean_off), shown(row.audited_off)] if off else []),
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


def _masked(masking: Mapping[str, Any], seeds: int) -> str:
    return ", ".join(f"{name} {count}/{seeds}" for name, count in masking.items())
