"""What is said of predictions, over whole stories."""

from __future__ import annotations

import pytest
from stage import accept, configured, doomed, events_of, finished, house_in, task

from phase21.domain import events as ev
from phase21.evaluation.calibration import bin_of
from phase21.readers.inquiries.hindsight import met_in
from phase21.store import codec

pytestmark = pytest.mark.looptime


async def test_the_report_and_the_journal_tell_the_same_predictions(tmp_path):
    """What the waves' digests add up to is what the journal itself comes to, retries, moves and later waves included."""
    settings = configured(agents={"count": 3}, retry={"max_attempts": 3})
    async with house_in(tmp_path, settings) as house:
        mixed = [task(f"m{n}", predicted_success_rate=0.6 + n / 50, payload={"success_rate": 0.7}) for n in range(12)]
        later = [task(f"l{n}", predicted_success_rate=0.9, payload={"success_rate": 0.5, "duration_s": 1.0}) for n in range(9)]
        accept(house, "r", [*mixed, doomed("d")], later, [task("slow", timeout_s=0.1, payload={"duration_s": 9.0})])
        accept(house, "other", [task(f"o{n}", payload={"success_rate": 0.6}) for n in range(5)])
        await finished(house)
        held = list(met_in(house.journal.lookup.entries(), "r"))
        moves = sum(event.moved for event in events_of(house, ev.TasksAssigned))
        digests = [codec.decode(digest) for _, digest in house.journal.lookup.waves("r")]
    assert (len(held), moves > 0) == (23, True)
    for field, forecast in (("predicted_sums", "predicted"), ("incoming_sums", "incoming")):
        for digest in digests:
            found = [one for one in held if one.wave == digest["wave"]]
            counts = {place: (samples, successes) for place, samples, _, _, successes in digest[field]}
            bins = {bin_of(getattr(one, forecast)) for one in found}
            assert counts == {
                place: (
                    sum(bin_of(getattr(one, forecast)) == place for one in found),
                    sum(one.success for one in found if bin_of(getattr(one, forecast)) == place),
                )
                for place in bins
            }


async def test_the_picture_stands_beside_the_report(tmp_path):
    """A run's folder has the picture that its report shows, even where nothing was started."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [task("t")])
        accept(house, "idle", [task("x", risk_level="HIGH", predicted_success_rate=0.1)])
        await finished(house)
    for run_id, shown in (("r", True), ("idle", False)):
        folder = tmp_path / "outputs" / run_id
        assert (folder / "calibration.svg").read_text().startswith("<svg ")
        assert ("(calibration.svg)" in (folder / "PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()) is shown
