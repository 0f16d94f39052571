"""The claims and their verdicts as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from noiseopt.report.bydistortion import Span
from noiseopt.report.claims import (
    Answer,
    Compared,
    Evidence,
    Outcome,
    Result,
    Sentence,
    Test,
    Verdict,
    in_the_paper,
    judge,
    passages,
)
from noiseopt.report.export import markdown_table, title_of
from noiseopt.report.layout import BLACK, COLUMNS
from noiseopt.report.scales import Words

WORDS = Words()
"""Those of the first paper: accuracies, with the noise on and off."""

Judged = list[tuple[str, str, Sentence, list[Result]]]


def judged(evidence: Evidence, claims: str = "claims.yaml") -> Judged:
    """(number, paragraph, sentence, its results), in the paper's order. `claims`: the file of the paper's claims."""
    found: Judged = []
    for passage in passages(claims):
        for sentence in passage.sentences:
            results = [judge(one, evidence) for test in sentence.tests for one in test.each()]
            found.append((str(len(found) + 1), passage.place, sentence, results))
    return found


def summary(claims: Judged) -> str:
    """How many verdicts of each kind, in one sentence; and how many of those that do not hold are refuted."""
    tests = [result for *_, results in claims for result in results]
    counts = Counter(result.verdict for result in tests)
    said = {verdict: f"{counts[verdict]} {_plural(verdict, counts[verdict])}" for verdict in Verdict if counts[verdict]}
    failed = [result for result in tests if result.verdict is Verdict.FAILS]
    if failed:
        contrary = sum(result.paper.count(Answer.CONTRARY) > 0 for result in failed)
        said[Verdict.FAILS] += f" ({contrary} with a comparison that lies the other way, {len(failed) - contrary} open)"
    listed = list(said.values())
    return f"Of {sum(counts.values())} tests of {len(claims)} sentences: {'; '.join(listed)}."


def _plural(verdict: Verdict, count: int) -> str:
    if count != 1:
        return {Verdict.HOLDS: "hold", Verdict.FAILS: "do not hold", Verdict.PAPER_ONLY: "hold " + verdict.value}.get(
            verdict, verdict.value
        )
    return f"holds {verdict.value}" if verdict is Verdict.PAPER_ONLY else verdict.value


def overview(claims: Judged, words: Words = WORDS) -> str:
    """A line for every test: what it says, and its verdict."""
    rows = []
    for number, _, _, results in claims:
        for place, result in enumerate(results):
            test = result.test
            off = ["–" if test.kind == "faster" else result.verdict_off.value] * words.noise_off
            place_of = test.table.removeprefix("ulicny-") if not test.figure else f"Figure {test.figure}"
            line = [_number(number, place, results), _says(test, words), place_of, _own(test), f"**{result.verdict}**"]
            rows.append([*line, *off])
    where = "Table" if all(result.test.table for *_, results in claims for result in results) else "Table, or figure"
    header = ["", "Claim", where, "In its own table", "Verdict", *["With noise off"] * words.noise_off]
    return markdown_table(header, rows, left=len(header))


def _number(number: str, place: int, results: list[Result]) -> str:
    return number + ("abcdefghijkl"[place] if len(results) > 1 else "")


def details(claims: Judged, words: Words = WORDS) -> Iterator[str]:
    """Every sentence with the size of what was measured, and every comparison."""
    paragraph = ""
    for number, place, sentence, results in claims:
        if place != paragraph:
            paragraph = place
            yield f"### {place}\n"
        yield f"**{number}.** “{sentence.quote}”\n"
        header = ["", "Test", "Protocol paper", "Protocol strict", "Verdict"]
        header += ["Noise off: paper", "Noise off: strict"] * words.noise_off
        rows = [_row(_number(number, at, results), result, words) for at, result in enumerate(results)]
        yield markdown_table(header, [row[: len(header)] for row in rows], left=len(header))
        for note in dict.fromkeys(result.test.note for result in results if result.test.note):
            yield f"{note}\n"
        several = [(at, r) for at, r in enumerate(results) if max(len(r.paper.cells), len(r.strict.cells)) > 1]
        for at, result in several:
            if any(cell.difference for outcome in _outcomes(result, words).values() for cell in outcome.cells):
                yield f"<details><summary>{_number(number, at, results)}: every comparison</summary>\n"
                yield _every(result, words)
                yield "</details>\n"


def _outcomes(result: Result, words: Words) -> dict[str, Outcome]:
    """Heading → outcome, of those that are measured."""
    if result.test.kind == "faster":  # a curve is the same in every setting
        return {"paper, on": result.paper}
    settings = (
        {"paper, on": result.paper} if result.test.once else {"paper, on": result.paper, "strict, on": result.strict}
    )
    return settings | ({"paper, off": result.paper_off, "strict, off": result.strict_off} if words.noise_off else {})


def _row(number: str, result: Result, words: Words) -> list[str]:
    on = [_size(result.test, outcome, words) for outcome in (result.paper, result.strict)]
    off = [_size(result.test, outcome, words) for outcome in (result.paper_off, result.strict_off)]
    if result.test.once:
        on[1] = "the same"
    if result.test.kind == "faster":
        off = ["–", "–"]
    return [number, _says(result.test, words), *on, f"**{result.verdict}**", *off]


def _every(result: Result, words: Words) -> str:
    outcomes = _outcomes(result, words)
    found = [{(cell.a, cell.b, cell.key): cell for cell in outcome.cells} for outcome in outcomes.values()]
    rows = [
        [
            a,
            b,
            name_of(key, words),
            *(_difference(cells[a, b, key], words) if (a, b, key) in cells else "" for cells in found),
        ]
        for a, b, key in dict.fromkeys(cell for cells in found for cell in cells)
    ]
    states = [name if words.noise_off else name.partition(",")[0] for name in outcomes]
    return markdown_table(["A", "B", "in", *states], rows, left=3)


def _says(test: Test, words: Words) -> str:
    for key, size in test.claimed.items():
        unit = "%" if test.kind == "ratio" else "points"
        return f"{test.says}: {name_of(key, words)}, by {100 * size:g} {unit}"
    return test.says


def _own(test: Test) -> str:
    borne_out = in_the_paper(test)
    return "–" if borne_out is None else f"{borne_out[0]} of {borne_out[1]}"


def _size(test: Test, outcome: Outcome, words: Words) -> str:
    """What one outcome came to: the difference of its only cell, or a count of cells and their range."""
    if len(outcome.cells) == 1:
        cell = outcome.cells[0]
        return _difference(cell, words) + _claimed(test, cell, words)
    sizes = [cell.difference.size.mean for cell in outcome.cells if cell.difference]
    answers = (Answer.CLAIMED, Answer.CONTRARY, Answer.OPEN, Answer.FEW_SEEDS, Answer.MISSING)
    counts = [(outcome.count(answer), answer) for answer in answers]
    text = ", ".join(f"{count} {answer}" for count, answer in counts if count)
    spread = f"; {words.spread(sizes)}" if sizes else ""
    return f"of {len(outcome.cells)}: {text}{spread}" if sizes else Answer.MISSING.value


def _difference(cell: Compared, words: Words) -> str:
    if cell.difference is None:
        return Answer.MISSING.value
    size, count = cell.difference.size, len(cell.difference.seeds)
    if not size.has_interval:
        return f"{words.difference(size.mean)} (1 seed: no interval)"
    return f"{words.difference(size.mean)} {words.interval(size)}, p {_p(cell.difference.p)}, {count} seeds"


def _claimed(test: Test, cell: Compared, words: Words) -> str:
    """The stated size beside the measured one."""
    if test.kind == "gap" and cell.key in test.claimed and cell.difference:
        stated, size = test.claimed[cell.key], cell.difference.size
        if not size.has_interval:
            return f"; stated: {words.difference(stated)}"
        return (
            f"; the stated {words.difference(stated)} is {'within' if size.low <= stated <= size.high else 'outside'}"
        )
    if cell.ratio is None:
        return ""
    if not cell.ratio.known:
        return "; no ratio: B is 0"
    text = f"; {_percent(cell.ratio.mean)} %"
    if not cell.ratio.has_interval:
        return text
    claimed, low, high = test.claimed[cell.key], cell.ratio.low, cell.ratio.high
    within = "within" if low <= claimed <= high else "outside"
    return f"{text} [{_percent(low)}, {_percent(high)}]: the stated {100 * claimed:g} % is {within}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def name_of(key: str, words: Words = WORDS) -> str:
    """A column or curve in words."""
    span = Span.of(key)
    if span is not None:
        return f"{words.names.get(span.column, span.column)}, mean of dist {span.first:g} to {span.last:g}"
    if key in words.names:
        return words.names[key]
    column = COLUMNS.get(key)
    if column is None:
        return key.replace("_", " ").replace("train ", "training ")
    return (
        f"{column.title} (transfer)" if key.startswith("transfer_") and column.group == BLACK else title_of(column, [])
    )
