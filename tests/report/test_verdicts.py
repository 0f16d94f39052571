"""What is said of all claims together."""

from __future__ import annotations

from noiseopt.report.claims import Evidence, Result, Sentence, judge
from noiseopt.report.verdicts import summary
from tests.report.test_claims import evidence, greater


def outcome(found: Evidence) -> Result:
    return judge(greater(["fgsm", "pgd"]), found)


def test_the_summary_tells_what_is_refuted_from_what_is_open() -> None:
    holds = outcome(evidence(lambda *_: 0.1, ["fgsm", "pgd"]))
    refuted = outcome(evidence(lambda column, *_: 0.1 if column == "fgsm" else -0.1, ["fgsm", "pgd"]))
    still_open = outcome(evidence(lambda column, *_: 0.1 if column == "fgsm" else 0.0, ["fgsm", "pgd"]))
    sentence = Sentence(quote="so", tests=[greater(["fgsm"])])

    def said(*results: Result) -> str:
        return summary([("1", "", sentence, list(results))])

    assert said(holds) == "Of 1 tests of 1 sentences: 1 holds."
    assert said(holds, refuted, still_open, still_open).endswith(
        "1 holds; 3 do not hold (1 with a comparison that lies the other way, 2 open)."
    )
