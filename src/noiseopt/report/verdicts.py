"""The claims and their verdicts as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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
from noiseopt.report.statistics import Estimate

RULES = """\
Each sentence of section 4.2 that claims something about results is tested as follows; the rules were fixed before the
numbers were seen.

- A claim names cells: two rows, A above B, in one column. Each is a paired t-test over the training seeds of both. It
  is *as claimed* where A - B goes the claimed way and its 95 % interval excludes 0, *the other way* where the
  interval lies on the other side, and *open* where it includes 0.
- Under one protocol a claim holds if **every** cell that it names is as claimed; where the paper says "generally" or
  "most", if more than half are.
- **holds**: under both protocols. **only under the paper's protocol**: under that, but not under the strict one.
  **does not hold**: not under the paper's protocol. **not decided**: a cell has fewer than two seeds, and so no
  interval. **not measured**: a cell has no number yet.
- "Faster" compares the mean of a curve over all epochs (the area under it): lower for a loss, higher for accuracy.
  Curves know no protocol.
- Original and corrupted images are no attack: there both protocols are the same measurement in effect; they differ in
  the number of images, and of noise draws averaged for an answer, only.
- The verdict is for noise on at inference, which is what the paper's published code does on MNIST; the same test with
  the noise off stands beside it. Rows without noise have one state, used for both.
- No correction is made for the number of tests: where nothing differs, about one cell in forty is as claimed by
  chance.
- "In its own table" counts the cells that the paper's printed numbers bear out, by their sign alone.
"""

Judged = list[tuple[str, str, Sentence, list[Result]]]


def judged(evidence: Evidence) -> Judged:
    """(number, paragraph, sentence, its results), in the paper's order."""
    found: Judged = []
    for passage in passages():
        for sentence in passage.sentences:
            results = [judge(one, evidence) for test in sentence.tests for one in test.each()]
            found.append((str(len(found) + 1), passage.place, sentence, results))
    return found


def summary(claims: Judged) -> str:
    """How many verdicts of each kind, in one sentence."""
    counts = Counter(result.verdict for *_, results in claims for result in results)
    listed = [f"{counts[verdict]} {_plural(verdict, counts[verdict])}" for verdict in Verdict if counts[verdict]]
    return f"Of {sum(counts.values())} tests of {len(claims)} sentences: {'; '.join(listed)}."


def _plural(verdict: Verdict, count: int) -> str:
    if count != 1:
        return {Verdict.HOLDS: "hold", Verdict.FAILS: "do not hold", Verdict.PAPER_ONLY: "hold " + verdict.value}.get(
            verdict, verdict.value
        )
    return f"holds {verdict.value}" if verdict is Verdict.PAPER_ONLY else verdict.value


def overview(claims: Judged) -> str:
    """A line for every test: what it says, and its verdict."""
    rows = []
    for number, _, _, results in claims:
        for place, result in enumerate(results):
            test = result.test
            off = "–" if test.kind == "faster" else result.verdict_off.value
            rows.append(
                [
                    _number(number, place, results),
                    f"{_says(test)}",
                    test.table,
                    _own(test),
                    f"**{result.verdict}**",
                    off,
                ]
            )
    header = ["", "Claim", "Table", "In its own table", "Verdict", "With noise off"]
    return markdown_table(header, rows, left=6)


def _number(number: str, place: int, results: list[Result]) -> str:
    return number + ("abcdefghijkl"[place] if len(results) > 1 else "")


def details(claims: Judged) -> Iterator[str]:
    """Every sentence with the size of what was measured, and every comparison."""
    paragraph = ""
    for number, place, sentence, results in claims:
        if place != paragraph:
            paragraph = place
            yield f"### {place}\n"
        yield f"**{number}.** “{sentence.quote}”\n"
        header = ["", "Test", "Protocol paper", "Protocol strict", "Verdict", "Noise off: paper", "Noise off: strict"]
        rows = [_row(_number(number, at, results), result) for at, result in enumerate(results)]
        yield markdown_table(header, rows, left=7)
        for note in dict.fromkeys(result.test.note for result in results if result.test.note):
            yield f"{note}\n"
        several = [(at, result) for at, result in enumerate(results) if len(result.paper.cells) > 1]
        for at, result in several:
            if any(cell.difference for outcome in _outcomes(result) for cell in outcome.cells):
                yield f"<details><summary>{_number(number, at, results)}: every comparison</summary>\n"
                yield _every(result)
                yield "</details>\n"


def _outcomes(result: Result) -> tuple[Outcome, Outcome, Outcome, Outcome]:
    return result.paper, result.strict, result.paper_off, result.strict_off


def _row(number: str, result: Result) -> list[str]:
    on = [_size(result.test, outcome) for outcome in (result.paper, result.strict)]
    off = [_size(result.test, outcome) for outcome in (result.paper_off, result.strict_off)]
    if result.test.kind == "faster":  # a curve is the same in every setting
        on[1], off = "the same", ["–", "–"]
    return [number, _says(result.test), *on, f"**{result.verdict}**", *off]


def _every(result: Result) -> str:
    header = ["A", "B", "in", "paper, on", "strict, on", "paper, off", "strict, off"]
    outcomes = _outcomes(result)[:1] if result.test.kind == "faster" else _outcomes(result)
    rows = [
        [first.a, first.b, name_of(first.key), *(_difference(cell) for cell in cells)]
        for first, cells in ((cells[0], cells) for cells in zip(*(o.cells for o in outcomes), strict=True))
    ]
    return markdown_table(header[: 3 + len(outcomes)], rows, left=3)


def _says(test: Test) -> str:
    for key, size in test.claimed.items():
        return f"{test.says}: {name_of(key)}, by {100 * size:g} %"
    return test.says


def _own(test: Test) -> str:
    borne_out = in_the_paper(test)
    return "–" if borne_out is None else f"{borne_out[0]} of {borne_out[1]}"


def _size(test: Test, outcome: Outcome) -> str:
    """What one outcome came to: the difference of its only cell, or a count of cells and their range."""
    if len(outcome.cells) == 1:
        cell = outcome.cells[0]
        return _difference(cell) + _claimed(test, cell)
    sizes = [cell.difference.size.mean for cell in outcome.cells if cell.difference]
    answers = (Answer.CLAIMED, Answer.CONTRARY, Answer.OPEN, Answer.ONE_SEED, Answer.MISSING)
    counts = [(outcome.count(answer), answer) for answer in answers]
    text = ", ".join(f"{count} {answer}" for count, answer in counts if count)
    spread = f"; {signed(min(sizes))} to {signed(max(sizes))}" if sizes else ""
    return f"of {len(outcome.cells)}: {text}{spread}" if sizes else Answer.MISSING.value


def _difference(cell: Compared) -> str:
    if cell.difference is None:
        return Answer.MISSING.value
    size, count = cell.difference.size, len(cell.difference.seeds)
    if not size.has_interval:
        return f"{signed(size.mean)} (1 seed: no interval)"
    return f"{signed(size.mean)} {interval(size)}, p {_p(cell.difference.p)}, {count} seeds"


def _claimed(test: Test, cell: Compared) -> str:
    """The stated size beside the measured one."""
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


def signed(value: float) -> str:
    """`+0.131`, with a minus sign that is as wide as the plus."""
    return f"{value:+.3f}".replace("-", "−")


def interval(size: Estimate) -> str:
    """`[+0.120, +0.142]`."""
    return f"[{signed(size.low)}, {signed(size.high)}]"


def name_of(key: str) -> str:
    """A column or curve in words."""
    column = COLUMNS.get(key)
    if column is None:
        return key.replace("_", " ").replace("train ", "training ")
    return (
        f"{column.title} (transfer)" if key.startswith("transfer_") and column.group == BLACK else title_of(column, [])
    )
